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
    """Fires once the data of all partitions is there, or the deadline has passed.

    Everything it needs is in its arguments, so another triggerer can go on where one stopped.

    Args:
        pipeline: The pipeline's name.
        partitions: The partitions' keys.
        deadline: In ISO 8601, with a time zone.
        every: Seconds between two looks.
    """

    def __init__(self, pipeline: str, partitions: list[str], deadline: str, every: float) -> None:
        super().__init__()
        self.pipeline = pipeline
        self.partitions = partitions
        self.deadline = deadline
        self.every = every

    def serialize(self) -> tuple[str, dict[str, Any]]:
        arguments = {name: getattr(self, name) for name in ("pipeline", "partitions", "deadline", "every")}
        return f"{type(self).__module__}.{type(self).__qualname__}", arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        try:
            yield TriggerEvent(await self._waited())
        except AirworthyError as error:
            yield TriggerEvent({"status": "failed", "told": str(error)})

    async def _waited(self) -> dict[str, Any]:
        pipeline = await asyncio.to_thread(load_pipeline, pipelines_dir() / f"{self.pipeline}.yaml")
        missing = [parse_key(pipeline.partition, key) for key in self.partitions]
        deadline, look = datetime.fromisoformat(self.deadline), 0
        while True:
            look, trouble = look + 1, ""
            try:
                missing = [found for found in missing if not await self._is_there(pipeline, found)]
            except ServiceError as error:  # it may answer the next time
                trouble = f"The last look failed: {error} "
            left = (deadline - datetime.now(UTC)).total_seconds()
            if not missing:
                self.log.info("Look %d: everything is there", look)
                return {"status": "there"}
            if left <= 0:
                return {"status": "late", "missing": [partition.key for partition in missing], "told": trouble}
            awaited = ", ".join(map(pipeline.source.awaited, missing))
            self.log.info("Look %d: %s is not there yet, %.0f s left. %s", look, awaited, left, trouble)
            await asyncio.sleep(min(self.every, left))

    async def _is_there(self, pipeline: Pipeline, partition: Partition) -> bool:
        connections = await resolve_all(pipeline.source.connection_ids())
        return await asyncio.to_thread(pipeline.source.available, partition, connections)
