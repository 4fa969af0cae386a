"""Process: the features of the rows that passed validation."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd

from airworthy.config import Pipeline
from airworthy.errors import DataError
from airworthy.features import compute_features
from airworthy.masking import masked_errors
from airworthy.partitions import Partition
from airworthy.stages.ingest import RAW
from airworthy.stages.validate import QUARANTINE, ROW, Validation
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

    def personal() -> pd.DataFrame:
        return store.read(
            RAW, partitions=[partition.key], columns=list(pipeline.pii), version=validation.raw.version
        )

    with masked_errors(pipeline, personal):
        return _process(pipeline, partition, validation, store)


def _process(pipeline: Pipeline, partition: Partition, validation: Validation, store: Store) -> TableRef:
    where = f"{FEATURES}[{partition.key}]"
    raw = store.read(RAW, partitions=[partition.key], version=validation.raw.version)
    good = raw[~_is_bad(raw, partition, validation, store)].reset_index(drop=True)
    if good.empty:
        raise DataError(where, "must have rows", hint=f"All {len(raw)} rows of {RAW} are in quarantine")
    identity = good[[*pipeline.key, pipeline.time, pipeline.label.column]]
    frame = pd.concat([identity, compute_features(pipeline, good)], axis=1)
    ref = store.write(FEATURES, partition, frame, like=RAW)
    log.info("%s: %d rows, version %d%s", where, ref.rows, ref.version, "" if ref.changed else ", as before")
    return ref


def _is_bad(raw: pd.DataFrame, partition: Partition, validation: Validation, store: Store) -> np.ndarray:
    bad = np.zeros(len(raw), dtype=bool)
    if validation.quarantine is not None:
        rows = store.read(QUARANTINE, partitions=[partition.key], columns=[ROW], version=validation.quarantine.version)
        bad[rows[ROW].to_numpy()] = True
    return bad
