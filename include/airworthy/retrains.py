"""The record of what became of every finding that asks for a retrain, and of every training: append-only.

A request is made when something asks and nothing holds it back. Time is that of the data, the request's `as_of`, so
that a replay of the past decides as the past would have, and the order in which runs finish changes no limit.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict

from airworthy.config import Moment
from airworthy.database import NumberedTable
from airworthy.partitions import write_duration
from airworthy.profile import load_profile
from airworthy.retrain import Retrain

_TABLE = sa.Table(
    "retrains",
    sa.MetaData(),
    sa.Column("pipeline", sa.String(50), primary_key=True),
    sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("key", sa.String(320), nullable=False),
    sa.Column("partition", sa.String(32), nullable=False),
    sa.Column("as_of", sa.DateTime(timezone=True), nullable=False),
    sa.Column("cause", sa.String(64), nullable=False),
    sa.Column("action", sa.String(16), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("version", sa.String(32), nullable=False),
    sa.Column("champion", sa.String(32), nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.UniqueConstraint("pipeline", "key"),
)
_DOUBLED = 6  # times at most: 7 days become 448, and a date stays one
# One bad or drifted partition may be chance; a count of rows is not.
_DEBOUNCED = frozenset({"drift", "decay", "anomaly"})


class Findings(BaseModel):
    """What monitoring found about a partition.

    Attributes:
        as_of: What a training that is asked for may know.
        causes: What asks: of `drift`, `decay`, `anomaly` and `volume`; nothing if all is well.
        reason: What was looked at.
        version: The version that the findings are about.
        champion: The version that is champion now; "" if there is none.
        champion_as_of: What that one was trained on.
        actor: The run that found it.
    """

    model_config = ConfigDict(frozen=True)

    pipeline: str
    partition: str
    as_of: Moment
    causes: tuple[str, ...]
    reason: str
    version: str
    champion: str
    champion_as_of: Moment | None
    actor: str

    @property
    def key(self) -> str:
        """Says that the same was found about the same partition, whoever did and whenever."""
        said = json.dumps([self.causes, self.reason, self.version])
        return f"{self.partition} {hashlib.sha256(said.encode()).hexdigest()}"


class Decision(BaseModel):
    """A row of the record.

    Attributes:
        partition: What it is about; "" for a training that was not asked for.
        cause: What asks, or `schedule` or `person` for a training that was not asked for.
        action: `request`: a training is asked for. `hold`: something asks, and the reason says what holds it back.
            `quiet`: nothing asks. `train`: a training began that nobody asked for.
        version: What the findings are about.
        champion: The version that was champion; "" if there was none.
        actor: The run that decided; what it asked for, no other run asks for again.
    """

    model_config = ConfigDict(frozen=True)

    pipeline: str
    sequence: int
    at: Moment
    key: str
    partition: str
    as_of: Moment
    cause: str
    action: Literal["request", "hold", "quiet", "train"]
    reason: str
    version: str
    champion: str
    actor: str

    @property
    def retrain(self) -> bool:
        return self.action == "request"


def decided(found: Findings, before: Sequence[Decision], policy: Retrain) -> Decision:
    """Returns what becomes of findings after others; found before, it is that decision."""
    for decision in before:
        if decision.key == found.key:
            return decision
    held = _held(found, before, policy) if found.causes else ""
    return Decision(
        **found.model_dump(include={"pipeline", "partition", "as_of", "version", "champion", "actor"}),
        key=found.key,
        sequence=len(before) + 1,
        at=datetime.now(UTC),
        cause=", ".join(found.causes),
        action="quiet" if not found.causes else "hold" if held else "request",
        reason=f"{found.reason}; held back: {held}" if held else found.reason,
    )


def _held(found: Findings, before: Sequence[Decision], policy: Retrain) -> str:
    """Returns what holds a request back; "" if nothing does."""
    if found.champion and found.champion != found.version:
        return f"it is about version {found.version}, and version {found.champion} is champion"
    if found.champion_as_of and found.champion_as_of >= found.as_of:
        return f"version {found.champion} knows all that is known as of {found.as_of:%Y-%m-%d %H:%M}"
    asking = _in_a_row(found, before)
    if asking < policy.debounce and _DEBOUNCED.issuperset(found.causes):
        return f"{asking} of {policy.debounce} partitions in a row ask"
    return _cooling(found, before, policy) or _spent(found, before, policy)


def _in_a_row(found: Findings, before: Sequence[Decision]) -> int:
    """Returns how many partitions ask without one in between that does not, up to this one and since a request."""
    last = {one.partition: one for one in before if one.partition and one.partition < found.partition}
    requested = {one.partition for one in before if one.retrain}
    asking = 1
    for partition, one in sorted(last.items(), reverse=True):
        if one.action != "hold" or one.version != found.version or partition in requested:
            break
        asking += 1
    return asking


def _cooling(found: Findings, before: Sequence[Decision], policy: Retrain) -> str:
    requests = [one for one in before if one.retrain]
    survived = sum(one.champion == found.champion for one in requests)
    longer = policy.cooldown * 2 ** min(survived, _DOUBLED)
    rules = [("training", one, policy.cooldown) for one in before if one.action == "train"]
    rules += [("request", one, longer) for one in requests]
    for what, other, cooldown in reversed(rules):
        first, second = sorted((found.as_of, other.as_of))
        if first + cooldown > second:
            told = f"{write_duration(cooldown)} from the {what} as of {other.as_of:%Y-%m-%d %H:%M}"
            raised = f", as version {found.champion} has survived {survived}" if what == "request" and survived else ""
            return f"it is less than {told}{raised}"
    return ""


def _spent(found: Findings, before: Sequence[Decision], policy: Retrain) -> str:
    month = f"{found.as_of:%Y-%m}"
    made = sum(one.retrain and f"{one.as_of:%Y-%m}" == month for one in before)
    return f"{made} of {policy.budget} requests were made in {month}" if made >= policy.budget else ""


class Retrains:
    """The record in the ledger's database, in a table that its first use makes."""

    def __init__(self, url: str) -> None:
        self._table = NumberedTable("record of retrains", url, _TABLE, Decision.model_validate)

    def decide(self, found: Findings, policy: Retrain) -> Decision:
        """Returns what becomes of findings, now or when the same was first found; two at once decide one by one.

        Raises:
            ConflictError: Too many others decide at the same moment.
            ServiceError: The database does not answer.
        """
        return self._table.append(found.pipeline, lambda before: decided(found, before, policy))

    def preview(self, found: Findings, policy: Retrain) -> Decision:
        """Returns what would become of findings, and leaves nothing.

        Raises:
            ServiceError: The database does not answer.
        """
        return decided(found, self.decisions(found.pipeline), policy)

    def began(self, pipeline: str, cause: Literal["schedule", "person"], as_of: datetime, actor: str) -> Decision:
        """Returns the row that says that a training began without a request; the same run leaves one.

        Raises:
            ConflictError: Too many others decide at the same moment.
            ServiceError: The database does not answer.
        """

        def began(before: Sequence[Decision]) -> Decision:
            again = next((one for one in before if one.key == actor), None)
            return again or Decision(
                pipeline=pipeline,
                sequence=len(before) + 1,
                at=datetime.now(UTC),
                key=actor,
                partition="",
                as_of=as_of,
                cause=cause,
                action="train",
                reason="",
                version="",
                champion="",
                actor=actor,
            )

        return self._table.append(pipeline, began)

    def decisions(self, pipeline: str) -> list[Decision]:
        """Returns every row of a pipeline, oldest first.

        Raises:
            ServiceError: The database does not answer.
        """
        return self._table.rows(pipeline)


HEAD = ("as of", "partition", "action", "cause", "champion", "reason")


def table(decisions: Sequence[Decision]) -> list[tuple[str, ...]]:
    """Returns what people read of decisions, in the order of `HEAD`."""
    return [
        (f"{one.as_of:%Y-%m-%d %H:%M}", one.partition, one.action, one.cause, one.champion, one.reason or one.actor)
        for one in decisions
    ]


def run(pipeline: str, environment: Mapping[str, str], say: Callable[[str], object], *, quiet: bool) -> None:
    """Tells what was decided about retrains, oldest first; `quiet` also where nothing asked.

    Raises:
        ServiceError: The database does not answer.
    """
    from airworthy.terminal import lines

    decisions = Retrains(load_profile(environment).ledger_url).decisions(pipeline)
    for line in lines(HEAD, table([one for one in decisions if quiet or one.action != "quiet"])):
        say(line)
