"""Alerts reach a real chat's webhook and a real mail server, through Airflow's notifiers and connections."""

from __future__ import annotations

import json
import socketserver
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email import message_from_string
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import Connection
from airflow.sdk.exceptions import AirflowFailException

from airworthy.alerts import Alert
from airworthy.alerts.incidents import Incidents
from airworthy.config import Pipeline, load_pipeline
from airworthy.errors import ConfigError
from airworthy.profile import ROOT
from airworthy.stages.alarms import of_failure
from airworthy_airflow import notifiers
from airworthy_airflow.notifiers import FailureNotifier, address, tell
from airworthy_airflow.operators import DeployOperator, EvaluateOperator, IngestOperator, ScoreOperator, TrainOperator
from webhook_server import Chat, chat_server


class _Mailbox(socketserver.StreamRequestHandler):
    """As much of SMTP as a client needs that sends one message."""

    def handle(self) -> None:
        self.wfile.write(b"220 ready\r\n")
        while line := self.rfile.readline():
            word = line[:4].upper()
            if word == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                content = b"".join(iter(self.rfile.readline, b".\r\n"))
                self.server.mails.append(content.decode())  # type: ignore[attr-defined]
            self.wfile.write(b"221 bye\r\n" if word == b"QUIT" else b"250 ok\r\n")
            if word == b"QUIT":
                return


@contextmanager
def mail_server() -> Iterator[tuple[int, list[str]]]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Mailbox) as server:
        server.mails = []  # type: ignore[attr-defined]
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1], server.mails  # type: ignore[attr-defined]
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def chat() -> Iterator[Chat]:
    with chat_server() as found:
        yield found


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The ledger of these alerts."""
    found = f"sqlite:///{tmp_path}/ledger.db"
    monkeypatch.setattr(notifiers, "load_profile", lambda: SimpleNamespace(ledger_url=found))
    return found


def declared(**alerts: Any) -> Pipeline:
    found = load_pipeline(ROOT / "config" / "pipelines" / "flight_delays.yaml")
    return Pipeline.model_validate({**found.model_dump(mode="json"), "alerts": alerts})


def context(run_type: str = "scheduled", **more: Any) -> dict[str, Any]:
    return {"run_id": "run 1", "params": {}, "dag_run": SimpleNamespace(run_type=run_type), **more}


def alert(**changes: Any) -> Alert:
    fields = {
        "pipeline": "flight_delays",
        "kind": "labels",
        "severity": "warning",
        "subject": "labels are overdue",
        "text": "2013-03-01: 10 of 100 <b>labels</b> are known",
        "incident": "labels since 2013-03-01",
    }
    return Alert.model_validate({**fields, **changes})


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            {"conn_type": "slackwebhook", "password": "https://hooks.x.io/services/T0/B0/s"},
            "https://hooks.x.io/services/T0/B0/s",
        ),
        (
            {"conn_type": "slackwebhook", "host": "https://hooks.x.io/services", "password": "T0/B0/s"},
            "https://hooks.x.io/services/T0/B0/s",
        ),
        (
            {"conn_type": "http", "host": "chat.local", "schema": "https", "port": 8443, "password": "hooks/s"},
            "https://chat.local:8443/hooks/s",
        ),
        ({"uri": "https://chat.local/hooks/s"}, "https://chat.local/hooks/s"),
        ({"uri": "http://chat.local:8065/hooks/s"}, "http://chat.local:8065/hooks/s"),
    ],
    ids=str,
)
def test_a_connection_holds_the_address(fields: dict[str, Any], expected: str) -> None:
    found = Connection.from_uri(fields["uri"], "chat") if "uri" in fields else Connection(conn_id="chat", **fields)
    assert address(found) == expected


def test_a_connection_without_an_address_is_told() -> None:
    with pytest.raises(ConfigError, match="connection chat: must hold an address"):
        address(Connection(conn_id="chat", conn_type="http"))


def test_an_incident_reaches_chat_and_mail_once(chat: Chat, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_OPS_CHAT", chat.url)
    with mail_server() as (port, mails):
        extra = {"disable_ssl": True, "disable_tls": True, "from_email": "airworthy@example.com"}
        smtp = {"conn_type": "smtp", "host": "127.0.0.1", "port": port, "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", json.dumps(smtp))
        pipeline = declared(webhook={"connection": "ops_chat"}, email={"to": ["ops@example.com"]})
        for _ in range(2):
            tell(pipeline, alert(), context())
    assert [posted["text"] for _, posted in chat.posted] == ["labels are overdue"]
    (mail,) = map(message_from_string, mails)
    assert (mail["Subject"], mail["To"]) == ("labels are overdue", "ops@example.com")
    assert "&lt;b&gt;labels" in str(mail.get_payload()[0].get_payload(decode=True).decode())  # type: ignore[union-attr, index]
    found = Incidents(url).told("flight_delays")
    assert {(one.channel, one.status) for one in found} == {("log", "done"), ("webhook", "done"), ("email", "done")}


def test_a_channel_that_is_not_there_fails_no_task(url: str, caplog: pytest.LogCaptureFixture) -> None:
    tell(declared(webhook={"connection": "nowhere"}), alert(), context())
    found = {one.channel: one for one in Incidents(url).told("flight_delays")}
    assert (found["webhook"].status, found["log"].status) == ("failed", "done")
    assert "nowhere" in found["webhook"].told


def test_nothing_is_told_in_a_backfill_without_alerts_or_of_other_kinds(url: str) -> None:
    tell(declared(), alert(), context("backfill"))
    tell(declared(on=["drift"]), alert(), context())
    tell(load_pipeline(ROOT / "config" / "pipelines" / "flight_delays.yaml"), alert(), context())
    assert Incidents(url).told("flight_delays") == []


def test_a_ledger_that_is_down_leaves_the_alert_in_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    down = SimpleNamespace(ledger_url="postgresql+psycopg2://nobody@127.0.0.1:1/none")
    monkeypatch.setattr(notifiers, "load_profile", lambda: down)
    tell(declared(), alert(), context())
    assert "ALERT labels are overdue" in caplog.text and "must answer" in caplog.text


def test_tasks_tell_when_they_fail_for_good(url: str) -> None:
    pipeline = declared()
    kinds = {
        IngestOperator(task_id="ingest", pipeline=pipeline): "data",
        ScoreOperator(task_id="score", pipeline=pipeline): "data",
        TrainOperator(task_id="train", pipeline=pipeline): "train",
        EvaluateOperator(task_id="evaluate", pipeline=pipeline, challenger=None): "train",
        DeployOperator(task_id="deploy", pipeline=pipeline, challenger=None, evaluation=None, verdicts=[]): "deploy",
    }
    for task, kind in kinds.items():
        (callback,) = task.on_failure_callback
        assert isinstance(callback, FailureNotifier) and callback.kind == kind
    silent = load_pipeline(ROOT / "config" / "pipelines" / "flight_delays.yaml")
    assert not IngestOperator(task_id="ingest", pipeline=silent).on_failure_callback
    FailureNotifier(pipeline, "data")(context(params={"partition": "2013-03-04"}, exception=ValueError("no rows")))
    failed = AirflowFailException("raw[2013-03-11]: must hold rows.")
    FailureNotifier(pipeline, "data")(context(params={"partition": "2013-03-11"}, exception=failed))
    begin, end = datetime(2013, 1, 7, tzinfo=UTC), datetime(2013, 12, 30, tzinfo=UTC)
    batch = {"data_interval_start": begin, "data_interval_end": end}
    FailureNotifier(pipeline, "data")(context(exception=ValueError("no rows"), **batch))
    for _ in range(2):
        FailureNotifier(pipeline, "train")(context(exception=ValueError("no memory")))
    told, other, many, training = Incidents(url).told("flight_delays")
    assert (training.incident, training.text) == ("train of run 1", "ValueError: no memory")
    assert training.subject == "flight_delays: a training failed: run 1"
    assert (told.incident, told.text) == ("data of 2013-03-04", "ValueError: no rows")
    assert (other.incident, other.text) == ("data of 2013-03-11", "raw[2013-03-11]: must hold rows.")
    assert many.incident == "data of 2013-01-07 to 2013-12-23 (51)"
    assert told.subject == of_failure(pipeline, "data", "2013-03-04", None).subject
