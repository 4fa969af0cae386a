"""Ingest: one partition of raw rows, as its source gives them."""

from __future__ import annotations

import logging

import pandas as pd

from airworthy.config import Pipeline
from airworthy.errors import DataError, Problems
from airworthy.masking import masked_errors
from airworthy.partitions import Partition
from airworthy.store import Store, TableRef

RAW = "raw"
RESERVED = ("partition", "row", "failed")

log = logging.getLogger(__name__)


def ingest(pipeline: Pipeline, partition: Partition, store: Store) -> TableRef:
    """Leaves the source's rows in one partition of `raw`; the time column becomes UTC.

    Raises:
        DataError: The source has no rows for the partition, or cannot be read.
        Problems: Columns are missing, times are outside the partition, or the table's columns differ.
    """
    with masked_errors(pipeline):
        return _ingest(pipeline, partition, store)


def _ingest(pipeline: Pipeline, partition: Partition, store: Store) -> TableRef:
    where = f"{RAW}[{partition.key}]"
    frame = pipeline.source.extract(partition)
    if problems := _column_problems(pipeline, where, frame):
        raise Problems(where, problems)
    if frame.empty:
        hint = f"The source gave none from {partition.start:%Y-%m-%d %H:%M} to {partition.end:%Y-%m-%d %H:%M} UTC"
        raise DataError(where, "must have rows", hint=hint)
    frame = frame.assign(**{pipeline.time: _times(f"{where}: {pipeline.time}", frame[pipeline.time], partition)})
    ref = store.write(RAW, partition, frame)
    log.info("%s: %d rows, version %d%s", where, ref.rows, ref.version, "" if ref.changed else ", as before")
    return ref


def _column_problems(pipeline: Pipeline, where: str, frame: pd.DataFrame) -> list[DataError]:
    there = list(map(str, frame.columns))
    problems = []
    roles = {"time": [pipeline.time], "key": pipeline.key, "label": [pipeline.label.column]}
    for role, names in roles.items():
        for name in names:
            if name not in there:
                rule = f"must be a column, because it is the {role} of {pipeline.name}"
                problems.append(DataError(f"{where}: {name}", rule, hint=f"The source gives {', '.join(there)}"))
    rule = "is a name the tables use themselves; rename the column"
    return problems + [DataError(f"{where}: {name}", rule) for name in RESERVED if name in there]


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
