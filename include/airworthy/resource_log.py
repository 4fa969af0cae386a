"""What every stage took, in a table of the ledger's database, and how that changes over time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from statistics import median, quantiles
from typing import Any, NamedTuple

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict, Field

from airworthy import charts
from airworthy.config import Moment
from airworthy.database import Database
from airworthy.errors import ServiceError
from airworthy.pages import Chart
from airworthy.profile import load_profile
from airworthy.resources import Usage

_TABLE = sa.Table(
    "resources",
    sa.MetaData(),
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("pipeline", sa.String(50), nullable=False),
    sa.Column("stage", sa.String(250), nullable=False),
    sa.Column("run", sa.String(250), nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("seconds", sa.Float, nullable=False),
    sa.Column("cpu_seconds", sa.Float, nullable=False),
    sa.Column("peak_mb", sa.Float, nullable=False),
    sa.Column("resident_mb", sa.Float, nullable=False),
    sa.Index("resources_of_a_stage", "pipeline", "stage", "id"),
)
_MEASURES = {"seconds": 1.0, "cpu_seconds": 1.0, "peak_mb": 20.0}  # less than this is no growth
_GROWTH = 1.3
_NEWEST = 3  # runs whose median is held against that of the runs before them
LAST = 30  # runs
HEAD = ("stage", "runs", "newest", "seconds", "median", "p95", "CPU", "median", "p95", "MB", "median", "p95", "grew")


class Record(BaseModel):
    """What one attempt of a task took.

    Attributes:
        stage: The task's id.
        run: Airflow's id of the run.
        at: When it ended.
        state: `success`, `failed` or `skipped`.
    """

    model_config = ConfigDict(frozen=True)

    pipeline: str
    stage: str
    run: str
    attempt: int
    at: Moment = Field(default_factory=lambda: datetime.now(UTC))
    state: str
    seconds: float
    cpu_seconds: float
    peak_mb: float
    resident_mb: float


class Trend(NamedTuple):
    """One measure of a stage's runs, oldest first, the newest included."""

    newest: float
    median: float
    p95: float
    grew: str


class ResourceLog:
    """The table, which the first record makes."""

    def __init__(self, url: str) -> None:
        self._database = Database("record of resources", url)

    def add(self, pipeline: str, stage: str, run: str, attempt: int, state: str, used: Usage) -> None:
        """Leaves on record what a task took.

        Raises:
            ServiceError: The database does not answer.
        """
        one = Record(pipeline=pipeline, stage=stage, run=run, attempt=attempt, state=state, **used._asdict())
        try:
            self._insert(one)
        except ServiceError:  # the table may not be there, and every other time it costs a task to look
            self._database.make(_TABLE, append_only=False)
            self._insert(one)

    def last(self, pipeline: str, number: int = LAST) -> dict[str, list[Record]]:
        """Returns the newest records of every stage, oldest first, by the stage's name.

        Raises:
            ServiceError: The database does not answer.
        """
        self._database.make(_TABLE, append_only=False)
        rank = sa.func.row_number().over(partition_by=_TABLE.c.stage, order_by=_TABLE.c.id.desc()).label("rank")
        ranked = sa.select(_TABLE, rank).where(_TABLE.c.pipeline == pipeline).subquery()
        query = sa.select(ranked).where(ranked.c.rank <= number).order_by(ranked.c.id)
        found: dict[str, list[Record]] = {}
        with self._database.transaction() as connection:
            for row in connection.execute(query).mappings():
                found.setdefault(row["stage"], []).append(Record.model_validate(dict(row)))
        return found

    def _insert(self, one: Record) -> None:
        with self._database.transaction() as connection:
            connection.execute(sa.insert(_TABLE).values(one.model_dump()))


def trends(records: Sequence[Record]) -> dict[str, Trend]:
    """Returns the trend of each measure over runs that did their work, of all if none did."""
    done = [one for one in records if one.state == "success"] or records
    return {name: _trend(name, [getattr(one, name) for one in done]) for name in _MEASURES}


def _trend(name: str, values: Sequence[float]) -> Trend:
    p95 = quantiles(values, n=20, method="inclusive")[-1] if len(values) > 1 else values[0]
    before, now = values[:-_NEWEST], median(values[-_NEWEST:])
    grew = ""
    if len(before) >= _NEWEST and now >= _GROWTH * median(before) and now - median(before) >= _MEASURES[name]:
        grew = f"{name} {median(before):.3g} to {now:.3g}"
    return Trend(values[-1], median(values), p95, grew)


def table(found: Mapping[str, Sequence[Record]]) -> list[Sequence[str]]:
    """Returns one row per stage for `HEAD`."""
    rows: list[Sequence[str]] = []
    for stage, records in found.items():
        each = trends(records)
        numbers = [f"{value:.1f}" for trend in each.values() for value in trend[:3]]
        failed = sum(one.state == "failed" for one in records)
        count = f"{len(records)}, {failed} failed" if failed else str(len(records))
        grew = ", ".join(trend.grew for trend in each.values() if trend.grew)
        rows.append((stage, count, f"{records[-1].at:%Y-%m-%d %H:%M}", *numbers, grew))
    return rows


def drawn(found: Mapping[str, Sequence[Record]]) -> list[Chart]:
    """Returns two charts per stage, over its runs: seconds, and memory."""
    shown: list[Chart] = []
    for stage, records in found.items():
        run = f"last {len(records)} runs"
        seconds = {"by the clock": _line(records, "seconds"), "of processors": _line(records, "cpu_seconds")}
        shown.append(charts.points(seconds, f"{stage}: time", run, "seconds", tuple(seconds)))
        memory = {"more than before": _line(records, "peak_mb")}
        shown.append(charts.points(memory, f"{stage}: peak memory", run, "MB", tuple(memory)))
    return shown


def _line(records: Iterable[Record], name: str) -> list[tuple[float, float]]:
    return [(number, getattr(one, name)) for number, one in enumerate(records, start=1)]


def run(
    pipeline: str,
    environment: Mapping[str, str],
    say: Callable[[str], object],
    *,
    stage: str = "",
    last: int = LAST,
    as_json: bool = False,
) -> None:
    """Tells what the stages of a pipeline took in their newest run and in those before, and what grew.

    Args:
        pipeline: Whose stages.
        environment: Where the services are.
        say: Takes a line.
        stage: Only this one.
        last: How many runs of each.
        as_json: For machines, with every run.

    Raises:
        ServiceError: The database does not answer, or there is nothing on record.
    """
    from airworthy.terminal import lines

    found = ResourceLog(load_profile(environment).ledger_url).last(pipeline, last)
    chosen = {name: records for name, records in found.items() if stage in ("", name)}
    if not chosen:
        got = f"only {', '.join(found)}" if found else "nothing"
        where = f"{pipeline}: {stage}" if stage else pipeline
        raise ServiceError(where, "must have run since resources are on record", got, f"Run {pipeline}.train")
    if as_json:
        say(json.dumps({name: _told(records) for name, records in chosen.items()}, indent=1))
        return
    for line in lines(HEAD, table(chosen)):
        say(line)


def _told(records: Sequence[Record]) -> dict[str, Any]:
    each = {name: trend._asdict() for name, trend in trends(records).items()}
    return {**each, "runs": [one.model_dump(mode="json", exclude={"pipeline", "stage"}) for one in records]}
