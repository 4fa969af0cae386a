"""The error budget: what chance of promoting a worse model the judgements of any one period may use up together.

Every judgement against a champion draws its share of the budget, the alpha its test is held to. By Bonferroni's
inequality the chance that any of them promotes a worse model is at most the sum of what they drew, however much
they depend on each other; a rule that draws a fixed part of what is left never draws more than the budget, however
many judgements there are. (Foster and Stine, Alpha-investing, JRSS B 70, 2008, call such a rule alpha-spending.)

Why a share of what is left: a challenger better by three standard errors is found, on average over a year of 12 and
of 52 looks, with 0.63 and 0.50 by a share of 0.05; 0.72 and 0.22 by twelve equal parts, 0.54 and 0.54 by 52 of them
(each at most half of what is left), and 0.56 and 0.29 by 6 / (pi k)^2 for look k, which goes on falling in the years
after. Equal parts are better only for who knows how often drift will ask for a retrain.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Protocol

import sqlalchemy as sa
from dateutil.relativedelta import relativedelta
from pydantic import BaseModel, ConfigDict

from airworthy.config import Moment, Pipeline
from airworthy.database import NumberedTable
from airworthy.errors import ConfigError
from airworthy.partitions import utc
from airworthy.profile import load_profile

_METADATA = sa.MetaData()
_TABLE = sa.Table(
    "budget",
    _METADATA,
    sa.Column("pipeline", sa.String(50), primary_key=True),
    sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("as_of", sa.DateTime(timezone=True), nullable=False),
    sa.Column("run_id", sa.String(64), nullable=False),
    sa.Column("champion", sa.String(32), nullable=False),
    sa.Column("gate", sa.Text, nullable=False),
    sa.Column("alpha", sa.Float, nullable=False),
    sa.Column("left", sa.Float, nullable=False),
    sa.UniqueConstraint("pipeline", "as_of", "run_id", "champion", "gate"),
)
_NO_BUDGET = "With `confidence` each test stands by itself"


class Look(BaseModel):
    """One judgement: a gate compares a challenger with a champion. Judged again, it is the same look.

    A finished run that is judged at another moment is judged on another holdout, which is another look.

    Attributes:
        as_of: What the challenger knew; a look belongs to the period around it, whenever it is judged.
        gate: The gate's declaration. Declared otherwise, it is another test on the same rows, hence another look.
    """

    model_config = ConfigDict(frozen=True)

    pipeline: str
    as_of: Moment
    run_id: str
    champion: str
    gate: str


class Draw(Look):
    """What a look drew: the level of its test.

    Attributes:
        sequence: 1, 2, 3, ... within the pipeline.
        left: What of the budget was left afterwards for its period.
    """

    sequence: int
    at: Moment
    alpha: float
    left: float


class Spending(BaseModel):
    """How looks draw: `share` of what no period that holds them has drawn of `budget` yet."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    budget: float
    period: relativedelta
    share: float

    def left(self, draws: Sequence[Draw], as_of: datetime) -> float:
        """Returns what of the budget is left in the fullest period that holds `as_of`.

        Draws of later moments count, too: a look at an earlier moment than others falls into their periods.
        """
        ends = {as_of, *(draw.as_of for draw in draws if draw.as_of > as_of)}
        periods = [(end - self.period, end) for end in ends]
        drawn = (
            sum(draw.alpha for draw in draws if start < draw.as_of <= end) for start, end in periods if start < as_of
        )
        return max(self.budget - max(drawn), 0.0)

    def next(self, draws: Sequence[Draw], look: Look) -> Draw:
        """Returns what a look draws after others; drawn before, it is that draw."""
        for draw in draws:
            if all(getattr(draw, name) == value for name, value in look):
                return draw
        left = self.left(draws, look.as_of)
        return Draw(
            **look.model_dump(),
            sequence=len(draws) + 1,
            at=datetime.now(UTC),
            alpha=self.share * left,
            left=(1 - self.share) * left,
        )


class Budget(Protocol):
    """Where looks draw."""

    def draw(self, look: Look, spending: Spending) -> Draw:
        """Returns what the look drew, now or when it was first judged."""

    def draws(self, pipeline: str) -> list[Draw]:
        """Returns what was drawn, oldest first."""


class ReplayBudget:
    """A budget of its own for a replay, which must not draw from the one kept for promotions."""

    def __init__(self) -> None:
        self._draws: list[Draw] = []

    def draw(self, look: Look, spending: Spending) -> Draw:
        before = self.draws(look.pipeline)
        drawn = spending.next(before, look)
        if drawn.sequence > len(before):
            self._draws.append(drawn)
        return drawn

    def draws(self, pipeline: str) -> list[Draw]:
        return [draw for draw in self._draws if draw.pipeline == pipeline]


class KeptBudget:
    """The budget kept in the ledger's database: append-only, in a table that its first use makes."""

    def __init__(self, url: str) -> None:
        self._table = NumberedTable("error budget", url, _TABLE, Draw.model_validate)

    def draw(self, look: Look, spending: Spending) -> Draw:
        """Returns what the look drew; two at once draw one after the other.

        Raises:
            ConflictError: Too many others draw at the same moment.
            ServiceError: The database does not answer.
        """
        return self._table.append(look.pipeline, lambda before: spending.next(before, look))

    def draws(self, pipeline: str) -> list[Draw]:
        """Returns what was drawn, oldest first.

        Raises:
            ServiceError: The database does not answer.
        """
        return self._table.rows(pipeline)


def run(pipeline: Pipeline, environment: Mapping[str, str], as_of: str, say: Callable[[str], object]) -> None:
    """Tells what the comparisons of a pipeline drew, and what a look at `as_of` finds left; "" is now.

    Raises:
        ConfigError: The pipeline has no error budget, or `as_of` is not a moment.
        ServiceError: The database does not answer.
    """
    found = [spending for gate in pipeline.gates if (spending := getattr(gate, "spending", None))]
    if not found:
        raise ConfigError(f"{pipeline.name}: gates", "must hold a beats_champion with an error_budget", hint=_NO_BUDGET)
    try:
        moment = utc(datetime.fromisoformat(as_of)) if as_of else datetime.now(UTC)
    except ValueError:
        raise ConfigError("--as-of", "must be a date, e.g. 2013-01-31", as_of) from None
    draws = KeptBudget(load_profile(environment).ledger_url).draws(pipeline.name)
    for spending in found:
        show(draws, spending, moment, say)


def show(draws: Sequence[Draw], spending: Spending, as_of: datetime, say: Callable[[str], object]) -> None:
    """Tells what was drawn, for which challengers, and what a look at `as_of` would find left."""
    for draw in draws:
        against = f"against version {draw.champion}"
        say(f"{draw.as_of:%Y-%m-%d}  {draw.alpha:.5f}  left {draw.left:.5f}  run {draw.run_id[:12]} {against}")
    left = spending.left(draws, as_of)
    told = f"{left:.5f} of {spending.budget:g} is left as of {as_of:%Y-%m-%d}"
    say(f"{told}; the next look draws {spending.share * left:.5f}")
