"""A game day over REST: it passes on a pipeline that is sound, and leaves it alone; a silent alarm fails it by name."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from playwright.sync_api import Page, expect

from airworthy.airflow_api import AirflowApi
from airworthy.alerts.incidents import Incidents
from airworthy.errors import ServiceError
from airworthy.gameday import faults
from airworthy.ledger import Ledger
from airworthy.retrains import Retrains

DAG = "game_day"
FIRST, LAST = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 9, tzinfo=UTC)


@pytest.fixture(scope="module")
def champion(airflow: AirflowApi, stack: Any) -> str:
    """Two pipelines with nine days each; returns the version that answers for the sound one."""
    for name in ("played", "silenced"):
        airflow.unpause(f"{name}.ingest")
        airflow.backfill(f"{name}.ingest", FIRST, LAST)
    for name in ("played", "silenced"):
        assert {run["state"] for run in airflow.wait_for_backfill(f"{name}.ingest")} == {"success"}
    airflow.unpause("played.train")
    run = airflow.trigger("played.train", as_of="2026-01-10")
    assert airflow.wait("played.train", run)["state"] == "success"
    airflow.wait_for_dags(DAG)
    return str(airflow.xcom("played.train", run, "deploy")["version"])


def state(stack: Any, config_dir: Path, airflow: AirflowApi) -> dict[str, Any]:
    """Returns all there is of the pipelines that a game day could have touched, and of their copies."""
    url, home = stack.environment["AIRWORTHY_LEDGER_URL"], Path(stack.home)
    files = [*(home / "store").rglob("*"), *config_dir.rglob("*"), *(home / "serving").rglob("*")]
    mine = [file for file in files if file.is_file() and {"played", "silenced"} & {*file.parts, file.stem}]
    mlflow = f"{stack.mlflow_url}/api/2.0/mlflow"
    chosen = {"filter": "name LIKE 'played%'"}
    models = httpx.get(f"{mlflow}/registered-models/search", params=chosen, timeout=60).json()
    experiments = httpx.post(f"{mlflow}/experiments/search", json={"max_results": 1000}, timeout=60).json()
    with sa.create_engine(url).connect() as connection:
        schemas = sorted(sa.inspect(connection).get_schema_names())
    return {
        "entries": Ledger(url).entries("played"),
        "alerts": Incidents(url).told("played") + Incidents(url).told("silenced"),
        "retrains": Retrains(url).decisions("played"),
        "pipelines": Ledger(url).pipelines(),
        "files": {file: file.stat().st_mtime_ns for file in mine},
        "folders": sorted((home / "game_day").glob("*")),
        "models": models,
        "experiments": sorted(one["name"] for one in experiments["experiments"]),
        "schemas": schemas,
        "served": httpx.get(f"{stack.serving_url}/models", timeout=60).json()["played"],
        "runs": [
            run["dag_run_id"] for name in ("ingest", "train", "monitor") for run in airflow.runs(f"played.{name}")
        ],
    }


def report(stack: Any, airflow: AirflowApi, run: str) -> dict[str, Any]:
    """Returns what the page says that the task links to."""
    link = airflow.link(DAG, run, "report", "Game day report")
    page = Path(stack.home, "reports", link.partition("/airworthy/reports/")[2])
    assert "What was played" in page.read_text()
    return dict(json.loads(page.with_suffix(".json").read_text()))


def test_every_alarm_fires_and_the_pipeline_stays_as_it_was(
    airflow: AirflowApi, champion: str, stack: Any, config_dir: Path, chat: Any
) -> None:
    before, posted = state(stack, config_dir, airflow), len(chat.posted)
    run = airflow.trigger(DAG, pipeline="played")
    ended = airflow.wait(DAG, run)
    found = report(stack, airflow, run)
    assert ended["state"] == "success", found
    assert [one["fault"] for one in found["outcomes"]] == faults()
    for one in found["outcomes"]:
        assert not one["trouble"] and {signal["alarm"] for signal in one["signals"] if signal["fired"]} == {
            *one["must"]
        }
    assert before["served"]["version"] == champion
    assert state(stack, config_dir, airflow) == before
    assert len(chat.posted) == posted, "a game day tells nobody"
    said = airflow.get(f"dags/{DAG}/dagRuns/{run}/taskInstances")["task_instances"]
    assert sorted(one["rendered_map_index"] for one in said if one["task_id"] == "inject") == faults()


def test_a_silent_alarm_fails_the_run_and_is_named(
    airflow: AirflowApi, champion: str, stack: Any, config_dir: Path
) -> None:
    before = state(stack, config_dir, airflow)
    run = airflow.trigger(DAG, pipeline="silenced", faults=["drift", "schema_break"])
    assert airflow.wait(DAG, run)["state"] == "failed"
    log = airflow.log(DAG, run, "report")
    assert "drift: did not fire: drift of the prediction, alert drift, retrain request" in log
    assert "schema_break: did not fire: alert data" in log
    assert airflow.tasks(DAG, run)["remove"]["state"] == "success"
    assert state(stack, config_dir, airflow) == before
    silent = {one["fault"]: one["signals"][-1]["told"] for one in report(stack, airflow, run)["outcomes"]}
    assert "`alerts.on` does not name data" in silent["schema_break"]


def test_a_person_starts_it_from_the_form_and_opens_its_report(
    airflow: AirflowApi, champion: str, sign_in: Callable[[str], Page], tmp_path: Path
) -> None:
    known = {run["dag_run_id"] for run in airflow.runs(DAG)}
    page = sign_in("admin")
    page.goto(f"/dags/{DAG}")
    page.get_by_label("Trigger Dag").click()
    dialog = page.get_by_role("dialog").first
    pipeline, faults_asked = (dialog.get_by_role("combobox").nth(number) for number in range(2))
    pipeline.fill("played")
    page.get_by_role("option", name="played", exact=True).click()
    for _ in faults():
        faults_asked.press("Backspace")
    for name in ("bad_champion", "schema_break"):
        faults_asked.fill(name)
        page.get_by_role("option", name=name, exact=True).click()
    page.screenshot(path=Path(os.environ.get("AIRWORTHY_SCREENSHOTS", tmp_path)) / "form.png", full_page=True)
    dialog.get_by_role("button", name="Trigger").click()
    expect(dialog).to_be_hidden()
    (run,) = {run["dag_run_id"] for run in airflow.runs(DAG)} - known
    assert airflow.wait(DAG, run)["state"] == "success"
    page.goto(f"/dags/{DAG}/runs/{run}/tasks/report/details")
    page.get_by_role("link", name="Game day report").click()
    expect(page.get_by_text("What was played")).to_be_visible()
    expect(page.get_by_text("response roll_back")).to_be_visible()
    expect(page.get_by_text("late_labels")).to_have_count(0)
    page.screenshot(path=Path(os.environ.get("AIRWORTHY_SCREENSHOTS", tmp_path)) / "played.png", full_page=True)


def test_what_is_no_pipeline_or_no_fault_is_refused(airflow: AirflowApi, champion: str) -> None:
    with pytest.raises(ServiceError, match=r"400.*pipeline"):
        airflow.trigger(DAG, pipeline="../../etc")
    with pytest.raises(ServiceError, match=r"400.*faults"):
        airflow.trigger(DAG, pipeline="played", faults=["earthquake"])
