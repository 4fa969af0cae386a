from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from mlflow import MlflowClient

from airworthy import card
from airworthy.card.markdown import markdown
from airworthy.card.plots import pictures
from airworthy.card.record import read
from airworthy.card.sections import sections
from airworthy.config import Pipeline
from airworthy.errors import ModelError
from airworthy.evidence import Evidence, Scores
from airworthy.ledger import Ledger
from airworthy.metrics import score_all
from airworthy.pages import Chart, Link, Section
from airworthy.registry import Registry
from airworthy.stages.evaluate import evaluate, judge
from airworthy.stages.train import train
from toy_pipeline import Toy

AS_OF = datetime(2013, 4, 1, tzinfo=UTC)
GATES = [{"metric_floor": {"metric": "roc_auc", "floor": 0.7}}, "beats_champion", "servable"]


@pytest.fixture
def pipeline(toy: Toy) -> Pipeline:
    Ledger(toy.profile.ledger_url).create()
    pipeline = toy.pipeline(gates=GATES, tune={"trials": 2, "space": {"max_depth": {"int": [1, 3]}}})
    toy.fill(pipeline, toy.rows())
    return pipeline


def promoted(toy: Toy, pipeline: Pipeline) -> tuple[str, str]:
    """Returns run and version of a challenger that was judged and made champion."""
    challenger = train(pipeline, AS_OF, toy.profile)
    evaluation = evaluate(pipeline, challenger, None, toy.profile)
    verdicts = judge(pipeline, challenger, evaluation, toy.profile)
    version = Registry(toy.profile).register(challenger, verdicts)
    Ledger(toy.profile.ledger_url).promote(
        pipeline=toy.name,
        version=version,
        model_id=challenger.model_id,
        run_id=challenger.run_id,
        digest=challenger.digest,
        as_of=AS_OF,
        expected=None,
        actor="somebody",
        evidence="",
    )
    return challenger.run_id, version


def test_a_card_tells_of_the_data_the_scores_the_gates_and_the_promotion(toy: Toy, pipeline: Pipeline) -> None:
    run_id, version = promoted(toy, pipeline)
    page = card.publish(pipeline, run_id, toy.profile).read_text()
    metrics = Registry(toy.profile).challenger(run_id).metrics
    assert f"{metrics['roc_auc']:.4f} [" in page
    for told in (
        "Toy flights",
        f"promoted as version {version}",
        "metric_floor",
        "there is no champion yet",
        "somebody",
    ):
        assert told in page
    for recorded in (Registry(toy.profile).challenger(run_id).digest, "2013-03-01 00:00", "carrier_name", "xgboost"):
        assert recorded in page


def test_a_card_is_kept_with_the_run_and_shown_with_the_version(toy: Toy, pipeline: Pipeline) -> None:
    run_id, version = promoted(toy, pipeline)
    page = card.run(pipeline, version, toy.profile)
    registry = Registry(toy.profile)
    assert registry.load_artifact(run_id, "card/card.html") == page.read_bytes()
    text = (registry.load_artifact(run_id, "card/card.md") or b"").decode()
    (picture,) = re.findall(r"!\[.*\]\((.*)\)", text)
    assert (registry.load_artifact(run_id, f"card/{picture}") or b"").startswith(b"<?xml")
    described = MlflowClient(toy.mlflow_uri).get_model_version(toy.name, version).description
    assert "## Gates" in described and "metric_floor" in described


def test_a_card_written_before_the_decision_says_so(toy: Toy) -> None:
    Ledger(toy.profile.ledger_url).create()
    pipeline = toy.pipeline(gates=[{"metric_floor": {"metric": "roc_auc", "floor": 1.0}}])
    toy.fill(pipeline, toy.rows())
    challenger = train(pipeline, AS_OF, toy.profile)
    with pytest.raises(ModelError, match="must be judged before it has a card"):
        card.publish(pipeline, challenger.run_id, toy.profile)
    judge(pipeline, challenger, evaluate(pipeline, challenger, None, toy.profile), toy.profile)
    assert "Result: refused by metric_floor." in card.publish(pipeline, challenger.run_id, toy.profile).read_text()


def test_a_version_that_does_not_exist_has_no_card(toy: Toy, pipeline: Pipeline) -> None:
    promoted(toy, pipeline)
    with pytest.raises(ModelError, match="version 99: must be in MLflow's registry"):
        card.run(pipeline, "99", toy.profile)


def test_whatever_a_gate_gathers_is_shown(toy: Toy, pipeline: Pipeline) -> None:
    run_id, _ = promoted(toy, pipeline)
    record = read(pipeline, run_id, toy.profile)
    declaration = pipeline.gates[0].declaration
    gathered = {
        declaration: {"groups": [{"name": "B6", "rate": 0.25}], "shares": {"wind": 0.5, "hour": 0.1}, "seen": 7}
    }
    found = {
        part.heading: part.table
        for part in sections(replace(record, evidence=replace(record.evidence, gathered=gathered)))
    }
    assert found["metric_floor: groups"] == (("name", "rate"), [("B6", 0.25)])
    assert found["metric_floor: shares"] == (("name", "value"), [("wind", 0.5), ("hour", 0.1)])
    assert ("seen", "7") in found["metric_floor: what it rests on"][1]


def test_what_stands_in_data_does_not_become_markup() -> None:
    hostile = "<img src=x onerror=alert(1)> | [a](http://b) `c`"
    rows = [(hostile, None, 0.123456789, Link("to", "x.html"), Chart("drawn", "<svg/>"))]
    text = markdown("T", [Section(heading="H", table=(("a", "b", "c", "d", "e"), rows))], {})
    (line,) = [line for line in text.splitlines() if "onerror" in line]
    assert len(re.findall(r"(?<!\\)\|", line)) == 6
    assert "\\<img" in line and "\\[a\\]" in line and "0.123457" in line


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
@pytest.mark.parametrize("with_champion", [True, False])
def test_every_task_has_its_pictures(task, with_champion: bool) -> None:
    rng = np.random.default_rng(0)
    label = {
        "binary": rng.integers(0, 2, 300),
        "multiclass": rng.integers(0, 3, 300),
        "regression": rng.normal(size=300),
    }

    def scores(version: str) -> Scores:
        prediction = rng.dirichlet([1, 1, 1], 300) if task == "multiclass" else rng.random(300)
        return Scores(version, prediction, score_all(task, label[task], prediction))

    evidence = Evidence(
        task=task,
        metric="accuracy",
        label=label[task],
        block=np.arange(300) // 30,
        challenger=scores(""),
        has_champion=with_champion,
        champion=scores("3") if with_champion else None,
        classes=("a", "b", "c") if task == "multiclass" else (),
    )
    drawn = pictures(evidence)
    assert drawn.startswith(b"<?xml") and len(drawn) < 1_000_000
    assert drawn == pictures(evidence)
