"""What following the gates was worth: the champion against retraining blindly and against never retraining."""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from airworthy.config import Pipeline
from airworthy.encoding import align_classes, encode_label, extend_classes
from airworthy.evidence import LOWER_IS_BETTER, Metric
from airworthy.metrics import score_or_nan
from airworthy.model_files import LoadedModel, load_model
from airworthy.profile import Profile
from airworthy.registry import Challenger, Registry
from airworthy.serving.check import require_own_code
from airworthy.stages.training_data import read_labelled
from airworthy.store import Store

LINES = ("champion", "blind retraining", "static")
_STYLES = (("#1f6feb", "-", 2.4), ("#d29922", "--", 1.6), ("#8b949e", ":", 1.8))  # in the order of LINES

_Models = tuple[Challenger, Challenger, Challenger]  # in the order of LINES


class Models:
    """The models of challengers: each is loaded once, and answers the rows of a stretch of time once."""

    def __init__(self, pipeline: Pipeline, registry: Registry) -> None:
        self._pipeline = pipeline
        self._registry = registry
        self._folder = TemporaryDirectory()  # goes when this goes
        self._loaded: dict[str, LoadedModel] = {}
        self._answers: dict[tuple[str, datetime, datetime, int], np.ndarray] = {}

    def of(self, challenger: Challenger) -> LoadedModel:
        """Returns a challenger's model.

        Raises:
            ModelError: Its files, or what its code answers, are not as they were trained.
            ServiceError: MLflow does not answer.
        """
        name = challenger.model_id
        if name not in self._loaded:
            files = self._registry.download(name, Path(self._folder.name, name))
            loaded = load_model(files, digest=challenger.digest, pipeline=self._pipeline)
            self._loaded[name] = require_own_code(self._pipeline, loaded)
        return self._loaded[name]

    def answers(self, challenger: Challenger, window: Window, rows: pd.DataFrame) -> np.ndarray:
        """Returns a challenger's predictions for all rows of a window."""
        name = (challenger.model_id, window.start, window.end, len(rows))
        if name not in self._answers:
            self._answers[name] = self.of(challenger).predict(rows)
        return self._answers[name]


@dataclass(frozen=True)
class Window:
    """A time in which no line changed its model."""

    start: datetime
    end: datetime
    models: _Models


@dataclass(frozen=True)
class Followed:
    """The rows that came after, in order of time, as each line answers them.

    Attributes:
        month: Shape (n,): each row's month in UTC, such as 2013-04.
        block: Shape (n,): each row's day as an integer.
        label: Shape (n,).
        answers: By line: shape (n,) or (n, classes).
    """

    month: np.ndarray
    block: np.ndarray
    label: np.ndarray
    answers: Mapping[str, np.ndarray]


def scores_by_month(pipeline: Pipeline, trained: Sequence[tuple[Challenger, bool]], profile: Profile) -> pd.DataFrame:
    """Returns what each line would have scored, one row per month from the first training run to the last label.

    Args:
        pipeline: Whose features and metric.
        trained: Each challenger by `as_of`, and whether it was promoted.
        profile: Where the tables and MLflow are.

    Returns:
        As `by_month`. No rows if nothing was promoted.

    Raises:
        ModelError: A model's files are not the ones that were trained.
        ServiceError: MLflow does not answer.
    """
    until = datetime.now(UTC)
    if not windows(trained, until):
        return by_month(pipeline, None)
    frame = rows_since(pipeline, trained[0][0].as_of, until, profile)
    return by_month(pipeline, follow(pipeline, trained, until, frame, Models(pipeline, Registry(profile))))


def rows_since(pipeline: Pipeline, start: datetime, end: datetime, profile: Profile) -> pd.DataFrame:
    """Returns the features with a known label from `start` on, in order of time."""
    frame = read_labelled(pipeline, Store(profile.store_uri, pipeline.name), (start, end))
    return frame.sort_values(pipeline.time, kind="stable", ignore_index=True)


def follow(
    pipeline: Pipeline,
    trained: Sequence[tuple[Challenger, bool]],
    until: datetime,
    frame: pd.DataFrame,
    models: Models,
) -> Followed | None:
    """Returns every row answered by the model that each line had in force at that time.

    A line's model is the champion, the newest challenger whatever the gates said, or the first champion for ever.

    Args:
        pipeline: Whose label.
        trained: Each challenger by `as_of`, and whether it was promoted.
        until: No row is later.
        frame: As `rows_since` returned it.
        models: Who answers.

    Returns:
        None if no row came after the first promotion.
    """
    time = frame[pipeline.time]
    parts = [(one, frame[(time >= one.start) & (time < one.end)]) for one in windows(trained, until)]
    parts = [(window, rows) for window, rows in parts if not rows.empty]  # none are, right after a training
    if not parts:
        return None
    rows = pd.concat([rows for _, rows in parts])
    task, column = pipeline.label.task, rows[pipeline.label.column]
    used = [models.of(challenger) for window, _ in parts for challenger in window.models]
    known = dict.fromkeys(name for model in used for name in model.contract.classes)
    classes = extend_classes(task, tuple(known), column)
    found: list[list[np.ndarray]] = [[] for _ in LINES]
    for window, part in parts:
        for predictions, challenger in zip(found, window.models, strict=True):
            answers = models.answers(challenger, window, part)
            predictions.append(align_classes(answers, models.of(challenger).contract.classes, classes))
    at = rows[pipeline.time].dt.tz_localize(None).to_numpy()
    months, days = at.astype("datetime64[M]").astype(str), at.astype("datetime64[D]").astype("int64")
    by_line = dict(zip(LINES, map(np.concatenate, found), strict=True))
    return Followed(months, days, encode_label(task, classes, column), by_line)


def by_month(pipeline: Pipeline, followed: Followed | None) -> pd.DataFrame:
    """Returns each line's score, one row per month.

    Returns:
        Columns `month` (UTC, its first moment), `rows` and one per line; a score is NaN where the month's labels
        do not define the metric.
    """
    task, metric = pipeline.label.task, pipeline.metric
    rows = []
    for name in [] if followed is None else sorted(set(followed.month.tolist())):
        assert followed is not None
        chosen = followed.month == name
        label, answers = followed.label[chosen], (followed.answers[line][chosen] for line in LINES)
        scores = [score_or_nan(task, metric, label, answer) for answer in answers]
        rows.append((pd.Timestamp(name, tz="UTC"), int(chosen.sum()), *scores))
    return pd.DataFrame(rows, columns=["month", "rows", *LINES])


@dataclass(frozen=True)
class Mark:
    """What is marked on the champion's line.

    Attributes:
        months: Where, as `2013-04`.
        sign: matplotlib's marker.
    """

    told: str
    months: Collection[str]
    sign: str
    colour: str


def picture(scores: pd.DataFrame, metric: Metric, title: str, marks: Sequence[Mark], names: Sequence[str]) -> bytes:
    """Returns the lines as an SVG picture.

    Args:
        scores: As `by_month` returned it.
        metric: What they are scored by.
        title: Above the picture.
        marks: On the champion's line.
        names: What to call each line, in the order of LINES.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 4.2), layout="constrained")
    places = range(len(scores))
    for line, name, (colour, style, width) in zip(LINES, names, _STYLES, strict=True):
        axes.plot(places, scores[line], style, color=colour, lw=width, label=name, marker="o", markersize=4)
    for mark in marks:
        chosen = [place for place in places if f"{scores['month'].iloc[place]:%Y-%m}" in mark.months]
        heights = scores[LINES[0]].iloc[chosen]
        axes.plot(chosen, heights, mark.sign, color=mark.colour, markersize=9, ls="", label=mark.told, zorder=5)
    axes.set_xticks(list(places), [f"{month:%b %Y}" for month in scores["month"]], rotation=30, ha="right")
    axes.set_ylabel(metric + (" (lower is better)" if metric in LOWER_IS_BETTER else ""))
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=9, framealpha=0.9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg")
    plt.close(figure)
    return buffer.getvalue()


def windows(trained: Sequence[tuple[Challenger, bool]], until: datetime) -> list[Window]:
    """Returns the stretches of time with the models in force, from the first promotion on."""
    found = []
    champion = static = None
    ends = [*(challenger.as_of for challenger, _ in trained[1:]), until]
    for (challenger, promoted), end in zip(trained, ends, strict=True):
        if promoted:
            champion = challenger
            static = static or challenger
        if champion and static and end > challenger.as_of:
            found.append(Window(challenger.as_of, end, (champion, challenger, static)))
    return found
