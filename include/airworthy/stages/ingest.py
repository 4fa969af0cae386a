"""Ingest: one partition of raw rows, as its source gives them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa

from airworthy.config import Pipeline
from airworthy.connections import Connections, from_environment
from airworthy.contracts.enforce import Enforcement
from airworthy.contracts.file import RESERVED, needed
from airworthy.errors import DataError, Problems
from airworthy.masking import masked_errors
from airworthy.partitions import Partition
from airworthy.stages.event_time import utc_times
from airworthy.stages.view_tables import ingest_views
from airworthy.store import Store, TableRef

RAW = "raw"

log = logging.getLogger(__name__)


def ingest(
    pipeline: Pipeline,
    partition: Partition,
    store: Store,
    connections: Connections = from_environment,
    reports_dir: Path | None = None,
) -> TableRef:
    """Leaves the source's rows in one partition of `raw`, as the schema contract has them; the time is in UTC.

    A pipeline without a contract learns it from these rows. The views' rows come in first, into tables of their own.

    Raises:
        DataError: The source has no rows for the partition, or cannot be read.
        Problems: Times are outside the partition, or the rows differ from the contract in a way that blocks.
        ConflictError: Another run changed the contract or wrote the partition meanwhile.
        ServiceError: A view's online store does not answer.
    """
    with masked_errors(pipeline):
        return _ingest(pipeline, partition, store, connections, reports_dir)


def _ingest(
    pipeline: Pipeline, partition: Partition, store: Store, connections: Connections, reports_dir: Path | None
) -> TableRef:
    ingest_views(pipeline, partition, store, connections)
    where = f"{RAW}[{partition.key}]"
    extracted = pipeline.source.extract(partition, connections)
    enforcement = Enforcement(pipeline, partition, reports_dir)
    origins = [asdict(origin) for origin in extracted.origins]
    facts = {"origins": origins, "changes": enforcement.told, "missing": enforcement.missing}
    rows = _checked(pipeline, partition, where, enforcement.conform(extracted.rows))
    ref = store.write(RAW, partition, rows, evolve=True, facts=facts)
    log.info("%s: %d rows, version %d%s", where, ref.rows, ref.version, "" if ref.changed else ", as before")
    return ref


def require_newest(store: Store, raw: TableRef) -> None:
    """Returns if a raw partition is still the newest of its key, so that no old run undoes what a newer one made.

    Raises:
        DataError: It was ingested again since.
    """
    newest = store.newest(RAW, raw.partition)
    if newest is not None and newest.version > raw.version:
        hint = "That run makes the rest of it anew; to do it again, clear its tasks and not those of an older run"
        got = f"version {raw.version}, and by now there is {newest.version}"
        raise DataError(f"{RAW}[{raw.partition}]", "must not have been ingested again since", got, hint)


def _checked(pipeline: Pipeline, partition: Partition, where: str, rows: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Yields the rows with their times in UTC; an exception here leaves the table as it was."""
    count = 0
    for chunk in rows:
        if problems := _column_problems(pipeline, where, chunk.column_names):
            raise Problems(where, problems)
        count += chunk.num_rows
        position = chunk.column_names.index(pipeline.time)
        times = utc_times(f"{where}: {pipeline.time}", chunk[position].to_pandas(), partition)
        yield chunk.set_column(position, pipeline.time, pa.array(times))
    if not count:
        hint = f"The source gave none from {partition.start:%Y-%m-%d %H:%M} to {partition.end:%Y-%m-%d %H:%M} UTC"
        raise DataError(where, "must have rows", hint=hint)


def _column_problems(pipeline: Pipeline, where: str, there: list[str]) -> list[DataError]:
    problems = []
    for role, name in needed(pipeline):
        if name not in there:
            rule = f"must be a column, because it is the {role} of {pipeline.name}"
            problems.append(DataError(f"{where}: {name}", rule, hint=f"The source gives {', '.join(there)}"))
    rule = "is a name the tables use themselves; rename the column"
    return problems + [DataError(f"{where}: {name}", rule) for name in there if name in RESERVED]
