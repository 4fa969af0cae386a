"""A rollback through Airflow and by the command: the older version answers, and the ledger tells why."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from airworthy.airflow_api import AirflowApi
from airworthy.ledger import Entry, Ledger

NAME = "returning"
RECORD = {"id": "x", "at": "2026-01-12T05:00:00Z", "load": 0.5, "line": "blue"}


@pytest.fixture(scope="module")
def two(airflow: AirflowApi) -> list[str]:
    """The training runs of two versions that became champion, one after the other."""
    airflow.unpause(f"{NAME}.ingest")
    airflow.backfill(f"{NAME}.ingest", datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 8, tzinfo=UTC))
    assert {run["state"] for run in airflow.wait_for_backfill(f"{NAME}.ingest")} == {"success"}
    airflow.unpause(f"{NAME}.train")
    runs = []
    for as_of in ("2026-01-07", "2026-01-09"):
        runs.append(airflow.trigger(f"{NAME}.train", as_of=as_of))
        assert airflow.wait(f"{NAME}.train", runs[-1])["state"] == "success"
    assert [airflow.xcom(f"{NAME}.train", run, "deploy")["version"] for run in runs] == ["1", "2"]
    airflow.wait_for_dags(f"{NAME}.rollback")
    return runs


def last(stack: Any) -> Entry:
    return Ledger(stack.environment["AIRWORTHY_LEDGER_URL"]).entries(NAME)[-1]


def answering(stack: Any) -> str:
    url = f"{stack.serving_url}/invocations"
    answer = httpx.post(url, params={"pipeline": NAME}, json={"dataframe_records": [RECORD]}, timeout=60)
    return str(answer.json()["model_version"])


def airworthy(stack: Any, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "airworthy.cli", *arguments]
    return subprocess.run(command, env=stack.environment, capture_output=True, text=True, check=False)


def test_a_rest_call_rolls_back(airflow, two, stack) -> None:
    run_id = airflow.trigger(f"{NAME}.rollback", reason="complaints")  # nobody had to switch the DAG on
    assert airflow.wait(f"{NAME}.rollback", run_id)["state"] == "success"
    assert answering(stack) == "1"
    entry = last(stack)
    assert (entry.action, entry.version, entry.expected, entry.reason) == ("rollback", "1", "2", "complaints")
    assert entry.actor == f"{run_id} by admin"
    (event,) = airflow.get("assets/events", source_dag_id=f"{NAME}.rollback", source_run_id=run_id)["asset_events"]
    assert event["name"] == f"{NAME}.champion"
    assert (event["extra"]["version"], event["extra"]["replaced"]) == ("1", "2")
    assert NAME in airflow.link(f"{NAME}.rollback", run_id, "rollback", "Serving")
    assert entry.run_id in airflow.link(f"{NAME}.rollback", run_id, "rollback", "MLflow run")


def test_the_command_rolls_back_and_forth(airflow, two, stack) -> None:
    done = airworthy(stack, "rollback", NAME, "--to", "2", "--reason", "it was the data")
    assert done.returncode == 0, done.stderr
    assert answering(stack) == "2"
    for arguments in (("show", NAME), ("verify", NAME), ("at", NAME, f"{last(stack).at:%Y-%m-%d}")):
        told = airworthy(stack, "ledger", *arguments)
        assert told.returncode == 0, told.stderr
        print(told.stdout)
        assert "it was the data" in told.stdout or "verify" in arguments
    assert f"{NAME}: 4 entries, unchanged" in airworthy(stack, "ledger", "verify", NAME).stdout


def test_the_champion_itself_is_left_alone(airflow, two, stack) -> None:
    before = last(stack)
    run_id = airflow.trigger(f"{NAME}.rollback", to=before.version)
    airflow.wait(f"{NAME}.rollback", run_id)
    assert airflow.tasks(f"{NAME}.rollback", run_id)["rollback"]["state"] == "skipped"
    assert last(stack) == before


def test_a_version_that_never_was_champion_is_refused(airflow, two, stack) -> None:
    run_id = airflow.trigger(f"{NAME}.rollback", to="77")
    assert airflow.wait(f"{NAME}.rollback", run_id)["state"] == "failed"
    assert "must go to a version that was champion (1, 2). Got '77'" in airflow.log(
        f"{NAME}.rollback", run_id, "rollback"
    )
