"""train: a challenger, tuned and fitted on what was known at `as_of`, with everything on record."""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from airworthy.config import Pipeline
from airworthy.encoding import (
    Encoder,
    Feature,
    Input,
    align_classes,
    class_names,
    describe_features,
    describe_inputs,
    encode_label,
    extend_classes,
)
from airworthy.errors import TrainError
from airworthy.features import features_digest
from airworthy.lineage import FEATURES
from airworthy.metrics import score_all
from airworthy.model_files import Contract, Lookup, write_model
from airworthy.models import Fitted
from airworthy.partitions import utc
from airworthy.profile import Profile
from airworthy.registry import Challenger, Registry, Training
from airworthy.stages.training_data import TrainingData, feature_columns, read_raw, read_training_data
from airworthy.stages.tuning import search
from airworthy.stages.view_join import joined_as_processed
from airworthy.store import Store

log = logging.getLogger(__name__)

_REQUESTS = 50
_REFERENCE_ROWS = 20_000


def train(
    pipeline: Pipeline, as_of: datetime, profile: Profile, *, tags: Mapping[str, str] | None = None
) -> Challenger:
    """Returns a challenger that saw nothing that was not known at `as_of`, with its run and files in MLflow.

    If a finished run had the same training key, that run's challenger is returned and nothing is
    trained: running this again makes no second model.

    Args:
        pipeline: What to train.
        as_of: Rows count when their label was known by then.
        profile: Where the tables and MLflow are.
        tags: Put on the MLflow run, e.g. which Airflow run asked for it.

    Raises:
        TrainError: There are no rows, one class only, or the model cannot be trained as declared.
        ServiceError: MLflow does not answer.
    """
    as_of = utc(as_of)
    store, registry = Store(profile.store_uri, pipeline.name), Registry(profile)
    data = read_training_data(pipeline, as_of, store)
    key = training_key(pipeline, as_of, data.features.digest)
    if found := registry.find_training(pipeline.name, key):
        log.info("Run %s trained on exactly this already; its challenger is taken over", found.run_id)
        return found
    log.info("Training on %d rows, scoring on the %d after them", len(data.window), len(data.holdout))
    with tempfile.TemporaryDirectory() as folder:
        training = make(pipeline, as_of, data, store, Path(folder, "model"), tags=tags)
        started = time.perf_counter()
        challenger = registry.log_training(training)
    log.info("Recorded as run %s in %.1f s", challenger.run_id, time.perf_counter() - started)
    return challenger


def training_key(pipeline: Pipeline, as_of: datetime, rows_digest: str) -> str:
    """Returns the SHA-256 of all that decides what a training gives: rows, moment, declaration and feature code."""
    declared = pipeline.model_dump(mode="json", include={"key", "time", "label", "features", "model", "tune", "train"})
    declared["train"].pop("schedule")
    if pipeline.pii:
        declared["pii"] = pipeline.pii
    if pipeline.views:
        declared["views"] = [lookup.model_dump() for lookup in _lookups(pipeline)]
    content = {
        "pipeline": declared,
        "kind": pipeline.model.kind(),
        "code": features_digest(pipeline),
        "rows": rows_digest,
        "as_of": as_of.isoformat(),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def make(
    pipeline: Pipeline,
    as_of: datetime,
    data: TrainingData,
    store: Store,
    folder: Path,
    *,
    params: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
) -> Training:
    """Returns the training to put on record, its model's files written into `folder`.

    The same rows, declaration and code give the same files.

    Args:
        pipeline: What to train.
        as_of: Rows count when their label was known by then.
        data: What `read_training_data` returned.
        store: Where the raw rows of the recorded requests are.
        folder: Must not exist yet.
        params: What an earlier search found; None searches.
        tags: Put on the MLflow run.

    Raises:
        TrainError: There is one class only, or the model cannot be trained as declared.
    """
    columns = feature_columns(pipeline, data.window)
    features = describe_features(columns)
    encode = Encoder(features)
    classes = _classes(pipeline, data)
    label = encode_label(pipeline.label.task, classes, data.window[pipeline.label.column])
    matrix = encode(columns)
    moment = data.window[pipeline.time].astype("int64").to_numpy()
    best, trials = (dict(params), []) if params else search(pipeline, matrix, label, moment, len(classes))
    started = time.perf_counter()
    threads, seed = pipeline.train.threads, pipeline.train.seed
    prepared = pipeline.model.prepare(matrix, label, threads=threads)
    fitted = pipeline.model.fit(pipeline.label.task, len(classes), prepared, best, seed=seed, threads=threads)
    log.info("Fitted on the whole window in %.1f s", time.perf_counter() - started)
    metrics = _measure(pipeline, data.holdout, encode, fitted, classes)
    requests, asked = _requests(pipeline, data, store)
    contract = _contract(pipeline, as_of, data, classes, features, describe_inputs(requests), best)
    answers = fitted.predict(encode(asked).values)
    reference = _reference(columns, encode, fitted, classes, seed)
    digest = write_model(folder, contract, fitted, requests, answers, reference)
    return Training(
        contract=contract,
        folder=folder,
        digest=digest,
        training_key=training_key(pipeline, as_of, data.features.digest),
        features=data.features,
        source=store.uri(FEATURES),
        metrics=metrics,
        metric=pipeline.metric,
        trials=trials,
        tags=tags or {},
        declaration=pipeline.model_dump_json(indent=1),
    )


def _contract(
    pipeline: Pipeline,
    as_of: datetime,
    data: TrainingData,
    classes: tuple[str, ...],
    features: tuple[Feature, ...],
    inputs: tuple[Input, ...],
    best: Mapping[str, Any],
) -> Contract:
    return Contract(
        pipeline=pipeline.name,
        kind=pipeline.model.kind(),
        file=pipeline.model.file,
        task=pipeline.label.task,
        classes=classes,
        inputs=inputs,
        lookups=_lookups(pipeline),
        features=features,
        features_function=pipeline.features,
        features_digest=features_digest(pipeline),
        as_of=as_of,
        holdout=data.holdout_interval,
        window=data.window_interval,
        params={**pipeline.model.params, **best},
        seed=pipeline.train.seed,
    )


def _lookups(pipeline: Pipeline) -> tuple[Lookup, ...]:
    return tuple(
        Lookup(
            view=name,
            key=view.key,
            columns=view.columns,
            max_age=None if view.age is None else view.age.total_seconds(),
        )
        for name, view in pipeline.views.items()
    )


def _classes(pipeline: Pipeline, data: TrainingData) -> tuple[str, ...]:
    if pipeline.label.task == "regression":
        return ()
    column = pipeline.label.column
    classes = class_names(data.window[column])
    where = f"{pipeline.name}: label {column}"
    if pipeline.label.task == "binary" and len(classes) > 2:
        raise TrainError(where, "must hold two classes to be binary", ", ".join(classes), "Set label.task: multiclass")
    if len(classes) < 2:
        rule = f"must hold more than one class in the {len(data.window):,} rows of the training window"
        raise TrainError(where, rule, f"only {classes[0]}", "Check how the label is made, or train on a longer window")
    if pipeline.label.task == "binary" and data.holdout[column].nunique() < 2:
        rule = f"must hold both classes in the {len(data.holdout):,} rows of the holdout"
        only = class_names(data.holdout[column])[0]
        raise TrainError(where, rule, f"only {only}", "Check how the label is made, or declare a longer train.holdout")
    return classes


def _measure(
    pipeline: Pipeline, holdout: pd.DataFrame, encode: Encoder, fitted: Fitted, classes: tuple[str, ...]
) -> dict[Any, float]:
    task, column = pipeline.label.task, holdout[pipeline.label.column]
    every = extend_classes(task, classes, column)
    label = encode_label(task, every, column)
    prediction = fitted.predict(encode(holdout).values)
    metrics = score_all(task, label, align_classes(prediction, classes, every))
    log.info("On the holdout: %s", ", ".join(f"{name} {value:.4f}" for name, value in metrics.items()))
    return dict(metrics)


def _requests(pipeline: Pipeline, data: TrainingData, store: Store) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Returns raw rows of the holdout with what views gave them then, and the features rows they became."""
    chosen = data.holdout.sample(min(_REQUESTS, len(data.holdout)), random_state=pipeline.train.seed)
    raw = read_raw(pipeline, data, store)
    key = pipeline.identity
    raw = raw.drop(columns=pipeline.label.column).drop_duplicates(key)
    position = pd.MultiIndex.from_frame(raw[key]).get_indexer(pd.MultiIndex.from_frame(chosen[key]))
    asked = raw.iloc[position[position >= 0]].reset_index(drop=True)
    joined = joined_as_processed(pipeline, asked, store, data.features.version)
    return joined.drop(columns=list(pipeline.pii), errors="ignore"), chosen[position >= 0]


def _reference(
    columns: pd.DataFrame, encode: Encoder, fitted: Fitted, classes: tuple[str, ...], seed: int
) -> pd.DataFrame:
    """Returns a sample of the training rows with `prediction`: a probability, a number, or the likeliest class."""
    sample = columns.sample(min(_REFERENCE_ROWS, len(columns)), random_state=seed).sort_index()
    prediction = fitted.predict(encode(sample).values)
    if prediction.ndim == 2:
        prediction = np.array(classes, dtype=object)[prediction.argmax(axis=1)]
    return sample.assign(prediction=prediction)
