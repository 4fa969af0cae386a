"""What a model card tells of: everything a training run, its judgement and the ledger have on record."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from airworthy.config import Pipeline
from airworthy.errors import ModelError
from airworthy.evidence import Evidence
from airworthy.ledger import Entry, Ledger
from airworthy.model_files import CONTRACT, Contract
from airworthy.profile import Profile
from airworthy.registry import Challenger, Registry
from airworthy.stages.approvals import Answer
from airworthy.stages.approvals import on_record as approvals_on
from airworthy.stages.evaluate import EVALUATION, VERDICTS, Evaluation, evidence_folder
from airworthy.stages.evidence_files import EVIDENCE, HOLDOUT, from_files
from airworthy.training_runs import TrainingRun, TrainingRuns
from airworthy.verdict import Verdict


@dataclass(frozen=True)
class Record:
    """One judged training run.

    Attributes:
        version: Its version in the registry; "" if it has none.
        entries: What the ledger says of it, oldest first.
        stands: Whether its promotion does: no rollback took it back.
        environment: Python's version and the libraries' at training.
        trials: A row per trial of the search.
    """

    pipeline: Pipeline
    challenger: Challenger
    contract: Contract
    evaluation: Evaluation
    evidence: Evidence
    verdicts: Sequence[Verdict]
    approvals: Sequence[Answer]
    version: str
    entries: Sequence[Entry]
    stands: bool
    run: TrainingRun
    environment: Mapping[str, str]
    trials: Sequence[Mapping[str, Any]]

    @property
    def result(self) -> str:
        """What came of it, in a few words."""
        promoted = next((entry for entry in self.entries if entry.promotes), None)
        if promoted and not self.stands:
            return f"promoted as version {self.version} on {promoted.at:%Y-%m-%d %H:%M} UTC, and rolled back from"
        if promoted:
            instead = f" in place of version {promoted.expected}" if promoted.expected else ""
            return f"promoted as version {self.version}{instead} on {promoted.at:%Y-%m-%d %H:%M} UTC"
        if blocking := [verdict.gate for verdict in self.verdicts if verdict.blocks]:
            return f"refused by {', '.join(blocking)}"
        if rejected := [one.name for one in self.approvals if not one.approved]:
            return f"rejected by {', '.join(rejected)}"
        if asking := [verdict.gate for verdict in self.verdicts if verdict.asks]:
            return f"waits for approval: {', '.join(asking)}"
        return "passed its gates; not promoted"


def read(pipeline: Pipeline, run_id: str, profile: Profile) -> Record:
    """Returns what is on record about a judged training run.

    Raises:
        ModelError: It was not judged yet.
        ServiceError: MLflow or the ledger does not answer.
    """
    registry, ledger = Registry(profile), Ledger(profile.ledger_url)
    challenger = registry.challenger(run_id)
    recorded = registry.load_artifact(run_id, EVALUATION)
    if recorded is None:
        raise ModelError(f"run {run_id}", "must be judged before it has a card", hint="Run evaluate and gates")
    evaluation = Evaluation.model_validate_json(recorded)
    folder = evidence_folder(evaluation.evidence)
    names = (EVIDENCE, HOLDOUT, VERDICTS)
    files = {name: registry.load_artifact(run_id, f"{folder}/{name}") for name in names}
    stored = {name: content for name, content in files.items() if content is not None}
    if missing := sorted(set(names) - set(stored)):
        raise ModelError(f"run {run_id}: {folder}", f"must hold {', '.join(missing)}", hint="Run evaluate and gates")
    (run,) = TrainingRuns(profile).of(pipeline.name, run_id)
    return Record(
        pipeline=pipeline,
        challenger=challenger,
        contract=Contract.model_validate_json(registry.model_file(challenger.model_id, CONTRACT)),
        evaluation=evaluation,
        evidence=from_files(stored),
        verdicts=TypeAdapter(list[Verdict]).validate_json(stored[VERDICTS]),
        approvals=approvals_on(evaluation, registry),
        version=next(iter(run.versions), ""),
        entries=[one for one in ledger.entries(pipeline.name) if one.run_id == run_id],
        stands=any(one.run_id == run_id for one in ledger.standing(pipeline.name)),
        run=run,
        environment=registry.load_json(run_id, "environment.json") or {},
        trials=_rows(registry.load_json(run_id, "trials.json")),
    )


def _rows(table: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    return [dict(zip(table["columns"], row, strict=True)) for row in table["data"]] if table else []


def numbers_of(record: Record, verdict: Verdict) -> dict[str, Any]:
    """Returns what a gate gathered and what its verdict rests on, by name."""
    gathered = {
        name: value
        for declaration, found in record.evidence.gathered.items()
        if next(iter(json.loads(declaration))) == verdict.gate
        for name, value in found.items()
    }
    return gathered | verdict.evidence
