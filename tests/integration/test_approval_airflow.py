"""Approval: Airflow asks two people one after another, who answer over REST or on the page; silence means no."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import sqlalchemy as sa
from playwright.sync_api import Page, expect

from airworthy.airflow_api import AirflowApi, wait_for
from airworthy.errors import ServiceError
from airworthy.ledger import Entry, Ledger
from webhook_server import Chat

INGEST, TRAIN = "approving.ingest", "approving.train"
# Airflow 3.3 takes what comes in the first second or two for a lost task, and asks again; nobody reads that fast.
AS_LONG_AS_PEOPLE = 3


@pytest.fixture(scope="module")
def users(stack: Any, airflow: AirflowApi) -> dict[str, AirflowApi]:
    """The API as each of the stack's users sees it, with their passwords."""
    passwords = json.loads((stack.home / "airflow" / "passwords.json").read_text())
    return {name: AirflowApi(stack.airflow_url, name, password) for name, password in passwords.items()}


@pytest.fixture(scope="module")
def filled(airflow: AirflowApi) -> None:
    """Eight days of features."""
    airflow.unpause(INGEST)
    airflow.unpause(TRAIN)
    airflow.backfill(INGEST, datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 8, tzinfo=UTC))
    assert {run["state"] for run in airflow.wait_for_backfill(INGEST)} == {"success"}


def champion(stack: Any) -> Entry | None:
    return Ledger(stack.environment["AIRWORTHY_LEDGER_URL"]).champion("approving")


def details(run_id: str, task: str) -> str:
    return f"dags/{TRAIN}/dagRuns/{run_id}/taskInstances/{task}/-1/hitlDetails"


def question(airflow: AirflowApi, run_id: str, task: str) -> dict[str, Any]:
    """Returns what a task asks, once it does."""
    wait_for(
        f"the question of {task}",
        lambda: airflow.tasks(TRAIN, run_id)[task]["state"] == "awaiting_input" or None,
        timeout=90,
    )
    return dict(airflow.get(details(run_id, task)))


def answer(
    user: AirflowApi, run_id: str, task: str, option: str, reason: str = "", evidence: str | None = None
) -> None:
    asked = question(user, run_id, task)
    time.sleep(AS_LONG_AS_PEOPLE)
    shown = asked["params"]["evidence"]["value"] if evidence is None else evidence
    chosen = {"chosen_options": [option], "params_input": {"reason": reason, "evidence": shown}}
    user.patch(details(run_id, task), chosen)


def clear(airflow: AirflowApi, run_id: str, *tasks: str) -> None:
    body = {"dry_run": False, "dag_run_id": run_id, "task_ids": list(tasks), "only_failed": False}
    airflow.post(f"dags/{TRAIN}/clearTaskInstances", body)


def told(chat: Chat, about: str) -> list[str]:
    """Returns the alerts that the chat got about a run, each as all its text."""
    texts = [unquote(" ".join(block["text"]["text"] for block in one["blocks"][:2])) for _, one in chat.posted]
    return [text for text in texts if about in text]


def test_a_rejection_is_a_result_and_the_next_person_is_not_asked(
    airflow: AirflowApi, users: dict[str, AirflowApi], filled: None, stack: Any, chat: Chat
) -> None:
    run_id = users["carol"].trigger(TRAIN, as_of="2026-01-07")
    asked = question(airflow, run_id, "approve_1")
    (message,) = told(chat, f"/runs/{run_id}/tasks/approve_1")
    assert "approving 2026-01-07: may the challenger become champion?" in message
    assert "alice or bob can answer within 2 hours, silence means no" in message
    assert asked["subject"] == "approving 2026-01-07: may the challenger become champion?"
    assert asked["options"] == ["Approve", "Reject"] and asked["defaults"] is None
    assert [user["id"] for user in asked["assigned_users"]] == ["alice", "bob"]
    evidence = airflow.xcom(TRAIN, run_id, "evaluate")["evidence"]
    for part in ("be the first champion", "carol asked for it", "| roc_auc |", "| metric_floor | passed |", evidence):
        assert part in asked["body"], asked["body"]
    answer(users["bob"], run_id, "approve_1", "Reject", "not before the holidays")
    assert airflow.wait(TRAIN, run_id)["state"] == "success"
    states = {task: found["state"] for task, found in airflow.tasks(TRAIN, run_id).items()}
    assert (states["approve_1"], states["approve_2"], states["deploy"]) == ("success", "skipped", "skipped")
    assert "bob rejected" in airflow.log(TRAIN, run_id, "deploy")
    assert "not before the holidays" in airflow.log(TRAIN, run_id, "deploy")
    assert champion(stack) is None


def test_silence_means_no_and_clearing_the_task_asks_again(
    airflow: AirflowApi, users: dict[str, AirflowApi], filled: None, stack: Any, chat: Chat
) -> None:
    run_id = users["alice"].trigger(TRAIN, as_of="2026-01-07")
    question(airflow, run_id, "approve_1")
    time.sleep(AS_LONG_AS_PEOPLE)
    engine = sa.create_engine(stack.environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"])
    with engine.begin() as connection:  # two hours are over
        past = "UPDATE task_instance SET trigger_timeout = now() - interval '1 second' WHERE run_id = :run"
        connection.execute(sa.text(past), {"run": run_id})
    assert airflow.wait(TRAIN, run_id)["state"] == "failed"
    assert "Nobody answered within 2 hours. The champion stays" in airflow.log(TRAIN, run_id, "approve_1")
    assert airflow.tasks(TRAIN, run_id)["deploy"]["state"] == "upstream_failed"
    assert champion(stack) is None
    assert told(chat, f"nobody approved: {run_id}")

    clear(airflow, run_id, "approve_1", "approve_2", "deploy")
    for outsider in ("carol", "admin"):
        with pytest.raises(ServiceError, match="403"):
            answer(users[outsider], run_id, "approve_1", "Approve")
    answer(users["alice"], run_id, "approve_1", "Approve")
    asked = question(airflow, run_id, "approve_2")
    assert len(told(chat, f"/runs/{run_id}/tasks/approve_1")) == 2
    assert "bob can answer" in told(chat, f"/runs/{run_id}/tasks/approve_2")[0]
    assert [user["id"] for user in asked["assigned_users"]] == ["bob"] and "alice approved at" in asked["body"]
    with pytest.raises(ServiceError, match="403"):  # who asked for the training and has approved of it already
        answer(users["alice"], run_id, "approve_2", "Approve")
    answer(users["bob"], run_id, "approve_2", "Approve", "fine")
    assert airflow.wait(TRAIN, run_id)["state"] == "success"
    promoted = champion(stack)
    assert promoted is not None and (promoted.version, promoted.approved_by) == ("1", "alice, bob")


def test_an_answer_about_evidence_that_has_changed_is_void(
    airflow: AirflowApi, users: dict[str, AirflowApi], filled: None, stack: Any
) -> None:
    before = champion(stack)
    run_id = users["alice"].trigger(TRAIN, as_of="2026-01-08")
    question(airflow, run_id, "approve_1")
    shown = airflow.xcom(TRAIN, run_id, "evaluate")["evidence"]
    clear(airflow, run_id, "evaluate", "gates")
    changed = wait_for("other evidence", lambda: _evaluated_again(airflow, run_id, shown), timeout=90)
    answer(users["alice"], run_id, "approve_1", "Approve")
    assert airflow.wait(TRAIN, run_id)["state"] == "failed"
    log = airflow.log(TRAIN, run_id, "approve_1")
    assert f"the answer is void: it is about evidence {shown[:12]}" in log
    assert f"by now there is evidence {changed[:12]}" in log
    assert airflow.tasks(TRAIN, run_id)["deploy"]["state"] == "upstream_failed"

    clear(airflow, run_id, "approve_1", "approve_2", "deploy")
    assert airflow.wait(TRAIN, run_id)["state"] == "failed"
    log = airflow.log(TRAIN, run_id, "approve_1", attempt=2)
    assert "Airflow goes on showing what this task asked first" in log and "Trigger the DAG again" in log
    assert champion(stack) == before


def _evaluated_again(airflow: AirflowApi, run_id: str, shown: str) -> str | None:
    tasks = airflow.tasks(TRAIN, run_id)
    if any(tasks[task]["state"] != "success" for task in ("evaluate", "gates")):
        return None
    found = str(airflow.xcom(TRAIN, run_id, "evaluate")["evidence"])
    return found if found != shown else None


def test_the_page_shows_the_evidence_and_takes_an_answer(
    airflow: AirflowApi,
    users: dict[str, AirflowApi],
    filled: None,
    stack: Any,
    sign_in: Callable[[str], Page],
    tmp_path: Path,
) -> None:
    run_id = airflow.trigger(TRAIN, as_of="2026-01-09")
    question(airflow, run_id, "approve_1")
    evidence = airflow.xcom(TRAIN, run_id, "evaluate")["evidence"]
    page = sign_in("bob")
    page.goto(f"/dags/{TRAIN}/runs/{run_id}/tasks/approve_1/required_actions")
    expect(page.get_by_text("approving 2026-01-09: may the challenger become champion?")).to_be_visible()
    expect(page.get_by_role("cell", name="metric_floor")).to_be_visible()
    expect(page.get_by_role("link", name="Model card").first).to_be_visible()
    expect(page.get_by_text(evidence).first).to_be_visible()
    page.screenshot(path=Path(os.environ.get("AIRWORTHY_SCREENSHOTS", tmp_path)) / "approve.png", full_page=True)
    page.get_by_role("button", name="Approve").click()
    assert "bob approved at" in question(airflow, run_id, "approve_2")["body"]
    answer(users["alice"], run_id, "approve_2", "Approve")
    assert airflow.wait(TRAIN, run_id)["state"] == "success"
    promoted = champion(stack)
    assert promoted is not None and promoted.as_of == datetime(2026, 1, 9, tzinfo=UTC)
