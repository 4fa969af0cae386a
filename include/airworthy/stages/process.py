"""Process: the features of the rows that passed validation."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pandas as pd
import pyarrow as pa

from airworthy.config import Pipeline
from airworthy.errors import DataError
from airworthy.features import compute_features
from airworthy.partitions import Partition
from airworthy.stages.decisions import DROP
from airworthy.stages.ingest import RAW
from airworthy.stages.quarantine import DECISION, QUARANTINE, REPAIRS, ROW, WAITING, content, positions
from airworthy.stages.validate import Validation
from airworthy.store import Store, TableRef

FEATURES = "features"

log = logging.getLogger(__name__)


def process(pipeline: Pipeline, partition: Partition, validation: Validation, store: Store) -> TableRef:
    """Leaves key, time, label and features of a partition's good rows in `features`.

    A label that is not known yet stays missing.

    Raises:
        DataError: No good row is left, or the user's `features` raised.
        Problems: What it returned cannot be features.
    """
    where = f"{FEATURES}[{partition.key}]"
    good: pd.DataFrame = pa.concat_tables(good_rows(store, partition, validation)).to_pandas()
    if good.empty:
        raise DataError(where, "must have rows", hint=f"All {validation.rows} rows of {RAW} are in quarantine")
    identity = good[[*pipeline.key, pipeline.time, pipeline.label.column]]
    frame = pd.concat([identity, compute_features(pipeline, good)], axis=1)
    ref = store.write(FEATURES, partition, frame, like=RAW)
    log.info("%s: %d rows, version %d%s", where, ref.rows, ref.version, "" if ref.changed else ", as before")
    return ref


def good_rows(store: Store, partition: Partition, validation: Validation) -> Iterator[pa.Table]:
    """Yields the raw rows of a partition that go on, in order, with repaired ones in their places."""
    quarantined = repaired = None
    if validation.quarantine is not None:
        found = store.scan(QUARANTINE, partitions=[partition.key], version=validation.quarantine.version)
        quarantined = positions(found.to_table(columns=[ROW, DECISION]), WAITING, DROP)
    if validation.repairs is not None:
        repaired = store.scan(REPAIRS, partitions=[partition.key], version=validation.repairs.version).to_table()
    return content(store, validation.raw, repaired, quarantined)
