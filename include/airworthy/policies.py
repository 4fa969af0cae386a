"""What following the gates was worth: the champion against retraining blindly and against never retraining."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd

from airworthy.config import Pipeline
from airworthy.encoding import align_classes, encode_label, extend_classes
from airworthy.errors import TrainError
from airworthy.metrics import score
from airworthy.model_files import LoadedModel, load_model
from airworthy.profile import Profile
from airworthy.registry import Challenger, Registry
from airworthy.stages.training_data import read_labelled
from airworthy.store import Store

POLICIES = ("champion", "blind retraining", "static")


_Models = tuple[Challenger, Challenger, Challenger]  # in the order of POLICIES


@dataclass(frozen=True)
class _Window:
    """A time in which no policy changed its model."""

    start: datetime
    end: datetime
    models: _Models


def scores_by_month(pipeline: Pipeline, trained: Sequence[tuple[Challenger, bool]], profile: Profile) -> pd.DataFrame:
    """Returns what each policy would have scored, one row per month from the first training run to the last label.

    Every row of data is predicted by the model that the policy had in force at that time: the champion, the newest
    challenger whatever the gates said, or the first champion for ever.

    Args:
        pipeline: Whose features and metric.
        trained: Each challenger by `as_of`, and whether it was promoted.
        profile: Where the tables and MLflow are.

    Returns:
        Columns `month` (UTC, its first moment), `rows` and one per policy; a score is NaN where the month's labels
        do not define the metric. No rows if nothing was promoted.

    Raises:
        ModelError: A model's files are not the ones that were trained.
        ServiceError: MLflow does not answer.
    """
    columns = ["month", "rows", *POLICIES]
    if not (windows := _windows(trained)):
        return pd.DataFrame(columns=columns)
    store = Store(profile.store_uri, pipeline.name)
    frame = read_labelled(pipeline, store, (windows[0].start, windows[-1].end))
    frame = frame.sort_values(pipeline.time, kind="stable")
    time = frame[pipeline.time]
    parts = [(window.models, frame[(time >= window.start) & (time < window.end)]) for window in windows]
    parts = [(models, rows) for models, rows in parts if not rows.empty]  # none are, right after a training
    if not parts:
        return pd.DataFrame(columns=columns)
    loaded = _load(pipeline, [models for models, _ in parts], Registry(profile))
    predicted, label = _predicted(pipeline, frame, parts, loaded)
    month = frame[pipeline.time].dt.strftime("%Y-%m").to_numpy()
    rows = []
    for name in sorted(set(month)):
        chosen = month == name
        scores = [_score(pipeline, label[chosen], prediction[chosen]) for prediction in predicted]
        rows.append((pd.Timestamp(name, tz="UTC"), int(chosen.sum()), *scores))
    return pd.DataFrame(rows, columns=columns)


def _windows(trained: Sequence[tuple[Challenger, bool]]) -> list[_Window]:
    windows = []
    champion = static = None
    until = [*(challenger.as_of for challenger, _ in trained[1:]), datetime.now(UTC)]
    for (challenger, promoted), end in zip(trained, until, strict=True):
        if promoted:
            champion = challenger
            static = static or challenger
        if champion and static and end > challenger.as_of:
            windows.append(_Window(challenger.as_of, end, (champion, challenger, static)))
    return windows


def _load(pipeline: Pipeline, in_force: Sequence[_Models], registry: Registry) -> dict[str, LoadedModel]:
    needed = {challenger.model_id: challenger for models in in_force for challenger in models}
    with tempfile.TemporaryDirectory() as folder:
        return {
            name: load_model(registry.download(name, Path(folder, name)), digest=challenger.digest, pipeline=pipeline)
            for name, challenger in needed.items()
        }


def _predicted(
    pipeline: Pipeline,
    frame: pd.DataFrame,
    parts: Sequence[tuple[_Models, pd.DataFrame]],
    loaded: dict[str, LoadedModel],
) -> tuple[list[np.ndarray], np.ndarray]:
    """Returns each policy's predictions for the rows, in order of time, and their labels."""
    task, column = pipeline.label.task, frame[pipeline.label.column]
    known = dict.fromkeys(name for model in loaded.values() for name in model.contract.classes)
    classes = extend_classes(task, tuple(known), column)
    found: list[list[np.ndarray]] = [[] for _ in POLICIES]
    for models, rows in parts:
        by_model = {
            name: align_classes(loaded[name].predict(rows), loaded[name].contract.classes, classes)
            for name in {challenger.model_id for challenger in models}
        }
        for predictions, challenger in zip(found, models, strict=True):
            predictions.append(by_model[challenger.model_id])
    return [np.concatenate(predictions) for predictions in found], encode_label(task, classes, column)


def _score(pipeline: Pipeline, label: np.ndarray, prediction: np.ndarray) -> float:
    try:
        return score(pipeline.label.task, pipeline.metric, label, prediction)
    except TrainError:  # one class only in a short month
        return float("nan")
