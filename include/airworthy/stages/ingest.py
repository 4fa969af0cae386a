"""Ingest: one partition of raw rows, as its source gives them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import pyarrow as pa

from airworthy.config import Pipeline
from airworthy.connections import Connections, from_environment
from airworthy.contracts.enforce import Enforcement
from airworthy.contracts.file import RESERVED
from airworthy.errors import DataError, Problems
from airworthy.partitions import Partition
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

    A pipeline without a contract learns it from these rows.

    Raises:
        DataError: The source has no rows for the partition, or cannot be read.
        Problems: Times are outside the partition, or the rows differ from the contract in a way that blocks.
        ConflictError: Another run changed the contract or wrote the partition meanwhile.
    """
    where = f"{RAW}[{partition.key}]"
    extracted = pipeline.source.extract(partition, connections)
    enforcement = Enforcement(pipeline, partition, reports_dir)
    facts = {"origins": [asdict(origin) for origin in extracted.origins], "changes": enforcement.told}
    rows = _checked(pipeline, partition, where, enforcement.conform(extracted.rows))
    ref = store.write(RAW, partition, rows, evolve=True, facts=facts)
    log.info("%s: %d rows, version %d%s", where, ref.rows, ref.version, "" if ref.changed else ", as before")
    return ref


def _checked(pipeline: Pipeline, partition: Partition, where: str, rows: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Yields the rows with their times in UTC; an exception here leaves the table as it was."""
    count = 0
    for chunk in rows:
        if problems := _column_problems(pipeline, where, chunk.column_names):
            raise Problems(where, problems)
        count += chunk.num_rows
        position = chunk.column_names.index(pipeline.time)
        times = _times(f"{where}: {pipeline.time}", chunk[position].to_pandas(), partition)
        yield chunk.set_column(position, pipeline.time, pa.array(times))
    if not count:
        hint = f"The source gave none from {partition.start:%Y-%m-%d %H:%M} to {partition.end:%Y-%m-%d %H:%M} UTC"
        raise DataError(where, "must have rows", hint=hint)


def _column_problems(pipeline: Pipeline, where: str, there: list[str]) -> list[DataError]:
    problems = []
    roles = {"time": [pipeline.time], "key": pipeline.key, "label": [pipeline.label.column]}
    for role, names in roles.items():
        for name in names:
            if name not in there:
                rule = f"must be a column, because it is the {role} of {pipeline.name}"
                problems.append(DataError(f"{where}: {name}", rule, hint=f"The source gives {', '.join(there)}"))
    rule = "is a name the tables use themselves; rename the column"
    return problems + [DataError(f"{where}: {name}", rule) for name in there if name in RESERVED]


def _times(where: str, times: pd.Series[pd.Timestamp], partition: Partition) -> pd.Series[pd.Timestamp]:
    try:
        utc = pd.to_datetime(times, utc=True, format=None if times.dtype.kind == "M" else "ISO8601")
    except (ValueError, TypeError) as error:
        raise DataError(where, "must hold times, as timestamps or in ISO 8601", str(error)) from None
    if missing := int(utc.isna().sum()):
        raise DataError(where, "must not be missing in any row", f"{missing} rows without")
    outside = utc[(utc < partition.start) | (utc >= partition.end)]
    if len(outside):
        rule = f"must be in [{partition.start:%Y-%m-%d %H:%M}, {partition.end:%Y-%m-%d %H:%M}) UTC"
        hint = f"{len(outside)} of {len(utc)} rows are outside; filter by start and end, and mind the time zone"
        raise DataError(where, rule, str(outside.iloc[0]), hint)
    return utc
