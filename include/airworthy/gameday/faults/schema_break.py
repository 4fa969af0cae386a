"""Schema break: the source gives a column another name."""

from __future__ import annotations

from collections.abc import Iterator

from airworthy.errors import AirworthyError
from airworthy.gameday import Fault, Signal
from airworthy.gameday.copies import Copy
from airworthy.stages.alarms import of_failure
from airworthy.stages.drift import SCORED
from airworthy.stages.monitor import score


class SchemaBreak(Fault):
    """A column that the model learns from comes under a new name.

    Whatever `contract.on_change` says, no prediction may be made without it.
    """

    injects = "A column that the model learns from comes under a new name."
    must = ("partition stopped", "no predictions", "alert data")

    def inject(self, copy: Copy) -> Iterator[Signal]:
        partition, store = copy.partition, copy.store
        rows = copy.rows(partition)
        column = copy.inputs(rows)[0]
        before = store.newest(SCORED, partition.key) if store.version(SCORED) is not None else None
        stopped = ""
        try:
            copy.publish(partition, rows.rename(columns={column: f"{column}_v2"}))
            score(copy.pipeline, partition, copy.profile)
        except AirworthyError as error:
            stopped = str(error)
            copy.tell(of_failure(copy.pipeline, "data", partition.key, error))
        yield Signal(
            alarm="partition stopped", fired=bool(stopped), told=stopped or f"it went through without {column}"
        )
        now = store.newest(SCORED, partition.key) if store.version(SCORED) is not None else None
        told = f"none were written for {partition.key}" if now == before else f"{partition.key} was scored all the same"
        yield Signal(alarm="no predictions", fired=now == before, told=told)
        yield copy.alert("data", partition.key)
