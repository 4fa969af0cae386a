from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from airflow.timetables.base import TimeRestriction
from pendulum import instance

from airworthy.partitions import Grain, cron
from airworthy_airflow.timetable import PartitionTimetable

MICROSECOND = timedelta(microseconds=1)


def intervals(
    start: datetime, latest: datetime | None, batch: int, grain: Grain = "day", *, catchup: bool = True
) -> list[tuple[datetime, datetime]]:
    """Returns the data intervals of all runs, as the scheduler and a backfill ask for them."""
    timetable = PartitionTimetable.deserialize(PartitionTimetable(cron(grain), "UTC", batch).serialize())
    until = None if latest is None else instance(latest)
    restriction = TimeRestriction(instance(start), until, catchup=catchup)
    found, last = [], None
    while (info := timetable.next_dagrun_info(last_automated_data_interval=last, restriction=restriction)) is not None:
        last = info.data_interval
        if last is None or info.run_after > datetime.now(UTC):
            break
        found.append((last.start, last.end))
    return found


def test_each_partition_has_a_run_of_its_own_by_default() -> None:
    start = datetime(2025, 1, 1, tzinfo=UTC)
    found = intervals(start, start + timedelta(days=9), batch=1)
    assert found == [(start + timedelta(days=n), start + timedelta(days=n + 1)) for n in range(10)]


@pytest.mark.parametrize(
    ("grain", "batch", "sizes"), [("day", 4, [4, 4, 2]), ("day", 30, [10]), ("hour", 100, [100, 100, 17])]
)
def test_a_backfill_covers_every_partition_once(grain: Grain, batch: int, sizes: list[int]) -> None:
    start = datetime(2025, 2, 25, tzinfo=UTC)
    found = intervals(start, start + timedelta(days=9), batch, grain)
    step = timedelta(days=1) if grain == "day" else timedelta(hours=1)
    assert [round((end - begin).total_seconds() / step.total_seconds()) for begin, end in found] == sizes
    assert found[0][0] == start + MICROSECOND
    assert all(end + MICROSECOND == begin for (_, end), (begin, _) in itertools.pairwise(found))


def test_a_single_partition_at_the_end_of_a_backfill_is_an_ordinary_run() -> None:
    start = datetime(2025, 1, 1, tzinfo=UTC)
    assert intervals(start, start + timedelta(days=4), batch=4)[-1] == (
        start + timedelta(days=4),
        start + timedelta(days=5),
    )


def test_on_schedule_one_partition_is_due() -> None:
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    yesterday = today - timedelta(days=1)
    assert intervals(yesterday, None, batch=30) == [(yesterday, today)]
    assert intervals(datetime(2025, 1, 1, tzinfo=UTC), None, batch=30, catchup=False)[-1] == (yesterday, today)


def test_what_is_not_over_yet_is_left_for_later() -> None:
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    found = intervals(today - timedelta(days=3), today + timedelta(days=3), batch=30)
    assert found == [(today - timedelta(days=3) + MICROSECOND, today)]
