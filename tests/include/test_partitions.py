from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from airworthy.errors import DataError
from airworthy.partitions import Duration, Grain, cron, parse_key, partition_at, partitions_between, utc

GRAINS: tuple[Grain, ...] = ("hour", "day", "week", "month")
MOMENTS = st.datetimes(
    datetime.fromisoformat("1990-01-01"), datetime.fromisoformat("2090-01-01"), timezones=st.just(UTC)
)
DURATION = TypeAdapter(Duration)


@given(MOMENTS, st.sampled_from(GRAINS))
def test_a_moment_is_in_its_partition_whose_key_names_it(moment: datetime, grain: Grain) -> None:
    found = partition_at(grain, moment)
    assert found.start <= moment < found.end
    assert parse_key(grain, found.key) == found


@given(MOMENTS, st.sampled_from(GRAINS), st.integers(1, 20))
def test_partitions_follow_each_other_without_gaps(moment: datetime, grain: Grain, count: int) -> None:
    end = moment + count * (partition_at(grain, moment).end - partition_at(grain, moment).start)
    found = list(partitions_between(grain, moment, end))
    assert found[0].start <= moment and found[-1].start < end <= found[-1].end
    assert all(one.end == other.start for one, other in pairwise(found))
    assert [partition.key for partition in found] == sorted(partition.key for partition in found)


@pytest.mark.parametrize(
    ("grain", "key", "end"),
    [
        ("hour", "2026-02-28T23", datetime(2026, 3, 1, tzinfo=UTC)),
        ("day", "2024-02-29", datetime(2024, 3, 1, tzinfo=UTC)),
        ("week", "2012-12-31", datetime(2013, 1, 7, tzinfo=UTC)),
        ("month", "2026-12-01", datetime(2027, 1, 1, tzinfo=UTC)),
    ],
)
def test_keys_name_the_start(grain: Grain, key: str, end: datetime) -> None:
    assert parse_key(grain, key).end == end


@pytest.mark.parametrize(
    ("grain", "key", "message"),
    [
        ("week", "2013-01-01", "must name the start of a week. Got '2013-01-01'. That moment is in '2012-12-31'."),
        ("month", "2013-01-02", "must name the start of a month"),
        ("day", "2013-01-01T05", "must match %Y-%m-%d. Got '2013-01-01T05'. A day partition is named by its start"),
        ("hour", "2013-01-01", "must match %Y-%m-%dT%H"),
        ("day", "2013-1-1", "must name the start of a day"),
        ("day", "../../etc", "must match"),
        ("day", "2013-02-30", "must match"),
        ("day", "", "must match"),
    ],
)
def test_other_keys_are_refused(grain: Grain, key: str, message: str) -> None:
    with pytest.raises(DataError) as raised:
        parse_key(grain, key)
    assert message in str(raised.value)


def test_the_interval_is_half_open() -> None:
    day = datetime(2026, 1, 1, tzinfo=UTC)
    assert [one.key for one in partitions_between("day", day, day + timedelta(days=2))] == ["2026-01-01", "2026-01-02"]
    assert list(partitions_between("day", day, day)) == []


def test_naive_moments_are_utc_and_others_are_converted() -> None:
    assert utc(datetime.fromisoformat("2026-01-01")) == datetime(2026, 1, 1, tzinfo=UTC)
    tokyo = datetime(2026, 1, 1, 3, tzinfo=ZoneInfo("Asia/Tokyo"))
    assert partition_at("day", tokyo).key == "2025-12-31"


def test_a_grain_has_a_cron_expression() -> None:
    assert {grain: cron(grain) for grain in GRAINS} == {
        "hour": "0 * * * *",
        "day": "0 0 * * *",
        "week": "0 0 * * 1",
        "month": "0 0 1 * *",
    }


@pytest.mark.parametrize(
    "text",
    ["30 seconds", "90 minutes", "1 hour", "36 hours", "0 days", "1 day", "28 days", "2 weeks", "1 month", "18 months"],
)
def test_a_duration_survives_being_written_and_read(text: str) -> None:
    found = DURATION.validate_python(text)
    again = DURATION.validate_json(DURATION.dump_json(found))
    day = datetime(2026, 1, 31, tzinfo=UTC)
    assert day - again == day - found


def test_a_month_is_a_calendar_month() -> None:
    month = DURATION.validate_python("1 month")
    assert datetime(2026, 3, 31, tzinfo=UTC) - month == datetime(2026, 2, 28, tzinfo=UTC)


@pytest.mark.parametrize("value", ["", "soon", "1.5 days", "-1 day", "3 fortnights", "1 day ", 3, None])
def test_other_durations_are_refused(value: object) -> None:
    with pytest.raises(ValidationError, match="must be a whole number of seconds, minutes, hours, days, weeks or mo"):
        DURATION.validate_python(value)
