"""The gates, asked again at every date of a backtest: which challenger would have become champion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import pandas as pd

from airworthy.backtest.results import Result
from airworthy.budget import Budget, ReplayBudget
from airworthy.config import Pipeline
from airworthy.gates import gather_all, judge_all
from airworthy.ledger import Entry
from airworthy.lines import Models
from airworthy.profile import Profile
from airworthy.registry import Challenger
from airworthy.stages.evaluate import make_case
from airworthy.verdict import Verdict


@dataclass(frozen=True)
class Decision:
    """What the gates said at one date, and what came after.

    Attributes:
        window: `[start, end)` of the rows the challenger was trained on.
        champion: Whom it was judged against; None if nothing had been promoted yet.
        verdicts: One per gate. One that asks is taken for approved, as nobody can be asked.
        scored: What the table `backtests` has of this training.
    """

    challenger: Challenger
    window: tuple[datetime, datetime]
    challenger_score: float
    champion: Challenger | None
    champion_score: float | None
    verdicts: tuple[Verdict, ...]
    scored: pd.DataFrame

    @property
    def promoted(self) -> bool:
        return not any(verdict.blocks for verdict in self.verdicts)

    @property
    def result(self) -> str:
        if self.promoted:
            asked = [verdict.gate for verdict in self.verdicts if verdict.asks]
            return f"promoted, had {', '.join(asked)} been answered yes" if asked else "promoted"
        return f"refused by {', '.join(verdict.gate for verdict in self.verdicts if verdict.blocks)}"


def replay(pipeline: Pipeline, runs: Sequence[Result], models: Models, profile: Profile) -> list[Decision]:
    """Returns what the gates decide at every date, knowing nothing that came after it.

    A challenger meets the champion that the decisions before it have made, on its own holdout. What a gate gathers
    without looking at the champion is taken from the record of the run. The error budget is the replay's own.

    Args:
        pipeline: As the policy has it.
        runs: By `as_of`.
        models: Who answers.
        profile: Where the tables are.
    """
    decisions: list[Decision] = []
    champion: Result | None = None
    budget = ReplayBudget()
    for run in runs:
        decisions.append(_decide(pipeline, run, champion, models, budget, profile))
        if decisions[-1].promoted:
            champion = run
    return decisions


def _decide(
    pipeline: Pipeline, run: Result, champion: Result | None, models: Models, budget: Budget, profile: Profile
) -> Decision:
    challenger, own = run.challenger, models.of(run.challenger)
    case = make_case(
        pipeline,
        challenger,
        own,
        _entry(champion.challenger) if champion else None,
        models.of(champion.challenger) if champion else None,
        "",
        profile,
        measured=lambda: run.measured,
        measured_champion=lambda: champion.measured if champion else None,
        budget=budget,
    )
    evidence = gather_all(pipeline.gates, case, known=run.gathered)
    return Decision(
        challenger=challenger,
        window=own.contract.window,
        challenger_score=evidence.challenger.metrics[pipeline.metric],
        champion=champion.challenger if champion else None,
        champion_score=evidence.champion.metrics[pipeline.metric] if evidence.champion else None,
        verdicts=tuple(judge_all(pipeline.gates, evidence)),
        scored=run.scored,
    )


def _entry(champion: Challenger) -> Entry:
    """Returns the line that the ledger would have, had this been no backtest."""
    return Entry(
        pipeline=champion.pipeline,
        sequence=1,
        at=champion.as_of,
        action="promote",
        version=f"{champion.as_of:%Y-%m-%d}",
        model_id=champion.model_id,
        run_id=champion.run_id,
        digest=champion.digest,
        as_of=champion.as_of,
        expected=None,
        actor="backtest",
        evidence="",
        previous_hash="",
    )
