from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from airworthy.config import Pipeline
from airworthy.errors import ConflictError, ModelError
from airworthy.evidence import Evidence
from airworthy.ledger import Entry, Ledger
from airworthy.model_files import LoadedModel
from airworthy.registry import Challenger, Registry
from airworthy.stages.evaluate import evaluate, judge, make_case, open_case
from airworthy.stages.train import train
from toy_pipeline import Toy

AS_OF = datetime(2013, 4, 1, tzinfo=UTC)
GATES = [
    {"metric_floor": {"metric": "roc_auc", "floor": 0.7}},
    {"beats_champion": {"margin": 0.005, "confidence": 0.9}},
    "servable",
]
WEAK = {"xgboost": {"params": {"max_depth": 1, "n_estimators": 1}}}


def crown(toy: Toy, challenger: Challenger, **changes: str) -> Entry:
    """Returns the ledger entry of a challenger made champion."""
    ledger = Ledger(toy.profile.ledger_url)
    ledger.create()
    fields = {"digest": challenger.digest, "model_id": challenger.model_id, **changes}
    version = Registry(toy.profile).register(challenger)
    return ledger.promote(
        pipeline=toy.name,
        version=version,
        run_id=challenger.run_id,
        as_of=challenger.as_of,
        expected=None,
        actor="test",
        evidence="",
        **fields,
    )


@pytest.fixture
def pipeline(toy: Toy) -> Pipeline:
    pipeline = toy.pipeline(gates=GATES)
    toy.fill(pipeline, toy.rows())
    return pipeline


def statuses(verdicts) -> dict[str, str]:
    return {verdict.gate: verdict.status for verdict in verdicts}


def test_a_first_challenger_is_scored_served_and_judged(toy: Toy, pipeline: Pipeline) -> None:
    challenger = train(pipeline, AS_OF, toy.profile)
    evaluation = evaluate(pipeline, challenger, None, toy.profile)
    assert evaluation.challenger_metrics == challenger.metrics
    assert (evaluation.champion, evaluation.champion_metrics) == (None, None)
    assert (evaluation.measured.requests, evaluation.measured.largest_difference) == (50, 0.0)
    assert evaluation.measured.error == ""
    verdicts = judge(pipeline, challenger, evaluation, toy.profile)
    assert statuses(verdicts) == {"metric_floor": "passed", "beats_champion": "passed", "servable": "passed"}
    registry = Registry(toy.profile)
    stored = registry.load_json(challenger.run_id, "verdicts.json")
    assert stored == [verdict.model_dump(mode="json") for verdict in verdicts]
    assert registry.load_json(challenger.run_id, "evaluation.json") == evaluation.model_dump(mode="json")


def test_a_better_challenger_beats_the_champion_and_a_worse_one_does_not(toy: Toy, pipeline: Pipeline) -> None:
    strong = train(pipeline, AS_OF, toy.profile)
    weakly_declared = toy.pipeline(gates=GATES, model=WEAK)
    weak = train(weakly_declared, AS_OF, toy.profile)
    champion = crown(toy, weak)
    evaluation = evaluate(pipeline, strong, champion, toy.profile)
    assert evaluation.champion == champion.version
    assert evaluation.champion_metrics == weak.metrics
    verdict = judge(pipeline, strong, evaluation, toy.profile)[1]
    assert verdict.passed
    assert verdict.evidence["gain"] == pytest.approx(strong.metrics["roc_auc"] - weak.metrics["roc_auc"])
    assert verdict.evidence["days"] == 30


def test_a_challenger_does_not_beat_itself(toy: Toy, pipeline: Pipeline) -> None:
    challenger = train(pipeline, AS_OF, toy.profile)
    evaluation = evaluate(pipeline, challenger, crown(toy, challenger), toy.profile)
    verdict = judge(pipeline, challenger, evaluation, toy.profile)[1]
    assert verdict.status == "failed"
    assert verdict.evidence["gain"] == 0.0


def test_judging_again_gives_the_same_verdicts(toy: Toy, pipeline: Pipeline) -> None:
    challenger = train(pipeline, AS_OF, toy.profile)
    evaluation = evaluate(pipeline, challenger, None, toy.profile)
    first = judge(pipeline, challenger, evaluation, toy.profile)
    assert judge(pipeline, challenger, evaluation, toy.profile) == first


def test_a_later_evaluation_leaves_the_evidence_of_an_earlier_one(toy: Toy, pipeline: Pipeline) -> None:
    challenger = train(pipeline, AS_OF, toy.profile)
    first = evaluate(pipeline, challenger, None, toy.profile)
    promoted_on = judge(pipeline, challenger, first, toy.profile)
    second = evaluate(pipeline, challenger, crown(toy, challenger), toy.profile)
    assert statuses(judge(pipeline, challenger, second, toy.profile))["beats_champion"] == "failed"
    assert judge(pipeline, challenger, first, toy.profile) == promoted_on
    registry = Registry(toy.profile)
    kept = registry.load_json(challenger.run_id, f"evidence/{first.evidence[:12]}/verdicts.json")
    assert kept == [verdict.model_dump(mode="json") for verdict in promoted_on]


def test_missing_evidence_is_an_error_of_every_gate(toy: Toy, pipeline: Pipeline) -> None:
    challenger = train(pipeline, AS_OF, toy.profile)
    evaluation = evaluate(pipeline, challenger, None, toy.profile).model_copy(update={"evidence": "0" * 64})
    verdicts = judge(pipeline, challenger, evaluation, toy.profile)
    assert statuses(verdicts) == dict.fromkeys(("metric_floor", "beats_champion", "servable"), "error")
    assert all(verdict.blocks for verdict in verdicts)


def test_evidence_that_was_changed_is_not_judged(toy: Toy, pipeline: Pipeline) -> None:
    challenger = train(pipeline, AS_OF, toy.profile)
    evaluation = evaluate(pipeline, challenger, None, toy.profile)
    name = f"evidence/{evaluation.evidence[:12]}/evidence.json"
    registry = Registry(toy.profile)
    content = json.loads(registry.load_artifact(challenger.run_id, name) or b"")
    content["challenger"]["metrics"]["roc_auc"] = 0.99
    registry.store_artifacts(challenger.run_id, {name: json.dumps(content).encode()})
    with pytest.raises(ConflictError, match="is not what evaluate stored"):
        judge(pipeline, challenger, evaluation, toy.profile)


def damage(toy: Toy, challenger: Challenger, folder: Path) -> None:
    """Leaves a model file on MLflow's server that is not the one that was trained."""
    file = folder / "model.ubj"
    file.write_bytes(b"not a model")
    MlflowClient(toy.mlflow_uri).log_model_artifact(challenger.model_id, str(file))


def test_a_challenger_whose_files_changed_is_not_scored(toy: Toy, pipeline: Pipeline, tmp_path: Path) -> None:
    challenger = train(pipeline, AS_OF, toy.profile)
    damage(toy, challenger, tmp_path)
    with pytest.raises(ModelError, match=r"model files: must have the recorded SHA-256.*The files changed"):
        evaluate(pipeline, challenger, None, toy.profile)


def test_a_champion_that_cannot_be_scored_blocks_and_says_why(toy: Toy, pipeline: Pipeline, tmp_path: Path) -> None:
    challenger = train(pipeline, AS_OF, toy.profile)
    weak = train(toy.pipeline(gates=GATES, model=WEAK), AS_OF, toy.profile)
    champion = crown(toy, weak)
    damage(toy, weak, tmp_path)
    evaluation = evaluate(pipeline, challenger, champion, toy.profile)
    assert (evaluation.champion, evaluation.champion_metrics) == (champion.version, None)
    verdict = judge(pipeline, challenger, evaluation, toy.profile)[1]
    assert verdict.status == "failed"
    assert "the champion could not be scored" in verdict.reason
    assert "must have the recorded SHA-256" in verdict.reason


def test_features_that_cannot_be_computed_for_one_row_are_not_servable(toy: Toy, pipeline: Pipeline) -> None:
    challenger = train(pipeline, AS_OF, toy.profile)
    module = toy.folder / "code" / "toy_features.py"
    module.write_text(module.read_text().replace("def features(frame):", "def features(frame):\n    frame['late']\n"))
    evaluation = evaluate(pipeline, challenger, None, toy.profile)
    verdict = judge(pipeline, challenger, evaluation, toy.profile)[2]
    assert verdict.status == "failed"
    assert "toy_features" in verdict.reason
    assert "late" in verdict.reason


class Answers:
    """A fitted model that is no good."""

    def __init__(self, answer) -> None:
        self.answer = answer

    def predict(self, values: np.ndarray) -> np.ndarray:
        return self.answer(values)


def made(toy: Toy, pipeline: Pipeline, challenger: Challenger, answer, champion: Entry | None = None) -> Evidence:
    """Returns what is gathered where the champion, or without one the challenger, answers otherwise."""
    with open_case(pipeline, challenger, champion, toy.profile) as case:
        broken = LoadedModel(case.own.folder, case.own.contract, pipeline, Answers(answer))
        models = (broken, None, None) if champion is None else (case.own, champion, broken)
        rest = {"measured": case.measured, "measured_champion": case.measured_champion, "budget": case.budget}
        return make_case(pipeline, challenger, *models, "", toy.profile, **rest).evidence


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_a_challenger_that_answers_no_numbers_is_not_scored(toy: Toy, broken: float) -> None:
    """Of NaN the likeliest class is the first one, which is right in most rows."""
    pipeline = toy.pipeline(label={"column": "band", "task": "multiclass"})
    rows = toy.rows().drop(columns="late")
    toy.fill(pipeline, rows.assign(band=np.where(rows["distance"] > 1, "late", "early")))
    challenger = train(pipeline, AS_OF, toy.profile)
    with pytest.raises(ModelError, match="the challenger: must answer finite numbers"):
        made(toy, pipeline, challenger, lambda values: np.full((len(values), 2), broken))
    found = made(toy, pipeline, challenger, lambda values: np.full((len(values), 2), broken), crown(toy, challenger))
    assert found.champion is None and found.champion_error.startswith("version 1: must answer finite numbers")


def test_a_champion_that_raises_anything_could_not_be_scored(toy: Toy, pipeline: Pipeline) -> None:
    challenger = train(pipeline, AS_OF, toy.profile)

    def fails(values: np.ndarray) -> np.ndarray:
        raise AttributeError("of another version")

    found = made(toy, pipeline, challenger, fails, crown(toy, challenger))
    assert (found.has_champion, found.champion) == (True, None)
    assert found.champion_error == "AttributeError: of another version"


def test_models_that_know_other_classes_are_compared_on_all_of_them(toy: Toy) -> None:
    changes = {"label": {"column": "band", "task": "multiclass"}, "gates": ["beats_champion"]}
    pipeline = toy.pipeline(**changes)
    rows = toy.rows().drop(columns="late")
    early, late = (rows["time"] < datetime(2013, 2, 1, tzinfo=UTC)), rows["distance"] > 0
    band = np.where(late, "late", "on time")
    band[(~early) & (rows["distance"] > 1)] = "very late"
    toy.fill(pipeline, rows.assign(band=band))
    first = train(pipeline, datetime(2013, 2, 20, tzinfo=UTC), toy.profile)
    second = train(pipeline, AS_OF, toy.profile)
    evaluation = evaluate(pipeline, second, crown(toy, first), toy.profile)
    assert evaluation.champion_metrics is not None
    assert evaluation.champion_metrics["accuracy"] < evaluation.challenger_metrics["accuracy"]
    (verdict,) = judge(pipeline, second, evaluation, toy.profile)
    assert verdict.passed
    assert verdict.reason.startswith("log_loss gain")
