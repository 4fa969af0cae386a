"""Alarms: the alerts that follow from findings, and what they do to what really answers."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from airworthy.alerts import Alert
from airworthy.config import Pipeline
from airworthy.errors import ModelError, ServiceError
from airworthy.ledger import Entry, Ledger
from airworthy.partitions import parse_key
from airworthy.retrains import Decision
from airworthy.stages.alarms import of_failure, of_gates, of_monitoring, of_question, respond, tell
from airworthy.stages.performance import Labels, record
from airworthy.stages.reconcile import reconcile
from airworthy.store import Store
from airworthy.verdict import Verdict
from serving_process import DEEPER, Server, promote, serving, trained
from test_deploy import profile_of
from toy_pipeline import Toy

NOW = datetime(2013, 6, 15, tzinfo=UTC)


def decision(cause: str) -> Decision:
    return Decision(
        pipeline="toy",
        sequence=1,
        at=NOW,
        key="",
        partition="2013-04-01",
        as_of=NOW,
        cause=cause,
        action="hold",
        reason="prediction is 0.54 from training; held back: it is early",
        version="3",
        champion="3",
        actor="run",
    )


def alert(kind: str, version: str = "") -> Alert:
    return Alert.model_validate(
        {
            "pipeline": "toy",
            "kind": kind,
            "severity": "critical",
            "subject": f"{kind} was noticed",
            "text": "",
            "incident": f"{kind} of version {version}",
            "version": version,
        }
    )


def labels(partition: str, known: int, due: datetime | None) -> Labels:
    return Labels(
        partition=partition,
        predicted=100,
        known=known,
        wrong_keys=2,
        contradicted=0,
        digest="",
        features=1,
        enough=0.8,
        due=due,
    )


def test_drift_and_decay_are_one_incident_as_long_as_the_champion_stays(toy: Toy) -> None:
    pipeline = toy.pipeline()
    drift, decay = of_monitoring(pipeline, decision("drift, decay, volume"), toy.profile)
    assert (drift.kind, drift.severity, drift.incident, drift.version) == (
        "drift",
        "warning",
        "drift of version 3",
        "3",
    )
    assert (decay.kind, decay.severity, decay.incident) == ("decay", "critical", "decay of version 3")
    assert drift.text == "prediction is 0.54 from training; held back: it is early"
    assert list(of_monitoring(pipeline, decision(""), toy.profile)) == []
    assert list(of_monitoring(pipeline, decision("volume"), toy.profile)) == []
    outlived = decision("drift").model_copy(update={"champion": "4"})
    assert list(of_monitoring(pipeline, outlived, toy.profile)) == []


def test_labels_that_stop_coming_are_one_incident_that_names_the_first_partition(toy: Toy) -> None:
    pipeline = toy.pipeline()
    store, due = Store(toy.profile.store_uri, toy.name), NOW - timedelta(days=1)
    for key, known, until in (
        ("2013-02-01", 90, due),
        ("2013-03-01", 10, due),
        ("2013-04-01", 0, due),
        ("2013-05-01", 0, NOW + timedelta(days=30)),
        ("2013-06-01", 0, None),
    ):
        record(store, parse_key("month", key), labels(key, known, until))
    (told,) = of_monitoring(pipeline, decision(""), toy.profile, NOW)
    assert (told.kind, told.incident) == ("labels", "labels since 2013-03-01")
    assert told.subject.endswith("labels of 2 partition(s) are overdue since 2013-03-01")
    assert told.text.splitlines() == [
        "2013-03-01: 10 of 100 labels are known, 2 have a key that was not predicted, due 2013-06-14 00:00",
        "2013-04-01: 0 of 100 labels are known, 2 have a key that was not predicted, due 2013-06-14 00:00",
    ]


@pytest.mark.parametrize(
    ("verdicts", "severity"),
    [
        ([{"status": "failed", "on_fail": "block"}], "warning"),
        ([{"status": "error", "on_fail": "warn"}], "critical"),
        ([{"status": "failed", "on_fail": "warn"}, {"status": "failed", "on_fail": "ask"}], None),
        ([], None),
    ],
)
def test_a_gate_that_stops_a_challenger_is_told(toy: Toy, verdicts: list[dict[str, Any]], severity: str | None) -> None:
    challenger: Any = SimpleNamespace(pipeline="toy", as_of=NOW, run_id="abc")
    judged = [Verdict(gate="slices", reason="JFK is worse", **one) for one in verdicts]
    told = list(of_gates(challenger, judged))
    assert [one.severity for one in told] == ([severity] if severity else [])
    if told:
        assert told[0].subject == "toy: slices stopped the challenger as of 2013-06-15"
        assert told[0].incident == "gates on run abc"


@pytest.mark.parametrize(
    ("kind", "error", "text"),
    [
        ("data", ServiceError("s3", "must answer"), "s3: must answer."),
        ("train", ServiceError("mlflow", "must answer"), "mlflow: must answer."),
        ("deploy", ModelError("deploy toy", "version 3 must go live"), "deploy toy: version 3 must go live."),
        ("approval", ValueError("nobody"), "ValueError: nobody"),
        ("data", None, "The task's log says why"),
    ],
)
def test_a_task_that_failed_for_good_is_told(toy: Toy, kind: str, error: Exception | None, text: str) -> None:
    told = of_failure(toy.pipeline(), kind, "2013-04-01", error)
    assert (told.text, told.incident) == (text, f"{kind} of 2013-04-01")


def test_a_question_is_told_and_responded_to_by_nobody_but_people(toy: Toy) -> None:
    Ledger(toy.profile.ledger_url).create()
    pipeline = toy.pipeline(alerts={"respond": {"approval": "stop_serving"}})
    asked = of_question(pipeline, "may it?", "approve of toy.train, run 1, try 1", [], "http://airflow/there", "2 days")
    channels = {"log": lambda alert: alert.text}
    text = "Who may edit its runs can answer within 2 days, silence means no: http://airflow/there"
    assert [(one.channel, one.told) for one in tell(pipeline, asked, toy.profile, channels)] == [("log", text)]
    silent = of_failure(pipeline, "approval", "run 1", None)
    assert [one.channel for one in tell(pipeline, silent, toy.profile, channels)] == ["log", "response"]


@pytest.fixture
def three(toy: Toy) -> Iterator[tuple[Pipeline, Server]]:
    """A pipeline whose third version answers."""
    Ledger(toy.profile.ledger_url).create()
    pipeline, entry = toy.pipeline(), None
    toy.fill(pipeline, toy.rows())
    wider = {"xgboost": {"params": {"max_depth": 2, "n_estimators": 30}}}
    for model in (pipeline.model_dump(mode="json")["model"], DEEPER, wider):
        entry = promote(toy, trained(toy, toy.pipeline(model=model)), entry)
    reconcile(toy.name, toy.profile)
    respond_with = {"drift": "roll_back", "data": {"fall_back": "1"}, "decay": "stop_serving", "labels": "roll_back"}
    pipeline = toy.pipeline(alerts={"respond": respond_with})
    with serving(toy) as server:
        server.wait(lambda: server.model(toy.name).get("version") == "3")
        yield pipeline, server


def test_responses_change_what_answers_and_only_for_the_version_they_are_about(
    toy: Toy, three: tuple[Pipeline, Server]
) -> None:
    pipeline, server = three
    profile = profile_of(toy, server)

    def champion() -> Entry | None:
        return Ledger(profile.ledger_url).champion(toy.name)

    assert respond(pipeline, alert("gates"), profile) == "nothing"
    assert respond(pipeline, alert("drift", "3"), profile) == "version 2 is champion instead of 3"
    assert server.model(toy.name)["version"] == "2"
    entry = champion()
    assert entry and (entry.actor, entry.reason) == ("alert: drift of version 3", "drift was noticed")
    assert respond(pipeline, alert("drift", "3"), profile) == "nothing, as version 2 is champion by now"
    once = "nothing, as an alert went back to version 2 already; people decide on going further"
    assert respond(pipeline, alert("labels"), profile) == respond(pipeline, alert("drift", "2"), profile) == once
    assert respond(pipeline, alert("data"), profile) == "version 1 is champion instead of 2"
    assert server.model(toy.name)["version"] == "1"
    assert respond(pipeline, alert("data"), profile) == "version 1 is champion instead of 2"  # and no further back
    assert respond(pipeline, alert("data", "1"), profile) == "version 1 is champion already"
    assert len(Ledger(profile.ledger_url).entries(toy.name)) == 5
    assert respond(pipeline, alert("decay", "1"), profile) == "version 1 is withdrawn; no model answers"
    server.wait(lambda: server.model(toy.name).get("version") is None)
    assert server.post({"dataframe_records": [{}]}, toy.name).status >= 400
    assert champion() is None and Ledger(profile.ledger_url).verify(toy.name)
    assert respond(pipeline, alert("decay", "1"), profile) == "nothing, as there is no champion"


def test_a_retrain_is_left_to_the_record_of_retrains(toy: Toy) -> None:
    pipeline = toy.pipeline(alerts={"respond": {"drift": "retrain"}}, retrain={"drift": []})
    assert respond(pipeline, alert("drift", "3"), toy.profile) == (
        f"left to the record of retrains: airworthy retrains {toy.name}"
    )
