"""Process: the features of the rows that passed validation."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import pandas as pd
import pyarrow as pa

from airworthy.columns import from_frame
from airworthy.config import Pipeline
from airworthy.errors import DataError
from airworthy.features import compute_features
from airworthy.masking import masked_errors
from airworthy.partitions import Partition
from airworthy.stages.decisions import DROP
from airworthy.stages.ingest import RAW, require_newest
from airworthy.stages.quarantine import DECISION, QUARANTINE, REPAIRS, ROW, WAITING, content, positions, row_groups
from airworthy.stages.validate import Validation
from airworthy.stages.view_join import VIEWS, join_views, view_versions
from airworthy.store import Store, TableRef

FEATURES = "features"

log = logging.getLogger(__name__)


def process(
    pipeline: Pipeline,
    partition: Partition,
    validation: Validation,
    store: Store,
    *,
    run: str = "",
    spark: Mapping[str, str] | None = None,
) -> TableRef:
    """Leaves key, time, label and features of a partition's good rows in `features`, joined to the views before.

    A label that is not known yet stays missing. `features` is called with a part of the rows at a time,
    because what it makes of a row may depend on that row only: serving calls it with single ones.

    Args:
        run: Who asked for it, which the table's log keeps, e.g. the Airflow run.
        spark: The settings of Spark, for `engine: spark`.

    Raises:
        DataError: No good row is left, the partition was ingested again since, a view has had no rows yet, or the
            user's `features` raised.
        Problems: What it returned cannot be features, or a view does not fit the rows.
    """
    with masked_errors(pipeline, lambda: store.scan(RAW, partitions=[partition.key], version=validation.raw.version)):
        return _process(pipeline, partition, validation, store, run, spark)


def _process(
    pipeline: Pipeline,
    partition: Partition,
    validation: Validation,
    store: Store,
    run: str,
    spark: Mapping[str, str] | None,
) -> TableRef:
    where = f"{FEATURES}[{partition.key}]"
    require_newest(store, validation.raw)
    if not validation.good_rows:
        raise DataError(where, "must have rows", hint=f"All {validation.rows} rows of {RAW} are in quarantine")
    facts: dict[str, Any] = {"raw": validation.raw.version, "digest": validation.raw.digest, "run": run}
    if validation.quarantine is not None and validation.bad_rows:
        facts["quarantine"] = validation.quarantine.version
    if validation.repairs is not None and validation.repairs.rows:
        facts["repairs"] = validation.repairs.version
    facts[VIEWS] = versions = view_versions(pipeline, store)
    rows = partial(_rows, pipeline, partition, where, validation, store, versions)
    made = rows() if pipeline.engine == "local" else _on_spark(spark, rows, validation, store)
    # Features that are the raw columns follow them; what code returns changes only when its table is made anew.
    ref = store.write(FEATURES, partition, made, like=RAW, evolve=pipeline.features is None, facts=facts)
    log.info("%s: %d rows, version %d%s", where, ref.rows, ref.version, "" if ref.changed else ", as before")
    return ref


def _on_spark(
    spark: Mapping[str, str] | None,
    rows: Callable[[range], Iterator[pa.Table]],
    validation: Validation,
    store: Store,
) -> Iterator[pa.Table]:
    from airworthy.spark import session, spread

    return spread(session(spark), row_groups(store, validation.raw), rows, store, FEATURES)


def _rows(
    pipeline: Pipeline,
    partition: Partition,
    where: str,
    validation: Validation,
    store: Store,
    versions: Mapping[str, int],
    groups: range | None = None,
) -> Iterator[pa.Table]:
    with join_views(pipeline, partition, store, versions) as join:
        for good in _good_rows(partition, validation, store, groups):
            if not good.num_rows:
                continue
            raw = join(good).to_pandas()
            identity = raw[list(dict.fromkeys([*pipeline.identity, pipeline.label.column]))]
            yield from_frame(where, pd.concat([identity, compute_features(pipeline, raw)], axis=1))


def _good_rows(partition: Partition, validation: Validation, store: Store, groups: range | None) -> Iterator[pa.Table]:
    """Yields the rows that go on, with repaired ones in the places of raw ones."""
    out = repaired = None
    if validation.quarantine is not None:
        found = store.scan(QUARANTINE, partitions=[partition.key], version=validation.quarantine.version)
        out = positions(found.to_table(columns=[ROW, DECISION]), WAITING, DROP)
    if validation.repairs is not None:
        repaired = store.scan(REPAIRS, partitions=[partition.key], version=validation.repairs.version).to_table()
    return content(store, validation.raw, repaired, out, groups)
