"""What every policy of a pipeline came to over the same past."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import combinations

import pandas as pd

from airworthy.backtest import results
from airworthy.backtest.comparison import Gain, Months, counted, draws, gain
from airworthy.backtest.replay import Decision, replay
from airworthy.config import Pipeline
from airworthy.errors import ServiceError
from airworthy.evidence import LOWER_IS_BETTER
from airworthy.lines import LINES, Models, by_month, follow, rows_since
from airworthy.profile import Profile
from airworthy.registry import Registry
from airworthy.store import Store

CHAMPION, BLIND, STATIC = LINES


@dataclass(frozen=True)
class Account:
    """What one policy came to.

    Attributes:
        pipeline: As the policy has it, but for the metric, which is that of the pipeline as it is declared.
        decisions: By `as_of`.
        scores: As `lines.by_month`; no rows if nothing came after a first promotion.
        months: By line: those that count, for comparisons.
    """

    policy: str
    pipeline: Pipeline
    decisions: list[Decision]
    scores: pd.DataFrame
    months: dict[str, Months]

    def gain(self, line: str) -> Gain | None:
        """Returns how much better the champion was than another line."""
        return gain(self.pipeline, self.months[CHAMPION], self.months[line])

    @property
    def means(self) -> dict[str, float]:
        """Each line's mean over the months that count, each of them the same."""
        return {line: float(counted(self.scores)[line].mean()) for line in LINES}

    @property
    def weighted(self) -> dict[str, float]:
        """Each line's mean over all months, which count by their rows."""
        products = {line: self.scores[line] * self.scores["rows"] for line in LINES}
        rows = {line: self.scores["rows"].where(self.scores[line].notna()).sum() for line in LINES}
        return {line: float(products[line].sum() / rows[line]) if rows[line] else float("nan") for line in LINES}

    @property
    def shortfall(self) -> pd.Series[float]:
        """By month: how much worse the champion was than the better of the other two lines; negative if better."""
        others = self.scores[[BLIND, STATIC]]
        if self.pipeline.metric in LOWER_IS_BETTER:
            return self.scores[CHAMPION] - others.min(axis=1)
        return others.max(axis=1) - self.scores[CHAMPION]

    @property
    def worst(self) -> tuple[pd.Timestamp, float] | None:
        """The counting month with the largest shortfall, and how large it is."""
        known = self.shortfall[counted(self.scores).index].dropna()
        if known.empty:
            return None
        place = int(known.to_numpy().argmax())
        return self.scores["month"][known.index[place]], float(known.iloc[place])


@dataclass(frozen=True)
class Contest:
    """Two policies, and how much better the first one's champion was."""

    one: Account
    other: Account
    gain: Gain | None

    @property
    def says(self) -> str:
        """Which is better, by how much, and how sure that is."""
        if self.gain is None:
            return f"{self.one.policy} and {self.other.policy} have no month in common"
        better, worse = (self.one, self.other) if self.gain.mean >= 0 else (self.other, self.one)
        low, high = sorted(bound if self.gain.mean >= 0 else -bound for bound in self.gain.interval)
        found = f"{abs(self.gain.mean):.4f} {self.one.pipeline.metric} over {self.gain.months} months"
        if not self.gain.mean and not any(self.gain.interval):
            return f"{self.one.policy} and {self.other.policy} came to the same in {self.gain.months} months"
        if self.gain.sure:
            return f"{better.policy} is better than {worse.policy} by {found} [{low:.4f}, {high:.4f}]"
        return f"{better.policy} is ahead of {worse.policy} by {found}, which may be chance [{low:+.4f}, {high:+.4f}]"


def accounts(
    pipeline: Pipeline,
    policies: Sequence[str],
    profile: Profile,
    first: datetime | None = None,
    last: datetime | None = None,
) -> list[Account]:
    """Returns what every policy came to, replayed over what is on record of their backtests.

    Args:
        pipeline: As it is declared.
        policies: Names of its policies.
        profile: Where the tables and MLflow are.
        first: No `as_of` is earlier.
        last: No `as_of` is later.

    Raises:
        ConfigError: There is no such policy.
        ServiceError: A policy has no training on record, or MLflow does not answer.
    """
    runs = on_record(pipeline, policies, profile, first, last)
    if missing := [policy for policy, found in runs.items() if not found]:
        rule = f"must be on record for {', '.join(missing)} as declared now"
        raise ServiceError(f"{pipeline.name}: backtest", rule, hint=to_run(pipeline, missing, first, last))
    models, until = Models(pipeline, Registry(profile)), datetime.now(UTC)
    start = min(one.challenger.as_of for found in runs.values() for one in found)
    frame = rows_since(pipeline, start, until, profile)
    result = []
    for policy, found in runs.items():
        under = pipeline.under(policy)
        decisions = replay(under, found, models, profile)
        chosen = [(decision.challenger, decision.promoted) for decision in decisions]
        followed = follow(under, chosen, until, frame, models)
        # One that trains for another metric is held against the others by the declared one.
        scored = under.model_copy(update={"train": under.train.model_copy(update={"metric": pipeline.metric})})
        scores = by_month(scored, followed)
        months = draws(scored, followed, scores) if followed else {line: {} for line in LINES}
        result.append(Account(policy, scored, decisions, scores, months))
    return result


def on_record(
    pipeline: Pipeline,
    policies: Sequence[str],
    profile: Profile,
    first: datetime | None = None,
    last: datetime | None = None,
) -> dict[str, list[results.Result]]:
    """Returns what is on record of each policy's backtest, by `as_of`; the arguments are those of `accounts`."""
    store = Store(profile.store_uri, pipeline.name)
    return {policy: results.read(pipeline.under(policy), store, first, last) for policy in policies}


def to_run(pipeline: Pipeline, policies: Sequence[str], first: datetime | None, last: datetime | None) -> str:
    """Returns the command that runs the backtests of some policies; all that is declared if no dates are given."""
    start, end = first or pipeline.start, last or pipeline.end or datetime.now(UTC)
    chosen = " ".join(f"--policy {policy}" for policy in policies)
    return f"airworthy backtest run {pipeline.name} {chosen} --from {start:%Y-%m-%d} --to {end:%Y-%m-%d}"


def contests(found: Sequence[Account]) -> list[Contest]:
    """Returns every two policies compared."""
    return [
        Contest(one, other, gain(one.pipeline, one.months[CHAMPION], other.months[CHAMPION]))
        for one, other in combinations(found, 2)
    ]
