"""The history of a pipeline: every training run with its verdicts, and what following them was worth."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from airworthy.config import Pipeline, load_pipeline
from airworthy.errors import ServiceError
from airworthy.evidence import LOWER_IS_BETTER
from airworthy.ledger import Entry, Ledger
from airworthy.lineage import lineages, tables
from airworthy.pages import Section, write_page
from airworthy.policies import POLICIES, scores_by_month
from airworthy.profile import Profile, load_profile, pipelines_dir
from airworthy.registry import Challenger, Registry
from airworthy.verdict import Verdict

_STYLES = (("#1f6feb", "-", 2.4), ("#d29922", "--", 1.6), ("#8b949e", ":", 1.8))  # in the order of POLICIES


@dataclass(frozen=True)
class Training:
    """One training run, the scores it was judged on, what came of it, and whether its data changed since."""

    challenger: Challenger
    challenger_score: float
    champion_score: float | None
    verdicts: tuple[Verdict, ...]
    promoted: Entry | None
    since: str

    @property
    def by_gate(self) -> dict[str, Verdict]:
        return {verdict.gate: verdict for verdict in self.verdicts}

    @property
    def result(self) -> str:
        if self.promoted:
            return f"promoted as version {self.promoted.version}"
        blocking = [verdict.gate for verdict in self.verdicts if verdict.blocks]
        return f"refused by {', '.join(blocking)}" if blocking else "not promoted"


@dataclass(frozen=True)
class History:
    """All trainings of a pipeline by `as_of`, and what each policy would have scored (`policies.scores_by_month`)."""

    pipeline: Pipeline
    trainings: list[Training]
    scores: pd.DataFrame

    @property
    def gates(self) -> tuple[str, ...]:
        """Returns every gate that judged, in order."""
        return tuple(dict.fromkeys(verdict.gate for training in self.trainings for verdict in training.verdicts))


def history(pipeline: Pipeline, profile: Profile) -> History:
    """Returns what happened to a pipeline so far.

    Raises:
        ServiceError: It was never trained and judged.
    """
    registry = Registry(profile)
    entries = {entry.run_id: entry for entry in Ledger(profile.ledger_url).standing(pipeline.name)}
    changed = {one.run.run_id: tables.since(one) for one in lineages(pipeline, profile, champions=False)}
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
                changed[challenger.run_id],
            )
        )
    if not trainings:
        raise ServiceError(pipeline.name, "has no judged training run yet", hint=f"Run {pipeline.name}.train")
    trainings.sort(key=lambda training: training.challenger.as_of)
    trained = [(training.challenger, training.promoted is not None) for training in trainings]
    return History(pipeline, trainings, scores_by_month(pipeline, trained, profile))


def picture(found: History) -> bytes:
    """Returns the three lines as an SVG picture, promotions and refusals marked."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 4.2), layout="constrained")
    months = range(len(found.scores))
    for policy, (colour, style, width) in zip(POLICIES, _STYLES, strict=True):
        axes.plot(months, found.scores[policy], style, color=colour, lw=width, label=policy, marker="o", markersize=4)
    promoted = {f"{t.challenger.as_of:%Y-%m}" for t in found.trainings if t.promoted}
    marked = [number for number, month in enumerate(found.scores["month"]) if f"{month:%Y-%m}" in promoted]
    new = found.scores["champion"].iloc[marked]
    axes.plot(marked, new, "^", color="#1a7f37", markersize=10, label="a new champion", zorder=5)
    axes.set_xticks(list(months), [f"{month:%b %Y}" for month in found.scores["month"]], rotation=30, ha="right")
    axes.set_ylabel(found.pipeline.metric + (" (lower is better)" if found.pipeline.metric in LOWER_IS_BETTER else ""))
    axes.set_title(f"{found.pipeline.name}: each month predicted by the model in force")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=9, framealpha=0.9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg")
    plt.close(figure)
    return buffer.getvalue()


def publish(found: History, profile: Profile) -> Path:
    """Returns the page `<pipeline>/history.html` below the profile's `reports_dir`, written whole."""
    metric = found.pipeline.metric
    gates = found.gates
    rows = [
        (
            f"{training.challenger.as_of:%Y-%m-%d}",
            f"{training.challenger_score:.4f}",
            "-" if training.champion_score is None else f"{training.champion_score:.4f}",
            *(f"{verdict.status}: {verdict.reason}" if verdict else "" for verdict in map(training.by_gate.get, gates)),
            training.result,
            training.since,
        )
        for training in found.trainings
    ]
    columns = ("as of", f"challenger {metric}", f"champion {metric}", *gates, "what happened", "data since")
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


def run(pipeline: str, environment: Mapping[str, str]) -> None:
    """Writes the history page of one pipeline and prints where it is.

    Args:
        environment: Where the services are.
    """
    profile = load_profile(environment)
    print(publish(history(load_pipeline(pipelines_dir() / f"{pipeline}.yaml"), profile), profile))
