"""What the listeners leave on record of a task, in a process of its own as Airflow has it."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import BaseOperator

from airworthy.config import load_pipeline
from airworthy.profile import ROOT
from airworthy.resource_log import Record, ResourceLog
from airworthy_airflow import measuring
from airworthy_airflow.operators.data import ValidateOperator

MB = 10**6


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    found = f"sqlite:///{tmp_path}/ledger.db"
    for name in ("MLFLOW_TRACKING_URI", "AIRWORTHY_SERVING_URL", "AIRWORTHY_AIRFLOW_URL"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("AIRWORTHY_LEDGER_URL", found)
    return found


def task(**changes: Any) -> SimpleNamespace:
    pipeline = load_pipeline(ROOT / "config" / "pipelines" / "flight_delays.yaml")
    operator = ValidateOperator(task_id="validate", pipeline=pipeline, raw=None)
    return SimpleNamespace(**{"task": operator, "task_id": "validate", "run_id": "run", "try_number": 1, **changes})


def ends(told: SimpleNamespace, state: str) -> None:
    """Lets a child do a task that takes 80 MB, as a fork of this process."""
    if child := os.fork():
        assert os.waitpid(child, 0)[1] == 0
        return
    code = 1
    try:
        measuring.on_task_instance_running(None, told)
        bytearray(b"x") * (80 * MB)
        error = {"error": ValueError("no")} if state == "failed" else {}
        getattr(measuring, f"on_task_instance_{state}")(None, told, **error)
        code = 0
    finally:
        os._exit(code)


def on_record(url: str) -> list[Record]:
    return ResourceLog(url).last("flight_delays").get("validate", [])


def test_a_task_is_on_record_also_one_that_failed_or_had_nothing_to_do(url: str) -> None:
    for attempt, state in enumerate(("failed", "success", "skipped"), start=1):
        ends(task(try_number=attempt), state)
    found = on_record(url)
    assert [(one.run, one.attempt, one.state) for one in found] == [
        ("run", 1, "failed"),
        ("run", 2, "success"),
        ("run", 3, "skipped"),
    ]
    assert all(75 < one.peak_mb < 110 < one.resident_mb for one in found)


def test_other_peoples_tasks_and_those_marked_by_hand_are_not(url: str) -> None:
    ends(task(task=BaseOperator(task_id="validate")), "success")
    measuring.on_task_instance_success(None, task())  # in the API server, where it never ran
    assert on_record(url) == []


def test_a_record_that_cannot_be_made_fails_no_task(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, url: str
) -> None:
    monkeypatch.setenv("AIRWORTHY_LEDGER_URL", "sqlite:////no/such/folder/ledger.db")
    measuring.on_task_instance_running(None, task())
    measuring.on_task_instance_success(None, task())
    assert "What the task took is not on record: record of resources" in caplog.text
