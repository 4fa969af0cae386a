"""What waits in the triggerer, where waiting costs no worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airworthy.config import Pipeline, load_pipeline
from airworthy.errors import AirworthyError, ServiceError
from airworthy.partitions import Partition, parse_key
from airworthy.profile import pipelines_dir
from airworthy_airflow.connections import resolve_all


class AvailableTrigger(BaseTrigger):
    """Fires once the data of a partition is there, or its deadline has passed.

    Everything it needs is in its arguments, so another triggerer can go on where one stopped.

    Args:
        pipeline: The pipeline's name.
        partition: The partition's key.
        deadline: In ISO 8601, with a time zone.
        every: Seconds between two looks.
    """

    def __init__(self, pipeline: str, partition: str, deadline: str, every: float) -> None:
        super().__init__()
        self.pipeline = pipeline
        self.partition = partition
        self.deadline = deadline
        self.every = every

    def serialize(self) -> tuple[str, dict[str, Any]]:
        arguments = {name: getattr(self, name) for name in ("pipeline", "partition", "deadline", "every")}
        return f"{type(self).__module__}.{type(self).__qualname__}", arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        try:
            pipeline = await asyncio.to_thread(load_pipeline, pipelines_dir() / f"{self.pipeline}.yaml")
            partition, deadline = parse_key(pipeline.partition, self.partition), datetime.fromisoformat(self.deadline)
            awaited, looks, trouble = pipeline.source.awaited(partition), 0, ""
            while True:
                looks += 1
                try:
                    if await self._look(pipeline, partition):
                        self.log.info("Look %d: %s is there", looks, awaited)
                        yield TriggerEvent({"status": "there"})
                        return
                    trouble = ""
                except ServiceError as error:  # it may answer the next time
                    trouble = f"The last look failed: {error} "
                left = (deadline - datetime.now(UTC)).total_seconds()
                if left <= 0:
                    yield TriggerEvent({"status": "late", "told": trouble})
                    return
                self.log.info("Look %d: %s is not there yet, %.0f s left. %s", looks, awaited, left, trouble)
                await asyncio.sleep(min(self.every, left))
        except AirworthyError as error:
            yield TriggerEvent({"status": "failed", "told": str(error)})

    async def _look(self, pipeline: Pipeline, partition: Partition) -> bool:
        connections = await resolve_all(pipeline.source.connection_ids())
        return await asyncio.to_thread(pipeline.source.available, partition, connections)
