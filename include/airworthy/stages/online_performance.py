"""Performance online: how good the answers were that serving gave, once enough of their labels are known.

The labels are those of `performance`, the column of the partition's features. An answer is about the partition that its
event time is in, or if it has none, the time of its request.
"""

from __future__ import annotations

import logging

import pandas as pd
import pyarrow as pa
from pyarrow import dataset as ds

from airworthy.capture import AT, CAPTURED, PROBABILITY, REQUEST, ROW
from airworthy.columns import TIMESTAMP
from airworthy.config import Pipeline, Strict
from airworthy.content import PARTITION
from airworthy.partitions import Partition
from airworthy.profile import Profile
from airworthy.stages.monitor import CLASS, PREDICTION, VERSION, entry_of, loaded
from airworthy.stages.performance import FEATURES, LABELS, joined, metrics_of
from airworthy.store import Store

ONLINE = "online_metrics"
_COLUMNS = ["metric", "value", "rows", "answered", VERSION, LABELS]

log = logging.getLogger(__name__)


class OnlinePerformance(Strict):
    """How good a version's answers about a partition were.

    Attributes:
        answered: Keys that the version was the last to be asked about.
        known: Those of them whose label is known and counts.
        metrics: Metric name to value; none while too few labels are known.
    """

    partition: str
    version: str
    answered: int
    known: int
    metrics: dict[str, float]


def online_performance(pipeline: Pipeline, partition: Partition, profile: Profile) -> list[OnlinePerformance]:
    """Returns how good each version's captured answers about a partition were.

    Of answers with the same key the last one counts. What is known is kept in the table `online_metrics`: one row per
    version and metric, in place of what was known before, so that no label counts twice.

    Raises:
        ModelError: A model's files are not the ones the ledger names.
        ServiceError: MLflow or the ledger does not answer.
    """
    store = Store(profile.store_uri, pipeline.name)
    answers = _answers(pipeline, partition, store)
    if answers is None or not store.has(FEATURES, partition.key):
        return []
    labels, judged = joined(pipeline, partition, answers, store)
    found = []
    for version, rows in answers.groupby(VERSION):
        known = judged[judged[VERSION] == version]
        metrics: dict[str, float] = {}
        if len(known) and len(known) >= pipeline.monitor.labels.enough * len(rows):
            with loaded(pipeline, entry_of(pipeline, known, profile), profile) as model:
                metrics = metrics_of(pipeline, model.contract.classes, known)
        one = OnlinePerformance(
            partition=partition.key, version=str(version), answered=len(rows), known=len(known), metrics=metrics
        )
        log.info("%s: version %s: %d of %d online answers are labelled", one.partition, version, one.known, len(rows))
        found.append(one)
    told = [
        (name, value, one.known, one.answered, one.version, labels.digest)
        for one in found
        for name, value in one.metrics.items()
    ]
    if told or store.has(ONLINE, partition.key):
        store.write(ONLINE, partition, pd.DataFrame(told, columns=_COLUMNS))
    return found


def online_of(pipeline: Pipeline, store: Store) -> pd.DataFrame:
    """Returns what is known of the pipeline's metric, one row per partition and version."""
    if store.version(ONLINE) is None:
        return pd.DataFrame(columns=[PARTITION, *_COLUMNS])
    rows = store.read(ONLINE, columns=[PARTITION, *_COLUMNS])
    return rows[rows["metric"] == pipeline.metric]


def _answers(pipeline: Pipeline, partition: Partition, store: Store) -> pd.DataFrame | None:
    """Returns the last answer about each key; None if there are none whose labels could be found."""
    if store.version(CAPTURED) is None:
        return None
    captured = store.scan(CAPTURED)
    key, names = list(pipeline.key), captured.schema.names
    if hidden := [name for name in key if name not in names or name in pipeline.pii]:
        log.info("Online answers cannot be told apart, because %s is not captured", ", ".join(hidden))
        return None
    said = [name for name in names if name == PREDICTION or name.startswith(PROBABILITY)]
    rows = captured.to_table(
        columns=[*key, *said, VERSION, AT, REQUEST, ROW], filter=_within(pipeline, partition, names)
    )
    if not rows.num_rows:
        return None
    last: pd.DataFrame = rows.sort_by([(AT, "ascending"), (REQUEST, "ascending"), (ROW, "ascending")]).to_pandas()
    last = last.drop_duplicates(key, keep="last", ignore_index=True)
    named = {name: f"{CLASS}{name.removeprefix(PROBABILITY)}" for name in said if name != PREDICTION}
    return last.rename(columns=named)


def _within(pipeline: Pipeline, partition: Partition, names: list[str]) -> ds.Expression:
    start, end = pa.scalar(partition.start, TIMESTAMP), pa.scalar(partition.end, TIMESTAMP)
    asked = (ds.field(AT) >= start) & (ds.field(AT) < end)
    if pipeline.time not in names:
        return asked
    happened = (ds.field(pipeline.time) >= start) & (ds.field(pipeline.time) < end)
    return happened | (ds.field(pipeline.time).is_null() & asked)
