"""train: a challenger, tuned and fitted on what was known at `as_of`, with everything on record."""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from airworthy.concept import Calibration, outcomes
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
from airworthy.mlflow_server import BACKTEST
from airworthy.model_files import Contract, Lookup, write_model
from airworthy.models import Fitted
from airworthy.partitions import utc
from airworthy.profile import Profile
from airworthy.reference import Reference
from airworthy.registry import Challenger, Registry, Training
from airworthy.resources import Meter
from airworthy.searches import BEST, SPACE, WARM, Trial, running
from airworthy.stages.study import Study, open_study, space_digest
from airworthy.stages.training_data import TrainingData, feature_columns, read_raw, read_training_data, row_weights
from airworthy.stages.tuning import Search, search
from airworthy.stages.view_join import joined_as_processed
from airworthy.store import Store
from airworthy.tuning_page import tuning_page

log = logging.getLogger(__name__)

_REQUESTS = 50
_REFERENCE_ROWS = 20_000


def train(
    pipeline: Pipeline,
    as_of: datetime,
    profile: Profile,
    *,
    tags: Mapping[str, str] | None = None,
    backtest: bool = False,
) -> Challenger:
    """Returns a challenger that saw nothing that was not known at `as_of`, with its run and files in MLflow.

    If a finished run had the same training key, that run's challenger is returned and nothing is
    trained: running this again makes no second model.

    Args:
        pipeline: What to train.
        as_of: Rows count when their label was known by then.
        profile: Where the tables and MLflow are.
        tags: Put on the MLflow run, e.g. which Airflow run asked for it.
        backtest: Whether the challenger is for a backtest: it has a run of its own and can never become champion.

    Raises:
        TrainError: There are no rows, one class only, the model cannot be trained as declared, or its code changed
            meanwhile.
        ServiceError: MLflow does not answer.
    """
    as_of = utc(as_of)
    store, registry = Store(profile.store_uri, pipeline.name), Registry(profile)
    data = read_training_data(pipeline, as_of, store)
    key = training_key(pipeline, as_of, data.features.digest)
    if found := registry.find_training(pipeline.name, key, backtest=backtest):
        log.info("Run %s trained on exactly this already; its challenger is taken over", found.run_id)
        return found
    log.info("Training on %d rows, scoring on the %d after them", len(data.window), len(data.holdout))
    mark = declaration_key(pipeline) if backtest else ""
    tags = {**(tags or {}), **({BACKTEST: mark} if mark else {})}
    study = open_study(pipeline, as_of, key, profile, backtest=mark)
    with tempfile.TemporaryDirectory() as folder, running(pipeline, as_of, key, registry, tags) as live:
        with Meter() as meter:
            training = make(pipeline, as_of, data, store, Path(folder, "model"), study=study, tell=live.tell, tags=tags)
        if training.training_key != key:
            rule = "must be trained by one code, but its modules changed meanwhile"
            raise TrainError(pipeline.name, rule, hint="Run this again")
        started = time.perf_counter()
        challenger = registry.log_training(replace(training, used=meter.used), live.run_id)
    log.info("Recorded as run %s in %.1f s", challenger.run_id, time.perf_counter() - started)
    return challenger


def training_key(pipeline: Pipeline, as_of: datetime, rows_digest: str) -> str:
    """Returns the SHA-256 of all that decides what a training gives: rows, moment, declaration and feature code."""
    return _sha256({**_declared(pipeline), "rows": rows_digest, "as_of": as_of.isoformat()})


def declaration_key(pipeline: Pipeline) -> str:
    """Returns the SHA-256 of what a training key tells of the pipeline: with equal ones, only the moments differ."""
    return _sha256(_declared(pipeline))


def _declared(pipeline: Pipeline) -> dict[str, Any]:
    declared = pipeline.model_dump(mode="json", include={"key", "time", "label", "features", "model", "tune", "train"})
    declared["train"].pop("schedule")
    if pipeline.pii:
        declared["pii"] = pipeline.pii
    if pipeline.views:
        declared["views"] = [lookup.model_dump() for lookup in _lookups(pipeline)]
    return {
        "pipeline": declared,
        "kind": pipeline.model.kind(),
        "code": features_digest(pipeline),
        "model_code": pipeline.model.code(),
    }


def _sha256(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def make(
    pipeline: Pipeline,
    as_of: datetime,
    data: TrainingData,
    store: Store,
    folder: Path,
    *,
    params: Mapping[str, Any] | None = None,
    study: Study | None = None,
    tell: Callable[[Trial], None] = lambda _: None,
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
        study: Where the search keeps its trials.
        tell: Called with each of them.
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
    weight = row_weights(pipeline, data.window, label)
    if params:
        found = Search(dict(params))
    else:
        found = search(pipeline, matrix, label, moment, len(classes), weight=weight, study=study, tell=tell)
    best = found.best
    started = time.perf_counter()
    threads, seed = pipeline.train.threads, pipeline.train.seed
    prepared = pipeline.model.prepare(matrix, label, weight=weight, threads=threads)
    fitted = pipeline.model.fit(pipeline.label.task, len(classes), prepared, best, seed=seed, threads=threads)
    log.info("Fitted on the whole window in %.1f s", time.perf_counter() - started)
    judged = fitted.predict(encode(data.holdout).values)
    metrics = _measure(pipeline, data.holdout, judged, classes)
    raw = read_raw(pipeline, data, store)
    requests, asked = _requests(pipeline, data, raw, store)
    contract = _contract(pipeline, as_of, data, classes, features, describe_inputs(requests), best)
    answers = fitted.predict(encode(asked).values)
    reference = _reference(columns, encode, fitted, classes, seed)
    sketches = Reference.of(contract, columns, reference, data.window[pipeline.label.column], raw)
    sketches.calibration = _calibration(pipeline, data.holdout, judged, classes)
    digest = write_model(folder, contract, fitted, requests, answers, reference, sketches.to_json())
    return Training(
        contract=contract,
        folder=folder,
        digest=digest,
        training_key=training_key(pipeline, as_of, data.features.digest),
        features=data.features,
        source=store.uri(FEATURES),
        metrics=metrics,
        metric=pipeline.metric,
        trials=[trial.row() for trial in found.trials],
        tags={**_search_tags(pipeline, found), **(tags or {})},
        pages={"tuning.html": tuning_page(pipeline, found)} if found.trials else {},
        declaration=pipeline.model_dump_json(indent=1),
    )


def refit(pipeline: Pipeline, contract: Contract, window: pd.DataFrame, rows: pd.DataFrame, seed: int) -> np.ndarray:
    """Returns what the training a contract speaks of, with another seed, gives for some rows.

    Args:
        pipeline: Which declared model.
        contract: Features, classes and parameters.
        window: The rows to train on.
        rows: The rows to answer, shape (n, ...).
        seed: Instead of the contract's.
    """
    encode, threads = Encoder(contract.features), pipeline.train.threads
    label = encode_label(contract.task, contract.classes, window[pipeline.label.column])
    weight = row_weights(pipeline, window, label)
    prepared = pipeline.model.prepare(encode(window), label, weight=weight, threads=threads)
    fitted = pipeline.model.fit(
        contract.task, len(contract.classes), prepared, contract.params, seed=seed, threads=threads
    )
    return fitted.predict(encode(rows).values)


def _search_tags(pipeline: Pipeline, found: Search) -> dict[str, str]:
    """Returns what later searches look for, and which run this one began with."""
    if not found.trials:
        return {}
    warm = {WARM: found.warm.model_dump_json()} if found.warm else {}
    return {SPACE: space_digest(pipeline), BEST: json.dumps(found.best), **warm}


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
        model_code=pipeline.model.code(),
        as_of=as_of,
        holdout=data.holdout_interval,
        window=data.window_interval,
        params={**pipeline.model.params, **best},
        seed=pipeline.train.seed,
        sketched=True,
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
    pipeline: Pipeline, holdout: pd.DataFrame, prediction: np.ndarray, classes: tuple[str, ...]
) -> dict[Any, float]:
    task, column = pipeline.label.task, holdout[pipeline.label.column]
    every = extend_classes(task, classes, column)
    label = encode_label(task, every, column)
    metrics = score_all(task, label, align_classes(prediction, classes, every))
    log.info("On the holdout: %s", ", ".join(f"{name} {value:.4f}" for name, value in metrics.items()))
    return dict(metrics)


def _calibration(
    pipeline: Pipeline, holdout: pd.DataFrame, prediction: np.ndarray, classes: tuple[str, ...]
) -> Calibration:
    task, column = pipeline.label.task, holdout[pipeline.label.column]
    label = encode_label(task, extend_classes(task, classes, column), column)
    return Calibration.of(*outcomes(task, prediction, label))


def _requests(
    pipeline: Pipeline, data: TrainingData, raw: pd.DataFrame, store: Store
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Returns raw rows of the holdout with what views gave them then, and the features rows they became."""
    chosen = data.holdout.sample(min(_REQUESTS, len(data.holdout)), random_state=pipeline.train.seed)
    key = pipeline.identity
    raw = raw.drop(columns=pipeline.label.column).drop_duplicates(key)
    position = pd.MultiIndex.from_frame(raw[key]).get_indexer(pd.MultiIndex.from_frame(chosen[key]))
    asked = raw.iloc[position[position >= 0]].reset_index(drop=True)
    joined = joined_as_processed(pipeline, asked, store, data.features.version)
    return joined.drop(columns=[*pipeline.set_aside], errors="ignore"), chosen[position >= 0]


def _reference(
    columns: pd.DataFrame, encode: Encoder, fitted: Fitted, classes: tuple[str, ...], seed: int
) -> pd.DataFrame:
    """Returns a sample of the training rows with `prediction`: a probability, a number, or the likeliest class."""
    sample = columns.sample(min(_REFERENCE_ROWS, len(columns)), random_state=seed).sort_index()
    prediction = fitted.predict(encode(sample).values)
    if prediction.ndim == 2:
        prediction = np.array(classes, dtype=object)[prediction.argmax(axis=1)]
    return sample.assign(prediction=prediction)
