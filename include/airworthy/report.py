"""The history of a pipeline: every training run with its verdicts, and what following them was worth."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import pandas as pd

from airworthy.config import Pipeline, load_pipeline
from airworthy.errors import ServiceError
from airworthy.evidence import LOWER_IS_BETTER
from airworthy.ledger import Entry, Ledger
from airworthy.metrics import score
from airworthy.model_files import LoadedModel, load_model
from airworthy.pages import Section, write_page
from airworthy.profile import Profile, load_profile, pipelines_dir
from airworthy.registry import Challenger, Registry
from airworthy.store import Store
from airworthy.verdict import Verdict

LINES = ("champion", "blind retraining", "static")


@dataclass(frozen=True)
class Training:
    """One training run, the scores it was judged on, and what came of it."""

    challenger: Challenger
    challenger_score: float
    champion_score: float | None
    verdicts: tuple[Verdict, ...]
    promoted: Entry | None

    @property
    def result(self) -> str:
        if self.promoted:
            return f"promoted as version {self.promoted.version}"
        blocking = [verdict.gate for verdict in self.verdicts if verdict.blocks]
        return f"refused by {', '.join(blocking)}" if blocking else "not promoted"


@dataclass
class History:
    """All trainings of a pipeline by `as_of`, and the score of three policies over time.

    Attributes:
        lines: One row per window `[as_of, next as_of)`, with a column for each of `LINES`: the champion
            in force, the newest challenger whatever the gates said, and the first champion for ever.
    """

    pipeline: Pipeline
    trainings: list[Training]
    lines: pd.DataFrame = field(default_factory=pd.DataFrame)


def history(pipeline: Pipeline, profile: Profile) -> History:
    """Returns what happened to a pipeline so far.

    Raises:
        ServiceError: It was never trained and judged.
    """
    registry = Registry(profile)
    entries = {entry.run_id: entry for entry in Ledger(profile.ledger_url).entries(pipeline.name) if entry.promotes}
    trainings = []
    for challenger in registry.trainings(pipeline.name):
        judged = registry.load_json(challenger.run_id, "verdicts.json")
        evaluation = registry.load_json(challenger.run_id, "evaluation.json")
        if judged is None or evaluation is None:
            continue
        champion = evaluation["champion_metrics"]
        trainings.append(
            Training(
                challenger,
                evaluation["challenger_metrics"][pipeline.metric],
                champion[pipeline.metric] if champion else None,
                tuple(Verdict.model_validate(verdict) for verdict in judged),
                entries.get(challenger.run_id),
            )
        )
    if not trainings:
        raise ServiceError(pipeline.name, "has no judged training run yet", hint=f"Run {pipeline.name}.train")
    trainings.sort(key=lambda training: training.challenger.as_of)
    return History(pipeline, trainings, _lines(pipeline, trainings, registry, profile))


def _lines(pipeline: Pipeline, trainings: Sequence[Training], registry: Registry, profile: Profile) -> pd.DataFrame:
    store = Store(profile.store_uri, pipeline.name)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        models: dict[str, LoadedModel] = {}

        def model(training: Training) -> LoadedModel:
            challenger = training.challenger
            if challenger.model_id not in models:
                files = registry.download(challenger.model_id, Path(folder) / challenger.model_id)
                models[challenger.model_id] = load_model(files, digest=challenger.digest, pipeline=pipeline)
            return models[challenger.model_id]

        for start, end, policies in _windows(trainings):
            frame = store.read("features", between=(start, end), time=pipeline.time)
            frame = frame[frame[pipeline.label.column].notna()]
            row: dict[str, object] = {"from": start, "rows": len(frame)}
            scores: dict[str, float] = {}
            for line, training in zip(LINES, policies, strict=True):
                loaded = model(training)
                if loaded is not None and training.challenger.model_id not in scores:
                    label = loaded.encode_label(frame[pipeline.label.column])
                    predicted = loaded.predict(frame)
                    scores[training.challenger.model_id] = score(pipeline.label.task, pipeline.metric, label, predicted)
                row[line] = scores[training.challenger.model_id]
            rows.append(row)
    return pd.DataFrame(rows, columns=["from", "rows", *LINES])


def _windows(trainings: Sequence[Training]) -> Iterator[tuple[datetime, datetime, tuple[Training, Training, Training]]]:
    """Yields each window with the trainings whose models the three policies would use in it."""
    champion = static = None
    for training, following in pairwise(trainings):
        if training.promoted:
            champion = training
            static = static or training
        if champion and static and following.challenger.as_of > training.challenger.as_of:
            yield training.challenger.as_of, following.challenger.as_of, (champion, training, static)


def picture(found: History) -> bytes:
    """Returns the three lines as an SVG picture, promotions and refusals marked."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 4.2), layout="constrained")
    styles = {
        "champion": ("#1f6feb", "-", 2.4),
        "blind retraining": ("#d29922", "--", 1.6),
        "static": ("#8b949e", ":", 1.8),
    }
    positions = range(len(found.lines))
    for line, (colour, style, width) in styles.items():
        axes.plot(
            positions, found.lines[line], style, color=colour, linewidth=width, label=line, marker="o", markersize=4
        )
    promoted = {t.challenger.as_of for t in found.trainings if t.promoted}
    marked = [i for i, start in enumerate(found.lines["from"]) if start.to_pydatetime() in promoted]
    if marked:
        axes.plot(
            marked,
            found.lines["champion"].iloc[marked],
            "^",
            color="#1a7f37",
            markersize=10,
            label="a new champion",
            zorder=5,
        )
    axes.set_xticks(list(positions), [f"{start:%b %Y}" for start in found.lines["from"]], rotation=30, ha="right")
    axes.set_ylabel(found.pipeline.metric + (" (lower is better)" if found.pipeline.metric in LOWER_IS_BETTER else ""))
    axes.set_title(f"{found.pipeline.name}: scored on the time after each training run")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, ncols=4, fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg")
    plt.close(figure)
    return buffer.getvalue()


def publish(found: History, profile: Profile) -> Path:
    """Returns the page `<pipeline>/history.html` below the profile's `reports_dir`, written whole."""
    metric = found.pipeline.metric
    rows = [
        (
            f"{training.challenger.as_of:%Y-%m-%d}",
            f"{training.challenger_score:.4f}",
            "-" if training.champion_score is None else f"{training.champion_score:.4f}",
            "; ".join(f"{verdict.gate} {verdict.status}: {verdict.reason}" for verdict in training.verdicts),
            training.result,
        )
        for training in found.trainings
    ]
    columns = ("as of", f"challenger {metric}", f"champion {metric}", "verdicts", "what happened")
    file = profile.reports_dir / found.pipeline.name / "history.html"
    write_page(
        file,
        f"{found.pipeline.name}: history",
        [
            Section(heading="Score over time", picture=picture(found).decode()),
            Section(heading="Every training run", table=(columns, rows)),
        ],
    )
    return file


def run(pipeline: str) -> None:
    """Writes the history page of one pipeline and prints where it is."""
    profile = load_profile()
    print(publish(history(load_pipeline(pipelines_dir() / f"{pipeline}.yaml"), profile), profile))
