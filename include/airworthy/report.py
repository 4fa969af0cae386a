"""The history of a pipeline: every training run with its verdicts, and what following them was worth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from airworthy import lines, resource_log, retrains
from airworthy.card import page_path
from airworthy.config import Pipeline, load_pipeline
from airworthy.errors import ServiceError
from airworthy.ledger import Entry, Ledger
from airworthy.lineage import lineages, tables
from airworthy.pages import Link, Section, write_page
from airworthy.profile import Profile, load_profile, pipelines_dir
from airworthy.registry import Challenger, Registry
from airworthy.verdict import Verdict


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
    def passed(self) -> str:
        return f"{sum(verdict.passed for verdict in self.verdicts)} of {len(self.verdicts)}"

    @property
    def reasons(self) -> str:
        """Why a gate did not pass, one after the other."""
        return "; ".join(f"{verdict.gate}: {verdict.reason}" for verdict in self.verdicts if not verdict.passed)

    @property
    def result(self) -> str:
        if self.promoted:
            return f"promoted as version {self.promoted.version}"
        blocking = [verdict.gate for verdict in self.verdicts if verdict.blocks]
        if blocking:
            return f"refused by {', '.join(blocking)}"
        return "not approved" if any(verdict.asks for verdict in self.verdicts) else "not promoted"


@dataclass(frozen=True)
class History:
    """All trainings of a pipeline by `as_of`, and what each policy would have scored (`lines.scores_by_month`)."""

    pipeline: Pipeline
    trainings: list[Training]
    scores: pd.DataFrame


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
    return History(pipeline, trainings, lines.scores_by_month(pipeline, trained, profile))


def picture(found: History) -> bytes:
    """Returns the three lines as an SVG picture, promotions marked."""
    promoted = {f"{one.challenger.as_of:%Y-%m}" for one in found.trainings if one.promoted}
    title = f"{found.pipeline.name}: each month predicted by the model in force"
    marks = [lines.Mark("a new champion", promoted, "^", "#1a7f37")]
    return lines.picture(found.scores, found.pipeline.metric, title, marks, lines.LINES)


def publish(found: History, profile: Profile) -> Path:
    """Returns the page `<pipeline>/history.html` below the profile's `reports_dir`, written whole."""
    metric = found.pipeline.metric
    file = profile.reports_dir / found.pipeline.name / "history.html"
    rows = [
        (
            _with_card(found.pipeline, training, profile),
            f"{training.challenger_score:.4f}",
            "-" if training.champion_score is None else f"{training.champion_score:.4f}",
            training.passed,
            training.result,
            training.reasons,
            training.since,
        )
        for training in found.trainings
    ]
    decisions = retrains.Retrains(profile.ledger_url).decisions(found.pipeline.name)
    asked = retrains.table([one for one in decisions if one.action != "quiet"])
    took = resource_log.ResourceLog(profile.ledger_url).last(found.pipeline.name)
    taken = (resource_log.HEAD, resource_log.table(took))
    columns = ("as of", f"challenger {metric}", f"champion {metric}", "passed", "what happened", "why", "data since")
    write_page(
        file,
        f"{found.pipeline.name}: history",
        [
            Section(heading="Score over time", picture=picture(found).decode()),
            Section(heading="Every training run", table=(columns, rows)),
            Section(heading="What asked for a retrain", table=(retrains.HEAD, asked)),
            Section(heading="What every stage took", table=taken, charts=resource_log.drawn(took)),
        ],
    )
    return file


def _with_card(pipeline: Pipeline, training: Training, profile: Profile) -> Link | str:
    told = f"{training.challenger.as_of:%Y-%m-%d}"
    page = page_path(pipeline, training.challenger.run_id)
    return Link(told, f"../{page}") if (profile.reports_dir / page).exists() else told


def run(pipeline: str, environment: Mapping[str, str]) -> None:
    """Writes the history page of one pipeline and prints where it is.

    Args:
        environment: Where the services are.
    """
    profile = load_profile(environment)
    print(publish(history(load_pipeline(pipelines_dir() / f"{pipeline}.yaml"), profile), profile))
