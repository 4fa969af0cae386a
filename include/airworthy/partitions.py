"""Partitions: half-open UTC intervals of event time, named by their start."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, NamedTuple

from dateutil.relativedelta import relativedelta
from pydantic import PlainSerializer, PlainValidator, WithJsonSchema

from airworthy.errors import DataError

Grain = Literal["hour", "day", "week", "month"]

_CRON = {"hour": "0 * * * *", "day": "0 0 * * *", "week": "0 0 * * 1", "month": "0 0 1 * *"}
_FORMAT = {"hour": "%Y-%m-%dT%H", "day": "%Y-%m-%d", "week": "%Y-%m-%d", "month": "%Y-%m-%d"}
_STEP = {grain: relativedelta(**{f"{grain}s": 1}) for grain in _CRON}  # type: ignore[arg-type]
_SECONDS = {"day": 86_400, "hour": 3_600, "minute": 60, "second": 1}
_DURATION = re.compile(r"(\d+) (second|minute|hour|day|week|month)s?")


class Partition(NamedTuple):
    """One partition: `key` names it, `[start, end)` is its event time in UTC."""

    key: str
    start: datetime
    end: datetime


def cron(grain: Grain) -> str:
    """Returns the cron expression that ticks where partitions of this grain begin."""
    return _CRON[grain]


def partition_at(grain: Grain, moment: datetime) -> Partition:
    """Returns the partition that holds a moment."""
    moment = utc(moment)
    start = moment.replace(minute=0, second=0, microsecond=0)
    if grain != "hour":
        start = start.replace(hour=0)
    if grain == "week":
        start -= timedelta(days=start.weekday())
    if grain == "month":
        start = start.replace(day=1)
    return Partition(start.strftime(_FORMAT[grain]), start, start + _STEP[grain])


def parse_key(grain: Grain, key: str) -> Partition:
    """Returns the partition a key names.

    Raises:
        DataError: The key is malformed, or does not name the start of a partition.
    """
    hint = f"A {grain} partition is named by its start, e.g. {partition_at(grain, datetime.now(UTC)).key!r}"
    try:
        moment = datetime.strptime(key, _FORMAT[grain]).replace(tzinfo=UTC)
    except ValueError:
        raise DataError("partition", f"must match {_FORMAT[grain]}", key, hint) from None
    found = partition_at(grain, moment)
    if found.key != key:
        raise DataError("partition", f"must name the start of a {grain}", key, f"That moment is in {found.key!r}")
    return found


def partitions_between(grain: Grain, start: datetime, end: datetime) -> Iterator[Partition]:
    """Yields every partition that overlaps `[start, end)`, oldest first."""
    found = partition_at(grain, start)
    while found.start < utc(end):
        yield found
        found = partition_at(grain, found.end)


def utc(moment: datetime) -> datetime:
    """Returns the moment in UTC; a naive one is taken as UTC already."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def parse_duration(value: Any) -> relativedelta:
    """Returns the time span that a text such as `28 days` or `1 month` names.

    Raises:
        ValueError: It does not name one.
    """
    if isinstance(value, relativedelta):
        return value
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("must be a whole number of seconds, minutes, hours, days, weeks or months, e.g. '28 days'")
    return relativedelta(**{f"{match[2]}s": int(match[1])})  # type: ignore[arg-type]


def write_duration(value: relativedelta) -> str:
    """Returns the text that `parse_duration` reads."""
    if months := value.months + 12 * value.years:
        return f"{months} months"
    seconds = span(value).total_seconds()  # relativedelta turns 36 hours into 1 day and 12 hours
    unit, size = next(((unit, size) for unit, size in _SECONDS.items() if seconds % size == 0))
    return f"{seconds // size:.0f} {unit}s"


def span(value: relativedelta) -> timedelta:
    """Returns a span without months as one of fixed length."""
    return timedelta(days=value.days, hours=value.hours, minutes=value.minutes, seconds=value.seconds)


Duration = Annotated[
    relativedelta,
    PlainValidator(parse_duration),
    PlainSerializer(write_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": f"^{_DURATION.pattern}$", "examples": ["1 month", "28 days"]}),
]
