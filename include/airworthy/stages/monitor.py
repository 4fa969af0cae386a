"""Monitor: what the champion says about a partition."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from airworthy.config import Pipeline
from airworthy.drift import PREDICTION as PREDICTION
from airworthy.errors import AirworthyError, DataError, Problems
from airworthy.ledger import Entry, Ledger
from airworthy.model_files import REFERENCE, LoadedModel, load_model
from airworthy.partitions import Partition
from airworthy.profile import Profile
from airworthy.registry import Registry
from airworthy.serving.check import require_own_code
from airworthy.stages.ingest import RAW
from airworthy.store import Store, TableRef

VERSION = "version"
CLASS = "p_"  # and its name: the column of its probability

log = logging.getLogger(__name__)


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
    features = partition_of(store, "features", partition)
    with loaded(pipeline, entry, profile) as model:
        _require_inputs(store, partition, features, model, entry.version)
        prediction = model.predict(features)
    log.info("Version %s, trained as of %s, scores %d rows", entry.version, f"{entry.as_of:%Y-%m-%d}", len(features))
    frame = features[pipeline.identity].assign(**columns_of(prediction, model.contract.classes))
    return write_predictions(store, "predictions", partition, frame.assign(**{VERSION: entry.version}))


def write_predictions(store: Store, table: str, partition: Partition, frame: pd.DataFrame) -> TableRef:
    """Leaves predictions in a table, whose classes may be others than those of the versions before.

    Where a version does not know a class that the table has, its probability is missing.
    """
    probabilities = [name for name in frame.columns if name.startswith(CLASS)]
    if probabilities and store.version(table) is not None:
        absent = [name for name in store.scan(table).schema.names if name.startswith(CLASS) and name not in frame]
        frame = frame.assign(**dict.fromkeys(absent, np.nan))
    return store.write(table, partition, frame, evolve=bool(probabilities))


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


def entry_of(pipeline: Pipeline, scored: pd.DataFrame, profile: Profile) -> Entry:
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


def partition_of(store: Store, table: str, partition: Partition, version: int | None = None) -> pd.DataFrame:
    frame = store.read(table, partitions=[partition.key], version=version)
    if frame.empty:
        raise DataError(f"{table}[{partition.key}]", "must hold rows", hint="Run the stage that writes it first")
    return frame


@contextmanager
def loaded(pipeline: Pipeline, entry: Entry, profile: Profile) -> Iterator[LoadedModel]:
    """Yields the entry's model while its files exist."""
    with tempfile.TemporaryDirectory() as folder:
        files = Registry(profile).download(entry.model_id, Path(folder))
        yield require_own_code(pipeline, load_model(files, digest=entry.digest, pipeline=pipeline))


def columns_of(prediction: np.ndarray, classes: tuple[str, ...]) -> dict[str, Any]:
    """Returns what a table has of predictions: themselves, and where there are several classes their probabilities."""
    if prediction.ndim == 1:
        return {PREDICTION: prediction}
    likeliest = np.array(classes, dtype=object)[prediction.argmax(axis=1)]
    return {PREDICTION: likeliest, **{f"{CLASS}{name}": prediction[:, number] for number, name in enumerate(classes)}}
