"""Drift: how far a scored partition is from what its champion was trained on, in one pass over its rows."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pyarrow as pa

from airworthy.concept import Calibration, outcomes
from airworthy.config import Pipeline
from airworthy.content import chunks
from airworthy.drift import PREDICTION, Drift, Limits, compare
from airworthy.drift_page import write_pages
from airworthy.encoding import align_classes, encode_label, extend_classes
from airworthy.errors import DataError
from airworthy.evidently_report import ROWS, confirm
from airworthy.formatting import FormatChange, text_change, unit_change
from airworthy.model_files import REFERENCE, Contract
from airworthy.partitions import Partition
from airworthy.profile import Profile
from airworthy.reference import Reference, load_reference
from airworthy.sketches import CategorySketch, NumberSketch, Sketches, sketch_chunks
from airworthy.stages.ingest import RAW
from airworthy.stages.kpis import KPIS, Window, watch
from airworthy.stages.monitor import CLASS, entry_of, loaded
from airworthy.stages.serving_kpis import served
from airworthy.store import Store, TableRef

FEATURES, SCORED = "features", "predictions"

log = logging.getLogger(__name__)


def drift(pipeline: Pipeline, partition: Partition, predictions: TableRef, profile: Profile) -> Drift:
    """Leaves a page and a JSON file that say how a scored partition is unlike its champion's training.

    Where something has drifted, Evidently's own page (4 MB) of those columns is written beside them. The pipeline's
    key figures are kept in the table `kpis`.

    Args:
        predictions: What `score` returned.

    Raises:
        DataError: The partition was not scored, or a column of numbers holds something else.
        Problems: A declared key figure cannot be computed.
        ModelError: The champion's files are not the ones the ledger names.
        ServiceError: MLflow or the ledger does not answer.
    """
    store = Store(profile.store_uri, pipeline.name)
    scored = store.scan(SCORED, partitions=[partition.key], version=predictions.version).head(1).to_pandas()
    if scored.empty:
        raise DataError(f"{SCORED}[{partition.key}]", "must hold rows", hint="Run the stage that writes it first")
    entry = entry_of(pipeline, scored, profile)
    with loaded(pipeline, entry, profile) as model:
        contract, reference = model.contract, load_reference(model.folder, model.contract)
        before = pd.read_parquet(model.folder / REFERENCE)
    now = _rows(pipeline, partition, predictions, store, reference)
    outcome = _outcomes(pipeline, partition, predictions, store, contract, reference)
    serving = served(pipeline, partition, profile, KPIS)
    watched = watch(pipeline, partition, Window(now.rows, now.sketches, contract.task, outcome), store, serving)
    found = _compared(pipeline, partition, now, reference, outcome, store)
    beside = {"version": entry.version, "kpis": tuple(watched), "coverage": serving.coverage}
    found, snapshot = confirm(found.model_copy(update=beside), before, now.sample)
    write_pages(found, snapshot, reference.columns, now.sketches, before, now.sample, profile.reports_dir)
    if found.coverage is not None:
        log.info("%s", found.coverage.told)
    for alarm in found.alarms:
        log.warning("%s", alarm)
    names = ", ".join(column.column for column in found.drifted) or "none"
    log.info("Drifted from the training of version %s: %s (of %d columns)", entry.version, names, len(found.columns))
    return found


def _compared(
    pipeline: Pipeline, partition: Partition, now: _Rows, reference: Reference, outcome: Outcome | None, store: Store
) -> Drift:
    label = pipeline.label.column
    held = reference.columns | ({label: reference.label["label"]} if label in now.sketches else {})
    known = (reference.calibration, outcome.calibration) if reference.calibration and outcome else None
    columns, concept = compare(held, now.sketches, _limits(pipeline, held), known)
    drifted = [one.column for one in columns if one.drifted]
    return Drift(
        pipeline=pipeline.name,
        partition=partition.key,
        version="",
        rows=now.rows,
        columns=tuple(one for one in columns if one.column != label),
        page=drift_page(pipeline, partition),
        label=next((one for one in columns if one.column == label), None),
        concept=concept,
        formats=tuple(_formats(partition, store, reference, now.sketches, drifted)),
    )


def drift_page(pipeline: Pipeline, partition: Partition) -> str:
    """Returns where `drift` writes its page, below `reports_dir`."""
    return f"{pipeline.name}/monitor/{partition.key}.html"


def _limits(pipeline: Pipeline, held: Sketches) -> Limits:
    declared, own = pipeline.monitor, {}
    if pipeline.label.column in held:
        own = {pipeline.label.column: declared.label_drift}
    columns = dict.fromkeys(held, declared.column_drift) | {PREDICTION: declared.prediction_drift} | own
    return Limits(columns=columns, concept=declared.concept_drift, false_alarms=declared.false_alarms)


@dataclass
class Outcome:
    """What is known of a partition's labels.

    Attributes:
        calibration: Outcomes by what the model said.
        right: How many rows the model had right; of a regression, the sum of its absolute errors.
    """

    calibration: Calibration
    right: float = 0.0

    @property
    def rows(self) -> int:
        return int(self.calibration.counts.sum())


@dataclass
class _Rows:
    """A partition as one pass leaves it: sketches, and a sample of at most `ROWS` rows evenly spread over it."""

    rows: int
    sketches: Sketches
    sample: pd.DataFrame = field(default_factory=pd.DataFrame)


def _rows(pipeline: Pipeline, partition: Partition, predictions: TableRef, store: Store, reference: Reference) -> _Rows:
    label = pipeline.label.column
    features = store.scan(FEATURES, partitions=[partition.key])
    empty: Sketches = {name: one.like() for name, one in reference.columns.items() if name != PREDICTION}
    if reference.label:
        empty[label] = reference.label["label"].like()
    names = [name for name in empty if name in features.schema.names]
    rows, kept = features.count_rows(), list[pa.Table]()
    sketches = sketch_chunks(_sampled(chunks(features, names), rows, kept), empty)
    said, said_kept = store.scan(SCORED, partitions=[partition.key], version=predictions.version), list[pa.Table]()
    empty = {PREDICTION: reference.columns[PREDICTION].like()}
    sketches |= sketch_chunks(_sampled(chunks(said, [PREDICTION]), said.count_rows(), said_kept), empty)
    sketches[PREDICTION].rows = max(rows, sketches[PREDICTION].rows)  # what was not scored has no prediction
    if label in sketches:
        sketches[label].rows = sketches[label].present  # what is not known yet is not missing
        if not sketches[label].present:
            del sketches[label]
    sample = pa.concat_tables(kept).to_pandas() if kept else pd.DataFrame()
    return _Rows(rows, sketches, sample.assign(**{PREDICTION: _fitting(said_kept, len(sample))}))


def _sampled(rows: Iterator[pa.Table], count: int, kept: list[pa.Table]) -> Iterator[pa.Table]:
    """Yields the rows, and leaves at most `ROWS` of them in `kept`, evenly spread."""
    step, seen = max(1, -(-count // ROWS)), 0
    for chunk in rows:
        kept.append(chunk.take(pa.array(range(-seen % step, chunk.num_rows, step), pa.int64())))
        seen += chunk.num_rows
        yield chunk


def _fitting(kept: list[pa.Table], rows: int) -> np.ndarray:
    """Returns sampled predictions for a sample of so many rows; which is whose does not matter to a distribution."""
    values = pa.concat_tables(kept)[PREDICTION].to_pandas().to_numpy()
    return values[:rows] if len(values) >= rows else np.resize(values, rows)


def _outcomes(
    pipeline: Pipeline,
    partition: Partition,
    predictions: TableRef,
    store: Store,
    contract: Contract,
    reference: Reference,
) -> Outcome | None:
    """Returns what became of the predictions whose label is known; None if there are none."""
    if reference.calibration is None:
        return None
    found = Outcome(reference.calibration.like())
    for rows in _labelled(pipeline, partition, predictions, store):
        label = rows[pipeline.label.column]
        every = extend_classes(contract.task, contract.classes, label)
        codes = encode_label(contract.task, every, label)
        columns = [f"{CLASS}{name}" for name in contract.classes] if contract.task == "multiclass" else PREDICTION
        prediction = align_classes(rows[columns].to_numpy("float64"), contract.classes, every)
        found.calibration.add(*outcomes(contract.task, prediction, codes))
        if contract.task == "regression":
            found.right += float(np.abs(codes - prediction).sum())
        else:
            said = prediction.argmax(axis=1) if prediction.ndim == 2 else prediction >= 0.5
            found.right += float((said == codes).sum())
    return found if found.rows else None


def _labelled(pipeline: Pipeline, partition: Partition, predictions: TableRef, store: Store) -> Iterator[pd.DataFrame]:
    """Yields predictions with their label, a few rows at a time; DuckDB joins them on disk if they are many."""
    import duckdb

    label = _quoted(pipeline.label.column)
    with tempfile.TemporaryDirectory() as folder, duckdb.connect() as database:
        database.execute(f"SET memory_limit = '512MB'; SET temp_directory = '{folder}'; SET TimeZone = 'UTC'")
        database.execute("SET enable_progress_bar = false")
        scored = store.scan(SCORED, partitions=[partition.key], version=predictions.version)
        database.register("scored", scored)
        database.register("features", store.scan(FEATURES, partitions=[partition.key]))
        on = " AND ".join(f"scored.{name} = features.{name}" for name in map(_quoted, pipeline.key))
        said = ", ".join(
            f"scored.{_quoted(name)}" for name in scored.schema.names if name == PREDICTION or name.startswith(CLASS)
        )
        text = f"SELECT {said}, features.{label} FROM scored JOIN features ON {on} WHERE features.{label} IS NOT NULL"
        for batch in database.sql(text).to_arrow_reader(100_000):
            rows = batch.to_pandas()
            if len(rows):
                yield rows


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _formats(
    partition: Partition, store: Store, reference: Reference, now: Sketches, drifted: list[str]
) -> Iterator[FormatChange]:
    """Yields the columns that are written in another way: text in raw rows and in features, numbers that drifted."""
    told = set()
    if reference.raw and store.has(RAW, partition.key):
        raw = store.scan(RAW, partitions=[partition.key])
        names = [name for name in reference.raw if name in raw.schema.names]
        written = sketch_chunks(chunks(raw, names), {name: reference.raw[name].like() for name in names})
        pairs = [(name, reference.raw[name], written[name]) for name in names]
    else:
        pairs = []
    pairs += [(name, one, now[name]) for name, one in reference.columns.items() if name != PREDICTION]
    for name, before, after in pairs:
        change = None
        if isinstance(before, CategorySketch) and isinstance(after, CategorySketch):
            change = text_change(name, before, after)
        elif isinstance(before, NumberSketch) and isinstance(after, NumberSketch) and name in drifted:
            change = unit_change(name, before, after)
        if change is not None and name not in told:
            told.add(name)
            yield change
