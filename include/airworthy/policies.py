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
from airworthy.store import Store

POLICIES = ("champion", "blind retraining", "static")


@dataclass(frozen=True)
class _Window:
    """A time in which no policy changed its model; `models` are in the order of `POLICIES`."""

    start: datetime
    end: datetime
    models: tuple[Challenger, Challenger, Challenger]


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
    frame = _labelled(pipeline, windows, profile)
    # Right after a training nothing has been labelled yet.
    time = frame[pipeline.time]
    windows = [window for window in windows if ((time >= window.start) & (time < window.end)).any()]
    if not windows:
        return pd.DataFrame(columns=columns)
    predicted, label = _predicted(pipeline, windows, frame, _load(pipeline, windows, Registry(profile)))
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


def _load(pipeline: Pipeline, windows: Sequence[_Window], registry: Registry) -> dict[str, LoadedModel]:
    needed = {challenger.model_id: challenger for window in windows for challenger in window.models}
    with tempfile.TemporaryDirectory() as folder:
        return {
            name: load_model(registry.download(name, Path(folder, name)), digest=challenger.digest, pipeline=pipeline)
            for name, challenger in needed.items()
        }


def _labelled(pipeline: Pipeline, windows: Sequence[_Window], profile: Profile) -> pd.DataFrame:
    store = Store(profile.store_uri, pipeline.name)
    frame = store.read("features", between=(windows[0].start, windows[-1].end), time=pipeline.time)
    return frame[frame[pipeline.label.column].notna()].sort_values(pipeline.time, kind="stable")


def _predicted(
    pipeline: Pipeline, windows: Sequence[_Window], frame: pd.DataFrame, models: dict[str, LoadedModel]
) -> tuple[list[np.ndarray], np.ndarray]:
    """Returns each policy's predictions for the rows, in order of time, and their labels."""
    task, column, time = pipeline.label.task, frame[pipeline.label.column], frame[pipeline.time]
    known = dict.fromkeys(name for model in models.values() for name in model.contract.classes)
    classes = extend_classes(task, tuple(known), column)

    def predict(window: _Window, number: int) -> np.ndarray:
        model = models[window.models[number].model_id]
        rows = frame[(time >= window.start) & (time < window.end)]
        return align_classes(model.predict(rows), model.contract.classes, classes)

    predicted = [np.concatenate([predict(window, number) for window in windows]) for number, _ in enumerate(POLICIES)]
    return predicted, encode_label(task, classes, column)


def _score(pipeline: Pipeline, label: np.ndarray, prediction: np.ndarray) -> float:
    try:
        return score(pipeline.label.task, pipeline.metric, label, prediction)
    except TrainError:  # one class only in a short month
        return float("nan")
