"""What operators and DAGs do that needs no scheduler to be seen."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from airworthy.config import Pipeline, load_pipeline
from airworthy.evidence import Measured
from airworthy.profile import ROOT
from airworthy.stages import evaluate
from airworthy.verdict import Verdict
from airworthy_airflow.declared import pipeline_dag
from airworthy_airflow.operators.model import GateOperator


@pytest.fixture
def pipeline() -> Pipeline:
    return load_pipeline(ROOT / "config" / "pipelines" / "flight_delays.yaml")


def test_a_gate_that_cannot_judge_fails_a_live_run_and_no_backtest(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    verdict = Verdict(gate="slices", status="error", reason="it crashed")
    monkeypatch.setattr(evaluate, "judge", lambda *_: [verdict])
    monkeypatch.setattr(GateOperator, "challenger_of_run", lambda self: SimpleNamespace(run_id="a"))
    monkeypatch.setattr(GateOperator, "_write_card", lambda self, run_id: None)
    monkeypatch.setattr(GateOperator, "profile", None)
    evaluation = evaluate.Evaluation(
        run_id="a",
        champion=None,
        challenger_metrics={},
        champion_metrics=None,
        measured=Measured(requests=0, largest_difference=0.0, seconds=0.0),
        evidence="",
    )
    gates = GateOperator(task_id="gates", pipeline=pipeline, challenger=None, evaluation=evaluation.model_dump())

    def judged(run_type: str) -> Any:
        context = {"params": {}, "dag_run": SimpleNamespace(run_type=run_type)}
        return GateOperator.execute.__wrapped__(gates, context)

    with pytest.raises(AirflowFailException, match=r"1 gate\(s\) could not judge, which blocks: slices: it crashed"):
        judged("scheduled")
    assert judged("backfill") == [verdict.model_dump(mode="json")]


@pytest.mark.parametrize(("part", "ends"), [("ingest", True), ("train", True), ("rollback", False), ("rebuild", False)])
def test_a_champion_is_looked_after_when_its_pipeline_has_ended(pipeline: Pipeline, part: Any, ends: bool) -> None:
    assert pipeline.end is not None
    assert pipeline_dag(pipeline, part, schedule=None).end_date == (pipeline.end if ends else None)
