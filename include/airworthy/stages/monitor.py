"""Monitor: what the champion says about a partition, how far that is from training, how good it was, what to do."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from airworthy.config import Moment, Pipeline, Strict
from airworthy.drift import ColumnDrift, Kind, measure
from airworthy.encoding import align_classes, encode_label, extend_classes
from airworthy.errors import AirworthyError, DataError, Problems, TrainError
from airworthy.evidence import LOWER_IS_BETTER, METRICS
from airworthy.ledger import Entry, Ledger
from airworthy.metrics import score as measure_metric
from airworthy.model_files import REFERENCE, LoadedModel, load_model
from airworthy.pages import Section, write_page, write_whole
from airworthy.partitions import Partition
from airworthy.profile import Profile
from airworthy.registry import Registry
from airworthy.stages.ingest import RAW
from airworthy.store import Store, TableRef

PREDICTION = "prediction"
VERSION = "version"

log = logging.getLogger(__name__)


class Drift(Strict):
    """A partition against what its champion was trained on.

    Attributes:
        version: The champion that scored it.
        columns: One finding per feature, and one for `prediction`.
        page: The page's path below `reports_dir`; the findings as JSON are beside it.
    """

    pipeline: str
    partition: str
    version: str
    rows: int
    columns: tuple[ColumnDrift, ...]
    page: str

    @property
    def drifted(self) -> tuple[ColumnDrift, ...]:
        return tuple(column for column in self.columns if column.drifted)


class Performance(Strict):
    """How good the champion was on the rows of a partition whose label is known.

    Attributes:
        metrics: Metric name to value; a metric that is not defined on these rows is left out.
        table: The partition of `metrics` that holds them.
    """

    version: str
    rows: int
    metrics: dict[str, float]
    table: TableRef


class Decision(Strict):
    """Whether a partition asks for a retrain, and as of when: its labels are all there, or it is now."""

    retrain: bool
    reason: str
    as_of: Moment


def score(pipeline: Pipeline, partition: Partition, profile: Profile) -> TableRef:
    """Leaves the champion's predictions for a partition of `features` in the table `predictions`.

    The champion is the one in force for the partition's event time, so that a rerun, also one after later
    promotions, gives the same rows. Columns: the key, the time, `prediction` (binary: probability; multiclass:
    the likeliest class, with `p_<class>` beside it) and `version`.

    Raises:
        AirworthyError: The pipeline has no champion yet.
        DataError: The partition of `features` holds no rows.
        Problems: The source left columns out, and features that the champion was trained on are empty for it.
        ModelError: The champion's files are not the ones the ledger names.
        ServiceError: MLflow or the ledger does not answer.
    """
    store = Store(profile.store_uri, pipeline.name)
    entry = _champion_at(pipeline, partition, profile)
    features = _partition_of(store, "features", partition)
    with _loaded(pipeline, entry, profile) as model:
        _require_inputs(store, partition, features, model, entry.version)
        prediction = model.predict(features)
    log.info("Version %s, trained as of %s, scores %d rows", entry.version, f"{entry.as_of:%Y-%m-%d}", len(features))
    frame = features[pipeline.identity].assign(**_columns(prediction, model.contract.classes))
    return store.write("predictions", partition, frame.assign(**{VERSION: entry.version}))


def drift(pipeline: Pipeline, partition: Partition, predictions: TableRef, profile: Profile) -> Drift:
    """Leaves a page and a JSON file that compare a scored partition with its champion's training reference.

    Evidently's own page (4 MB) is written beside them when the predictions have drifted.

    Args:
        predictions: What `score` returned.

    Raises:
        DataError: The partition was not scored.
        ModelError: The champion's files are not the ones the ledger names.
        ServiceError: MLflow or the ledger does not answer.
    """
    store = Store(profile.store_uri, pipeline.name)
    scored = _partition_of(store, "predictions", partition, predictions.version)
    entry = _entry_of(pipeline, scored, profile)
    current = _partition_of(store, "features", partition)
    current = current.assign(**{PREDICTION: _aligned(pipeline, current, scored)})
    with _loaded(pipeline, entry, profile) as model:
        reference = pd.read_parquet(model.folder / REFERENCE)
    kinds: dict[str, Kind] = {feature.name: feature.type for feature in model.contract.features}
    kinds[PREDICTION] = "category" if model.contract.task == "multiclass" else "number"
    thresholds = dict.fromkeys(kinds, pipeline.monitor.column_drift)
    thresholds[PREDICTION] = pipeline.monitor.prediction_drift
    findings, snapshot = measure(reference, current, kinds, thresholds)
    found = Drift(
        pipeline=pipeline.name,
        partition=partition.key,
        version=entry.version,
        rows=len(current),
        columns=tuple(findings),
        page=drift_page(pipeline, partition),
    )
    _write_reports(found, snapshot, profile.reports_dir)
    names = ", ".join(column.column for column in found.drifted) or "none"
    log.info("Drifted from the training of version %s: %s (of %d columns)", entry.version, names, len(found.columns))
    return found


def drift_page(pipeline: Pipeline, partition: Partition) -> str:
    """Returns where `drift` writes its page, below `reports_dir`."""
    return f"{pipeline.name}/monitor/{partition.key}.html"


def performance(
    pipeline: Pipeline, partition: Partition, predictions: TableRef, profile: Profile
) -> Performance | None:
    """Returns the champion's metrics on the rows of a partition whose label is known; None if there are none.

    They are kept in the table `metrics`: one row per metric, with `value`, `rows` and `version`.

    Raises:
        DataError: The partition was not scored.
        ModelError: The champion's files are not the ones the ledger names.
        ServiceError: MLflow or the ledger does not answer.
    """
    store = Store(profile.store_uri, pipeline.name)
    scored = _partition_of(store, "predictions", partition, predictions.version)
    label = pipeline.label.column
    features = _partition_of(store, "features", partition)[[*pipeline.key, label]].dropna(subset=[label])
    judged = scored.merge(features, on=list(pipeline.key))
    if judged.empty:
        return None
    entry = _entry_of(pipeline, scored, profile)
    with _loaded(pipeline, entry, profile) as model:
        classes = model.contract.classes
    measured = _metrics(pipeline, classes, judged)
    told = ", ".join(f"{name} {value:.4f}" for name, value in measured.items())
    log.info("Version %s on %d labelled rows: %s", entry.version, len(judged), told)
    rows = pd.DataFrame({"metric": measured.keys(), "value": measured.values()})
    rows = rows.assign(rows=len(judged), **{VERSION: entry.version})
    table = store.write("metrics", partition, rows)
    return Performance(version=entry.version, rows=len(judged), metrics=measured, table=table)


def decide(pipeline: Pipeline, partition: Partition, found: Drift, measured: Performance | None) -> Decision:
    """Returns whether the pipeline's policy asks for a retrain, and what it looked at."""
    looked_at = {
        "prediction_drift": [_finding(column) for column in found.columns if column.column == PREDICTION],
        "column_drift": [_finding(column) for column in found.drifted if column.column != PREDICTION],
        "performance": [_against_floor(pipeline, measured)],
    }
    findings = [finding for name in pipeline.monitor.retrain_on for finding in looked_at[name]]
    asking = [reason for asks, reason in findings if asks]
    quiet = [reason for _, reason in findings]
    return Decision(
        retrain=bool(asking),
        reason="; ".join(asking or quiet) or "nothing has drifted",
        # Later labels are not known yet, and a model as of the future would keep out every challenger until then.
        as_of=min(partition.end + pipeline.label.matures_after, datetime.now(UTC)),
    )


def _champion_at(pipeline: Pipeline, partition: Partition, profile: Profile) -> Entry:
    """Returns the last champion trained on what was known before the partition began.

    A partition from before every champion gets the one that was trained on the least of what came later.
    """
    ledger = Ledger(profile.ledger_url)
    if champion := ledger.champion_at(pipeline.name, partition.start):
        return champion
    if not (standing := ledger.standing(pipeline.name)):
        raise AirworthyError(pipeline.name, "must have a champion to monitor", hint=f"Run {pipeline.name}.train first")
    return min(standing, key=_as_of)


def _as_of(entry: Entry) -> datetime:
    assert entry.as_of is not None, "every promotion states it; only a rollback to nothing does not"
    return entry.as_of


def _entry_of(pipeline: Pipeline, scored: pd.DataFrame, profile: Profile) -> Entry:
    version = str(scored[VERSION].iloc[0])
    entries = Ledger(profile.ledger_url).entries(pipeline.name)
    return next(entry for entry in entries if entry.version == version)


def _require_inputs(
    store: Store, partition: Partition, features: pd.DataFrame, model: LoadedModel, version: str
) -> None:
    held = features.columns[features.notna().any()]
    empty = [one.name for one in model.contract.features if one.name not in held and one.name in features]
    writes = [write for write in store.history(RAW) if write.partition == partition.key] if empty else []
    gone = writes[-1].facts.get("missing") if writes else None
    if not gone:
        return
    trained_on = pd.read_parquet(model.folder / REFERENCE, columns=empty).notna().any()
    hint = f"The source left out {', '.join(gone)}: bring it back, or train a model without it"
    rule = f"must hold values, because version {version} was trained on them"
    where = f"features[{partition.key}]"
    if problems := [DataError(f"{where}: {name}", rule, hint=hint) for name in empty if trained_on[name]]:
        raise Problems(where, problems)


def _partition_of(store: Store, table: str, partition: Partition, version: int | None = None) -> pd.DataFrame:
    frame = store.read(table, partitions=[partition.key], version=version)
    if frame.empty:
        raise DataError(f"{table}[{partition.key}]", "must hold rows", hint="Run the stage that writes it first")
    return frame


@contextmanager
def _loaded(pipeline: Pipeline, entry: Entry, profile: Profile) -> Iterator[LoadedModel]:
    """Yields the entry's model while its files exist."""
    with tempfile.TemporaryDirectory() as folder:
        files = Registry(profile).download(entry.model_id, Path(folder))
        yield load_model(files, digest=entry.digest, pipeline=pipeline)


def _columns(prediction: np.ndarray, classes: tuple[str, ...]) -> dict[str, Any]:
    if prediction.ndim == 1:
        return {PREDICTION: prediction}
    likeliest = np.array(classes, dtype=object)[prediction.argmax(axis=1)]
    return {PREDICTION: likeliest, **{f"p_{name}": prediction[:, number] for number, name in enumerate(classes)}}


def _aligned(pipeline: Pipeline, current: pd.DataFrame, scored: pd.DataFrame) -> np.ndarray:
    """Returns the predictions in the order of `current`; missing for rows that were not scored."""
    key = list(pipeline.key)
    return current[key].merge(scored[[*key, PREDICTION]], on=key, how="left")[PREDICTION].to_numpy()


def _metrics(pipeline: Pipeline, classes: tuple[str, ...], judged: pd.DataFrame) -> dict[str, float]:
    task = pipeline.label.task
    every = extend_classes(task, classes, judged[pipeline.label.column])
    label = encode_label(task, every, judged[pipeline.label.column])
    columns = [f"p_{name}" for name in classes] if task == "multiclass" else PREDICTION
    prediction = align_classes(judged[columns].to_numpy(), classes, every)
    measured: dict[str, float] = {}
    for metric in METRICS[task]:
        try:
            measured[metric] = measure_metric(task, metric, label, prediction)
        except TrainError as error:  # a quiet day may hold one class only; the other metrics still say something
            log.warning("%s", error)
    return measured


def _against_floor(pipeline: Pipeline, measured: Performance | None) -> tuple[bool, str]:
    floor, metric = pipeline.monitor.floor, pipeline.metric
    value = measured.metrics.get(metric) if measured else None
    if floor is None or value is None:
        return False, f"{metric} is not known yet"
    worse = value > floor if metric in LOWER_IS_BETTER else value < floor
    return worse, f"{metric} {value:.3f} is {'worse than' if worse else 'within'} the floor {floor:g}"


def _finding(column: ColumnDrift) -> tuple[bool, str]:
    distance = "holds no values" if column.score is None else f"is {column.score:.2f} from training"
    return column.drifted, f"{column.column} {column.note or f'{distance}, allowed is less than {column.threshold:g}'}"


def _write_reports(found: Drift, snapshot: Any, reports_dir: Path) -> None:
    page = reports_dir / found.page
    write_whole(page.with_suffix(".json"), found.model_dump_json(indent=1))
    drifted = [column.column for column in found.drifted]
    summary = f"{found.rows} rows scored by version {found.version}, against what that version was trained on. "
    summary += f"Drifted: {', '.join(drifted)}." if drifted else "No column has drifted."
    if PREDICTION in drifted and snapshot is not None:
        whole = page.with_name(f"{page.stem}.evidently.html")
        write_whole(whole, snapshot.get_html_str(as_iframe=False))
        summary += f" Evidently's own report is beside this page: {whole.name}."
    rows = [_row(column) for column in sorted(found.columns, key=lambda column: (not column.drifted, column.column))]
    heading = ("column", "kind", "distance", "threshold", "missing", "missing in training", "drifted")
    title = f"{found.pipeline}: drift of {found.partition}"
    write_page(page, title, [Section(heading="Columns", text=summary, table=(heading, rows))])


def _row(column: ColumnDrift) -> tuple[str, ...]:
    score = "no values to compare" if column.score is None else f"{column.score:.3f}"
    shares = f"{column.missing:.1%}", f"{column.reference_missing:.1%}"
    verdict = ("yes: " + column.note if column.note else "yes") if column.drifted else "no"
    return column.column, column.kind, score, f"{column.threshold:g}", *shares, verdict
