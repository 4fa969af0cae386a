"""Bad input stops at its own pipeline, with a message that says where, what and what to do."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from airworthy.airflow_api import AirflowApi, wait_for
from airworthy.ledger import Ledger
from airworthy.stack import Stack, up
from airworthy.stack.state import State

BROKEN = """
description: Three things are wrong here
start: 2026-01-01
partition: fortnight
source:
  python: {function: "synthetic:extract"}
time: at
key: [id]
label: {column: late}
checks: {expectations: [{expect_column_values_to_be_betwen: {column: load}}]}
model: {xgboost: {}}
gates: [{metric_floor: {metric: roc_auc, floor: high}}]
"""


def failed_log(airflow: AirflowApi, dag_id: str, task_id: str, **conf: str) -> str:
    airflow.unpause(dag_id)
    run_id = airflow.trigger(dag_id, **conf)
    assert airflow.wait(dag_id, run_id)["state"] == "failed"
    return airflow.log(dag_id, run_id, task_id, airflow.tasks(dag_id, run_id)[task_id]["try_number"])


def test_a_broken_file_turns_config_errors_red_and_nothing_else(airflow, config_dir: Path) -> None:
    file = config_dir / "pipelines" / "broken.yaml"
    file.write_text(BROKEN)
    try:
        errors = wait_for("the import error", lambda: airflow.get("importErrors")["import_errors"] or None, 120)
        assert len(errors) == 1 and errors[0]["filename"].endswith("config_errors.py")
        message = errors[0]["stack_trace"]
        for place in ("partition", "checks.expectations[0]", "gates[0].metric_floor.floor"):
            assert f"broken.yaml: {place}" in message, message
        run_id = airflow.trigger("tiny.ingest", partition="2026-01-25")
        airflow.unpause("tiny.ingest")
        assert airflow.wait("tiny.ingest", run_id)["state"] == "success"
    finally:
        file.unlink()
    wait_for("the import error to go", lambda: None if airflow.get("importErrors")["import_errors"] else True, 120)


def test_features_that_raise_name_the_function_and_the_line(airflow) -> None:
    log = failed_log(airflow, "raising.ingest", "process", partition="2026-01-05")
    assert "synthetic:raising_features" in log and "no_such_column" in log


def test_a_missing_column_is_named_with_what_the_source_gives(airflow) -> None:
    log = failed_log(airflow, "no_column.ingest", "ingest", partition="2026-01-05")
    assert "raw[2026-01-05]: late: must be a column" in log and "The source gives" in log


def test_a_file_that_is_not_parquet_ingests_nothing(airflow, config_dir: Path) -> None:
    file = config_dir.parent / "data" / "2026-01-05.parquet"
    file.parent.mkdir()
    file.write_text("id,at,load")
    log = failed_log(airflow, "not_parquet.ingest", "ingest", partition="2026-01-05")
    assert f"{file}: must be a Parquet file" in log and "nothing was ingested" in log


def test_a_label_of_one_class_cannot_be_trained_on(airflow) -> None:
    filled(airflow, "one_class")
    log = failed_log(airflow, "one_class.train", "train", as_of="2026-01-07")
    assert "late" in log and "one class" in log


def filled(airflow: AirflowApi, pipeline: str) -> None:
    """Leaves six partitions of features."""
    airflow.unpause(f"{pipeline}.ingest")
    airflow.backfill(f"{pipeline}.ingest", datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 6, tzinfo=UTC))
    assert {run["state"] for run in airflow.wait_for_backfill(f"{pipeline}.ingest")} == {"success"}


@contextmanager
def stopped(stack: Stack, component: str) -> Iterator[None]:
    running = State(stack.home).running
    assert running is not None
    ctl = [sys.executable, "-m", "supervisor.supervisorctl", "-s", f"unix://{running.socket}"]
    subprocess.run([*ctl, "stop", f"services:{component}"], check=True)
    try:
        yield
    finally:
        up(home=stack.home)


@pytest.fixture(scope="module")
def outage(airflow: AirflowApi) -> None:
    filled(airflow, "outage")


def test_mlflow_down_during_train_fails_with_its_address_and_recovers(airflow, stack, outage) -> None:
    with stopped(stack, "mlflow"):
        log = failed_log(airflow, "outage.train", "train", as_of="2026-01-07")
    assert stack.mlflow_url in log and "MLflow" in log
    run_id = airflow.trigger("outage.train", as_of="2026-01-07")
    assert airflow.wait("outage.train", run_id)["state"] == "success"


def test_a_training_killed_while_it_tunes_goes_on_where_it_was(airflow, stack, outage) -> None:
    airflow.unpause("outage.train")
    mlflow = MlflowClient(stack.mlflow_url, stack.mlflow_url)

    def tuning() -> Run | None:
        experiment = mlflow.get_experiment_by_name("outage")
        found = mlflow.search_runs([experiment.experiment_id], "attributes.status = 'RUNNING'") if experiment else []
        return next((run for run in found if mlflow.get_metric_history(run.info.run_id, "trial_roc_auc")[2:]), None)

    run_id = airflow.trigger("outage.train", as_of="2026-01-06")
    killed = wait_for("a third trial", tuning, timeout=120, pause=0.1).info.run_id
    os.kill(airflow.tasks("outage.train", run_id)["train"]["pid"], signal.SIGKILL)
    assert airflow.wait("outage.train", run_id)["state"] == "success"
    log = airflow.log("outage.train", run_id, "train", attempt=2)
    (kept,) = re.findall(r"The search goes on after (\d+) trials of an attempt that was cut off", log)
    assert 3 <= int(kept) < 100
    assert mlflow.get_run(killed).info.status == "KILLED"
    finished = airflow.xcom("outage.train", run_id, "train")["run_id"]
    trials = mlflow.get_metric_history(finished, "best_roc_auc")
    assert finished != killed and max(point.step for point in trials) == 99


def test_a_model_file_damaged_before_deploy_is_rolled_back(airflow, stack) -> None:
    filled(airflow, "damaged")
    airflow.unpause("damaged.train")
    with stopped(stack, "serving"):  # so that deploy waits while the file is damaged
        run_id = airflow.trigger("damaged.train", as_of="2026-01-07")
        deploying = {"running", "failed"}
        wait_for(
            "deploy to begin",
            lambda: airflow.tasks("damaged.train", run_id)["deploy"]["state"] in deploying or None,
            timeout=120,
        )
        model = airflow.xcom("damaged.train", run_id, "train")["model_id"]
        (file,) = State(stack.home).artifacts.rglob(f"{model}/artifacts/model.ubj")
        file.write_bytes(file.read_bytes().replace(b"load", b"lead"))
    assert airflow.wait("damaged.train", run_id)["state"] == "failed"
    log = airflow.log("damaged.train", run_id, "deploy")
    assert "deploy damaged: version 1 must go live; there is no champion, as before" in log
    assert "model files: must have the recorded SHA-256" in log
    entries = Ledger(stack.environment["AIRWORTHY_LEDGER_URL"]).entries("damaged")
    assert [entry.action for entry in entries] == ["promote", "rollback"]


@pytest.mark.parametrize("path", ["tiny/validate/2026-01-05.html"])
def test_a_report_needs_a_login(airflow, stack, path: str) -> None:
    import httpx

    run_id = airflow.trigger("tiny.ingest", partition="2026-01-05")
    airflow.unpause("tiny.ingest")
    assert airflow.wait("tiny.ingest", run_id)["state"] == "success"
    url = airflow.link("tiny.ingest", run_id, "validate", "Validation result")
    assert url.endswith(path)
    assert httpx.get(url, timeout=60).status_code == 401
    token = airflow._http.headers["Authorization"]
    answer = httpx.get(url, headers={"Authorization": token}, timeout=60)
    assert answer.status_code == 200 and "expect_column_values_to_be_between" in answer.text
    above = f"{url.rpartition('/')[0]}/%2e%2e/%2e%2e/%2e%2e/secrets.json"
    outside = httpx.get(above, headers={"Authorization": token}, timeout=60)
    assert outside.status_code == 404
