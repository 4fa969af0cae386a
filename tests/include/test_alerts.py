"""Alerts: what a file may declare, one message per incident, and a real chat's end of a webhook."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import ValidationError

from airworthy.alerts import KINDS, Alert, Alerts
from airworthy.alerts.incidents import Incidents
from airworthy.alerts.webhook import message, post
from airworthy.errors import ConfigError, ServiceError
from airworthy.explain import explain
from airworthy.strict_yaml import read_mapping
from webhook_server import Chat, chat_server

FITTING = ", ".join(kind for kind in KINDS if kind not in ("train", "gates", "deploy", "approval"))


def alert(**changes: Any) -> Alert:
    fields = {
        "pipeline": "toy",
        "kind": "drift",
        "severity": "warning",
        "subject": "toy: drift of version 3 in 2013-04-01",
        "text": "prediction is 0.54 from training",
        "incident": "drift of version 3",
        "version": "3",
    }
    return Alert.model_validate({**fields, **changes})


@pytest.fixture
def chat() -> Iterator[Chat]:
    with chat_server() as found:
        yield found


@pytest.fixture
def incidents(tmp_path: Path) -> Incidents:
    return Incidents(f"sqlite:///{tmp_path}/ledger.db")


def test_what_a_file_declares(tmp_path: Path) -> None:
    declared = Alerts.model_validate(
        {
            "webhook": {"connection": "ops_chat"},
            "email": {"to": ["ops@example.com"]},
            "respond": {"drift": "retrain", "decay": "roll_back", "data": "stop_serving", "deploy": {"fall_back": 3}},
        }
    )
    assert declared.on == KINDS
    assert declared.model_dump()["respond"]["deploy"] == {"fall_back": "3"}
    assert Alerts.model_validate(declared.model_dump(mode="json")) == declared


@pytest.mark.parametrize(
    ("declared", "told"),
    [
        ({"webhok": {}}, "alerts: webhok is not a known key. Check the spelling."),
        ({"webhook": {"connection": ""}}, "alerts: webhook.connection must not be empty. Got ''."),
        ({"email": {"to": []}}, "alerts: email.to must have at least 1 item(s). Got []."),
        ({"email": {"to": ["ops"]}}, r"alerts: email.to[0] must match ^[^@\s]+@[^@\s]+$. Got 'ops'."),
        ({"on": ["rain"]}, f"alerts: on[0] must be one of {', '.join(KINDS)}. Got 'rain'."),
        (
            {"respond": {"drift": "panic"}},
            "alerts: respond.drift must be retrain, roll_back, stop_serving or `fall_back: <version>`. Got 'panic'.",
        ),
        (
            {"respond": {"deploy": "roll_back"}},
            f"alerts: respond.deploy must not be roll_back, which mends {', '.join(k for k in FITTING.split(', '))}. "
            "Got 'roll_back'.",
        ),
        (
            {"respond": {"labels": "retrain"}},
            "alerts: respond.labels must not be retrain, which mends drift, decay. Got 'retrain'.",
        ),
        (
            {"on": ["drift"], "respond": {"decay": "roll_back"}},
            "alerts: respond.decay must be about one of drift, which `on` names. Got 'decay'.",
        ),
    ],
    ids=str,
)
def test_a_mistake_is_told_when_the_file_is_read(declared: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError) as raised:
        Alerts.model_validate(declared)
    assert [str(one) for one in explain("alerts", raised.value)] == [told]


@pytest.mark.parametrize("version", ["latest", "0", -1])
def test_a_version_to_fall_back_to_is_a_number(version: Any) -> None:
    with pytest.raises(ValidationError):
        Alerts.model_validate({"respond": {"drift": {"fall_back": version}}})


def test_a_chat_gets_the_message_in_slacks_form(chat: Chat) -> None:
    assert post(chat.url, alert(text="carrier <!channel> & co")) == "200 ok"
    ((path, posted),) = chat.posted
    assert path == "/services/T0/B0/secret"
    assert posted["text"] == "toy: drift of version 3 in 2013-04-01"
    assert [block["type"] for block in posted["blocks"]] == ["section", "section", "context"]
    assert posted["blocks"][1]["text"] == {"type": "mrkdwn", "text": "carrier &lt;!channel&gt; &amp; co"}
    assert "drift of version 3" in json.dumps(posted["blocks"][2])


def test_a_long_text_is_cut_to_what_a_chat_takes() -> None:
    assert len(message(alert(text="x" * 9_999))["blocks"][1]["text"]["text"]) == 2_900


def test_a_chat_that_refuses_or_is_down_is_named_without_its_secret(chat: Chat) -> None:
    chat.status = 404
    with pytest.raises(ServiceError, match=r"webhook at 127.0.0.1: must take the message. Got '404 Not Found'") as told:
        post(chat.url, alert())
    assert "secret" not in str(told.value)
    with pytest.raises(ServiceError, match=r"must answer within 10 s. Got .*refused") as told:
        post("http://127.0.0.1:1/secret", alert())
    assert "secret" not in str(told.value)
    with pytest.raises(ConfigError, match="must be an address like https"):
        post("file:///etc/passwd", alert())


def test_an_incident_is_told_once_however_often_it_is_noticed(incidents: Incidents, chat: Chat) -> None:
    channels = {"webhook": lambda one: post(chat.url, one)}
    (told,) = incidents.tell(alert(), channels)
    assert (told.status, told.told, told.channel) == ("done", "200 ok", "webhook")
    assert incidents.tell(alert(text="prediction is 0.71 from training"), channels) == []
    assert len(chat.posted) == 1
    incidents.tell(alert(incident="drift of version 4"), channels)
    incidents.tell(alert(pipeline="other"), channels)
    assert len(chat.posted) == 3
    assert [one.incident for one in incidents.told("toy")] == ["drift of version 3", "drift of version 4"]


def test_a_channel_that_fails_stops_no_other_and_is_tried_again(incidents: Incidents, chat: Chat) -> None:
    heard: list[str] = []
    channels = {"webhook": lambda one: post(chat.url, one), "log": lambda one: str(heard.append(one.subject))}
    chat.status = 500
    assert [(one.channel, one.status) for one in incidents.tell(alert(), channels)] == [
        ("webhook", "failed"),
        ("log", "done"),
    ]
    chat.status = 200
    assert [(one.channel, one.status) for one in incidents.tell(alert(), channels)] == [("webhook", "done")]
    assert incidents.tell(alert(), channels) == []
    assert (len(heard), len(chat.posted)) == (1, 2)


def test_what_a_killed_process_began_is_done_by_the_next_after_a_while(incidents: Incidents, tmp_path: Path) -> None:
    def dies(_: Alert) -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        incidents.tell(alert(), {"log": dies})
    heard: list[Alert] = []
    channels = {"log": lambda one: str(heard.append(one))}
    assert incidents.tell(alert(), channels) == []  # it may still be at it
    (row,) = incidents.told("toy")
    with sa.create_engine(f"sqlite:///{tmp_path}/ledger.db").begin() as open_:
        open_.execute(
            sa.text("UPDATE alerts SET at = :at"), {"at": f"{row.at - timedelta(minutes=11):%Y-%m-%d %H:%M:%S.%f}"}
        )
    assert [one.status for one in incidents.tell(alert(), channels)] == ["done"]
    assert len(heard) == 1


def test_those_who_notice_at_once_tell_once(incidents: Incidents) -> None:
    heard, start = [], Barrier(4)

    def notice(_: int) -> None:
        start.wait(timeout=30)
        incidents.tell(alert(), {"log": lambda one: str(heard.append(one))})

    incidents.told("toy")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(notice, range(4)))
    assert len(heard) == 1


def test_on_is_a_key_and_not_true(tmp_path: Path) -> None:
    file = tmp_path / "churn.yaml"
    file.write_text("alerts: {on: [drift], respond: {drift: retrain}}\ncatchup: on\n")
    content = read_mapping("churn.yaml", file)
    assert Alerts.model_validate(content["alerts"]).on == ("drift",)
    assert content["catchup"] is True
