"""When the runs of `<pipeline>.ingest` are due, and how many partitions each of them brings in."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.timetables.base import DagRunInfo, DataInterval, TimeRestriction
from airflow.timetables.interval import CronDataIntervalTimetable
from pendulum import Timezone, now


class PartitionTimetable(CronDataIntervalTimetable):
    """One run per partition; where several are due, as in a backfill, one run for up to `batch` of them.

    Airflow needs about half a second for a task whatever it does, so a year of small partitions takes many
    times as long as the work in it, unless a run brings in several. On schedule one partition is due at a time.

    The data interval of a run for several begins a microsecond after the first partition does. Airflow has one
    run for each such moment, so a backfill would pass over all of them where the first had its own run already.
    """

    def __init__(self, cron: str, timezone: str | Timezone, batch: int) -> None:
        super().__init__(cron, timezone=timezone)
        self._batch = batch

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> PartitionTimetable:
        return cls(data["cron"], data["timezone"], data["batch"])

    def serialize(self) -> dict[str, Any]:
        return {"cron": self._expression, "timezone": self._timezone.name, "batch": self._batch}

    def next_dagrun_info(
        self, *, last_automated_data_interval: DataInterval | None, restriction: TimeRestriction
    ) -> DagRunInfo | None:
        found = super().next_dagrun_info(
            last_automated_data_interval=last_automated_data_interval, restriction=restriction
        )
        if found is None or found.data_interval is None:
            return found
        start, end = found.data_interval
        for _ in range(1, self._batch):
            following = self._get_next(end)
            if following > now("UTC") or (restriction.latest is not None and end > restriction.latest):
                break
            end = following
        if end == found.data_interval.end:
            return found
        return DagRunInfo.interval(start=start + timedelta(microseconds=1), end=end)
