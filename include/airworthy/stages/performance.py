"""Performance: how good the champion was on a partition, once enough of its labels are known, and again with more.

Labels come as a column of the partition's rows, and later ones as the same partition ingested again: training,
gates, lineage and this stage then read one label in one place, and a source that keeps labels apart joins them in
its query or in `extract()`.
"""

from __future__ import annotations

import hashlib
import logging
import math
from datetime import UTC, datetime

import pandas as pd

from airworthy.config import Moment, Pipeline, Strict
from airworthy.encoding import align_classes, encode_label, extend_classes
from airworthy.errors import TrainError
from airworthy.evidence import METRICS
from airworthy.metrics import score as measure_metric
from airworthy.partitions import Partition, parse_key
from airworthy.profile import Profile
from airworthy.stages.monitor import CLASS, PREDICTION, VERSION, entry_of, loaded, partition_of
from airworthy.store import Store, TableRef

LABELS, FEATURES, SCORED, MEASURED = "labels", "features", "predictions", "metrics"

log = logging.getLogger(__name__)


class Labels(Strict):
    """What has become of the labels of a scored partition: a row of the table `labels`.

    Attributes:
        predicted: Rows with a prediction.
        known: Those of them whose label is known and counts.
        wrong_keys: Labelled rows whose key has no prediction; they do not count.
        contradicted: Rows with a prediction and several labels that differ; they do not count.
        digest: SHA-256 over the keys and labels that count, whatever their order.
        features: The version of `features` that gave the partition these labels.
        enough: The share that must be known.
        due: Until when; None if they may take any time.
    """

    partition: str
    predicted: int
    known: int
    wrong_keys: int
    contradicted: int
    digest: str
    features: int
    enough: float
    due: Moment | None

    @property
    def mature(self) -> bool:
        return self.known > 0 and self.known >= self.enough * self.predicted

    def overdue(self, now: datetime) -> bool:
        return not self.mature and self.due is not None and self.due < now

    @property
    def told(self) -> str:
        told = f"{self.known} of {self.predicted} labels are known"
        told += f", {self.wrong_keys} have a key that was not predicted" if self.wrong_keys else ""
        return told + (f", {self.contradicted} contradict each other" if self.contradicted else "")


class Performance(Strict):
    """How good the champion was on the rows of a partition whose label is known.

    Attributes:
        version: The champion that scored it.
        metrics: Metric name to value; none while too few labels are known, and none that these rows do not define.
        table: The partition of `metrics` that holds them; None while too few labels are known.
    """

    version: str
    labels: Labels
    metrics: dict[str, float]
    table: TableRef | None

    @property
    def rows(self) -> int:
        return self.labels.known


def performance(pipeline: Pipeline, partition: Partition, predictions: TableRef, profile: Profile) -> Performance:
    """Returns the champion's metrics on a partition, if enough of its labels are known.

    They are kept in the table `metrics`: one row per metric, with `value`, `rows`, `version` and the digest of the
    `labels` they rest on. Labels that came since take the place of what was there, so that no row counts twice;
    where too few are left, nothing is. The table `labels` says what became of the labels.

    Args:
        predictions: What `score` returned.

    Raises:
        DataError: The partition was not scored.
        ModelError: The champion's files are not the ones the ledger names.
        ServiceError: MLflow or the ledger does not answer.
    """
    return _measured(pipeline, partition, predictions, profile, {})


def matured(pipeline: Pipeline, before: Partition, profile: Profile) -> list[Performance]:
    """Returns the performance on partitions before one whose labels have changed since they were last looked at.

    Raises:
        ModelError: The champion's files are not the ones the ledger names.
        ServiceError: MLflow or the ledger does not answer.
    """
    store = Store(profile.store_uri, pipeline.name)
    written = {write.partition: write.version for write in store.history(FEATURES)}
    seen = {one.partition: one.features for one in labels_of(pipeline, store)}
    scored = [parse_key(pipeline.partition, key) for key in store.partitions(SCORED)]
    changed = [one for one in scored if one.end <= before.start and written.get(one.key) != seen.get(one.key)]
    classes: dict[str, tuple[str, ...]] = {}
    return [_measured(pipeline, one, _as_scored(store, one), profile, classes) for one in changed]


def labels_of(pipeline: Pipeline, store: Store) -> list[Labels]:
    """Returns what has become of the labels of every partition that was looked at, by partition."""
    if store.version(LABELS) is None:
        return []
    names = [name for name in Labels.model_fields if name != "partition"]
    rows = store.read(LABELS, columns=["partition", *names]).to_dict("records")
    return [Labels.model_validate({**row, "due": None if pd.isna(row["due"]) else row["due"]}) for row in rows]


def overdue(pipeline: Pipeline, profile: Profile, now: datetime | None = None) -> list[Labels]:
    """Returns the partitions whose labels have not come in time, as far as they were looked at."""
    known = labels_of(pipeline, Store(profile.store_uri, pipeline.name))
    return [one for one in known if one.overdue(now or datetime.now(UTC))]


def _measured(
    pipeline: Pipeline,
    partition: Partition,
    predictions: TableRef,
    profile: Profile,
    classes: dict[str, tuple[str, ...]],
) -> Performance:
    """Does what `performance` says; `classes` are by version, and those that are looked up are added."""
    store = Store(profile.store_uri, pipeline.name)
    scored = partition_of(store, SCORED, partition, predictions.version)
    labels, judged = joined(pipeline, partition, scored, store)
    version = str(scored[VERSION].iloc[0])
    log.info("%s: %s", partition.key, labels.told)
    if not labels.mature:
        log.info("%s: performance waits until %.0f %% of labels are known", partition.key, 100 * labels.enough)
        if store.has(MEASURED, partition.key):
            store.write(MEASURED, partition, _rows(labels, version, {}), evolve=True)
        record(store, partition, labels)
        return Performance(version=version, labels=labels, metrics={}, table=None)
    if version not in classes:
        with loaded(pipeline, entry_of(pipeline, scored, profile), profile) as model:
            classes[version] = model.contract.classes
    metrics = metrics_of(pipeline, classes[version], judged)
    told = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
    log.info("Version %s on %d labelled rows: %s", version, len(judged), told)
    facts = {"known": labels.known, "predicted": labels.predicted, VERSION: version, "metrics": metrics}
    table = store.write(MEASURED, partition, _rows(labels, version, metrics), evolve=True, facts=facts)
    record(store, partition, labels)  # last: `matured` takes a partition that is on record for done
    return Performance(version=version, labels=labels, metrics=metrics, table=table)


def joined(pipeline: Pipeline, partition: Partition, scored: pd.DataFrame, store: Store) -> tuple[Labels, pd.DataFrame]:
    """Returns what has become of the labels, and the predictions that have one, beside it."""
    key, label = list(pipeline.key), pipeline.label.column
    last = store.newest(FEATURES, partition.key)
    version = last.version if last else store.version(FEATURES) or 0
    known = store.read(FEATURES, partitions=[partition.key], version=version)[[*key, label]]
    known = known.dropna(subset=[label]).drop_duplicates().infer_objects()
    predicted = known[key].merge(scored[key].drop_duplicates(), on=key, how="left", indicator=True)["_merge"] == "both"
    several = known.duplicated(subset=key, keep=False)
    right = known[predicted.to_numpy() & ~several.to_numpy()]
    policy = pipeline.monitor.labels
    labels = Labels(
        partition=partition.key,
        predicted=len(scored),
        known=len(right),
        wrong_keys=int((~predicted).sum()),
        contradicted=len(known[predicted.to_numpy() & several.to_numpy()][key].drop_duplicates()),
        digest=_digest(right, key),
        features=version,
        enough=policy.enough,
        due=None if policy.deadline is None else partition.end + pipeline.label.matures_after + policy.deadline,
    )
    return labels, scored.merge(right, on=key)


def record(store: Store, partition: Partition, labels: Labels) -> None:
    """Leaves in the table `labels` what has become of a partition's labels."""
    row = pd.DataFrame([labels.model_dump(exclude={"partition"})])
    store.write(LABELS, partition, row.assign(due=pd.to_datetime(row["due"], utc=True)), evolve=True)


def _digest(rows: pd.DataFrame, key: list[str]) -> str:
    ordered = pd.util.hash_pandas_object(rows.sort_values(key), index=False)
    return hashlib.sha256(ordered.to_numpy().tobytes()).hexdigest()


def _rows(labels: Labels, version: str, measured: dict[str, float]) -> pd.DataFrame:
    rows = pd.Series(measured, dtype="float64").rename_axis("metric").reset_index(name="value")
    return rows.assign(rows=labels.known, **{VERSION: version, LABELS: labels.digest})


def _as_scored(store: Store, partition: Partition) -> TableRef:
    last = store.newest(SCORED, partition.key)
    assert last is not None, f"{SCORED}[{partition.key}] holds rows, so somebody wrote them"
    return TableRef(**last.model_dump(exclude={"at", "facts"}), changed=False)


def metrics_of(pipeline: Pipeline, classes: tuple[str, ...], judged: pd.DataFrame) -> dict[str, float]:
    """Returns every metric that labelled predictions define."""
    task = pipeline.label.task
    every = extend_classes(task, classes, judged[pipeline.label.column])
    label = encode_label(task, every, judged[pipeline.label.column])
    columns = [f"{CLASS}{name}" for name in classes] if task == "multiclass" else PREDICTION
    prediction = align_classes(judged[columns].to_numpy(), classes, every)
    measured: dict[str, float] = {}
    for metric in METRICS[task]:
        try:
            value = measure_metric(task, metric, label, prediction)
            if math.isfinite(value):  # r2 of a single row is not
                measured[metric] = value
        except TrainError as error:  # a quiet day may hold one class only; the other metrics still say something
            log.warning("%s", error)
    return measured
