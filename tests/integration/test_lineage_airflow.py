"""Corrected data, through Airflow: what was built on the old rows is marked, and can be built again."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from airworthy.airflow_api import AirflowApi
from airworthy.errors import ServiceError
from airworthy.exchange import archive
from airworthy.ledger import Ledger
from airworthy.store import Store

DAYS = [f"2026-01-{day:02d}" for day in range(1, 9)]
CHANGED = DAYS[3]
ROWS = 300


def write(folder: Path, day: str, *, sign: float = 1.0) -> None:
    """Leaves the file of a day; `sign` turns around what `load` means."""
    random = np.random.default_rng(int(day[-2:]))
    frame = pd.DataFrame(
        {
            "id": [f"{day}-{number:04d}" for number in range(ROWS)],
            "at": pd.date_range(day, periods=ROWS, freq="min", tz="UTC"),
            "load": random.normal(0.0, 1.0, ROWS),
            "line": random.choice(["red", "green", "blue"], ROWS),
        }
    )
    late = random.random(ROWS) < 1 / (1 + np.exp(-3 * frame["load"]))
    folder.mkdir(parents=True, exist_ok=True)
    frame.assign(load=sign * frame["load"], late=late.astype("int64")).to_parquet(folder / f"{day}.parquet")


@pytest.fixture(scope="module")
def data(config_dir: Path) -> Path:
    return config_dir.parent / "data" / "corrected"


@pytest.fixture(scope="module")
def champion(airflow: AirflowApi, data: Path) -> dict[str, Any]:
    """The training run whose model is version 1, and what its tasks returned."""
    for day in DAYS:
        write(data, day)
    airflow.unpause("corrected.ingest")
    airflow.backfill(
        "corrected.ingest", *(datetime.fromisoformat(day).replace(tzinfo=UTC) for day in (DAYS[0], DAYS[-1]))
    )
    assert {run["state"] for run in airflow.wait_for_backfill("corrected.ingest")} == {"success"}
    airflow.unpause("corrected.train")
    run_id = airflow.trigger("corrected.train", as_of="2026-01-09")
    assert airflow.wait("corrected.train", run_id)["state"] == "success"
    assert airflow.xcom("corrected.train", run_id, "deploy")["version"] == "1"
    return {"run": run_id, **airflow.xcom("corrected.train", run_id, "train")}


def ingest(airflow: AirflowApi, day: str) -> str:
    run_id = airflow.trigger("corrected.ingest", partition=day)
    assert airflow.wait("corrected.ingest", run_id)["state"] == "success"
    return run_id


def event(airflow: AirflowApi, asset: str, run_id: str) -> dict[str, Any]:
    """Returns what the event of one of the pipeline's assets says that a run made."""
    dag_id = "corrected.train" if asset == "champion" else "corrected.ingest"
    events = airflow.get("assets/events", source_dag_id=dag_id, source_run_id=run_id)["asset_events"]
    (found,) = [one["extra"] for one in events if one["name"] == f"corrected.{asset}"]
    return found


def mark(stack: Any, run_id: str) -> list[str | None]:
    client = MlflowClient(stack.mlflow_url, stack.mlflow_url)
    of_run = client.get_run(run_id).data.tags
    return [tags.get("airworthy.stale") for tags in (of_run, client.get_model_version("corrected", "1").tags)]


def page(airflow: AirflowApi, champion: dict[str, Any]) -> str:
    url = airflow.link("corrected.train", champion["run"], "train", "Lineage")
    answer = httpx.get(url, headers=airflow._http.headers, timeout=60)
    assert answer.status_code == 200
    return answer.text


def airworthy(stack: Any, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "airworthy.cli", *arguments]
    return subprocess.run(command, env=stack.environment, capture_output=True, text=True, check=False)


def test_events_say_what_a_model_was_made_from(airflow, champion) -> None:
    told = event(airflow, "champion", champion["run"])
    assert (told["version"], told["run_id"], told["features"]) == ("1", champion["run_id"], champion["features"])
    assert told["window"] == ["2026-01-01T00:00:00+00:00", "2026-01-06T00:00:00+00:00"]
    assert (told["partitions"], told["stale"]) == (8, [])


def test_the_same_content_again_changes_nothing(airflow, champion, stack, data) -> None:
    store = Store(f"{stack.home}/store", "corrected")
    before = {table: store.version(table) for table in ("raw", "features")}
    write(data, CHANGED)
    (told,) = event(airflow, "features", ingest(airflow, CHANGED))["partitions"]
    assert not told["changed"] and "stale_runs" not in told
    assert {table: store.version(table) for table in before} == before
    assert mark(stack, champion["run_id"]) == [None, None]
    assert "changed: version" not in page(airflow, champion)


def test_other_content_marks_the_version_and_is_told_by_the_event(airflow, champion, stack, data) -> None:
    write(data, CHANGED, sign=-1)
    run_id = ingest(airflow, CHANGED)
    for told in mark(stack, champion["run_id"]):
        assert told is not None and told.startswith(f"{CHANGED} changed from version ") and run_id in told
    (raw,) = event(airflow, "raw", run_id)["partitions"]
    (features,) = event(airflow, "features", run_id)["partitions"]
    assert features["changed"] and features["replaces"] < features["version"]
    assert (features["stale_runs"], features["stale_versions"]) == ([champion["run_id"]], ["1"])
    assert features["raw"] == {"version": raw["version"], "digest": raw["digest"]}
    assert features["origins"] == raw["origins"]
    assert [origin["name"] for origin in raw["origins"]] == [str(data / f"{CHANGED}.parquet")]
    assert f"stale: {CHANGED} changed" in airflow.log("corrected.ingest", run_id, "process")
    assert "changed: version" in page(airflow, champion)


def test_the_command_finds_the_way_there_and_back(champion, stack, data) -> None:
    there = airworthy(stack, "lineage", "corrected", "--model-version", "1", "--json")
    assert there.returncode == 0, there.stderr
    reads = {read["partition"]: read for read in json.loads(there.stdout)["reads"]}
    assert list(reads) == DAYS
    assert {day: read["state"] for day, read in reads.items() if read["state"] != "same"} == {CHANGED: "changed"}
    back = airworthy(stack, "lineage", "corrected", "--file", f"{DAYS[0]}.parquet")
    assert back.returncode == 0, back.stderr
    assert champion["run_id"] in back.stdout and "stale: 1 changed" in back.stdout


def test_the_model_is_built_again_from_what_it_was_made_of(champion, stack, config_dir) -> None:
    folder = config_dir.parent / "rebuilt"
    done = airworthy(stack, "rebuild", "corrected", "1", "--to", str(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"identical: {champion['digest']}" in done.stdout
    assert "largest difference 0" in done.stdout


def test_the_dag_builds_it_again_and_puts_that_on_record(airflow, champion, stack) -> None:
    airflow.unpause("corrected.rebuild")
    for conf in ({"version": "1"}, {}):
        run_id = airflow.trigger("corrected.rebuild", **conf)
        assert airflow.wait("corrected.rebuild", run_id)["state"] == "success"
        found = airflow.xcom("corrected.rebuild", run_id, "rebuild")
        assert found["digest"] == found["recorded"] == champion["digest"] and found["differences"] == []
    version = MlflowClient(stack.mlflow_url, stack.mlflow_url).get_model_version("corrected", "1")
    assert version.tags["rebuild"].startswith("identical 20")
    assert champion["run_id"] in airflow.link("corrected.rebuild", run_id, "rebuild", "MLflow run")


def test_a_champion_that_cannot_be_built_again_turns_the_dag_red(airflow, champion, stack) -> None:
    client = MlflowClient(stack.mlflow_url, stack.mlflow_url)
    with tempfile.TemporaryDirectory() as folder:
        name = Path(client.download_artifacts(champion["run_id"], "pipeline.json", folder))
        declared = name.read_text()
    client.log_text(champion["run_id"], declared.replace('"seed": 20130101', '"seed": 7'), "pipeline.json")
    run_id = airflow.trigger("corrected.rebuild", version="1")
    assert airflow.wait("corrected.rebuild", run_id)["state"] == "failed"
    log = airflow.log("corrected.rebuild", run_id, "rebuild")
    assert "must be built again as it was" in log and "airworthy.json: seed is 7, recorded 20130101" in log
    assert client.get_model_version("corrected", "1").tags["rebuild"].startswith("not identical (airworthy.json")
    client.log_text(champion["run_id"], declared, "pipeline.json")


def judged(airflow: AirflowApi, **conf: str) -> tuple[str, dict[str, str]]:
    """Returns a run of the training DAG that was given a finished run, and its tasks' states."""
    run_id = airflow.trigger("corrected.train", **conf)
    airflow.wait("corrected.train", run_id)
    return run_id, {name: task["state"] for name, task in airflow.tasks("corrected.train", run_id).items()}


def test_a_finished_run_is_judged_in_place_of_a_new_one(airflow, champion, stack) -> None:
    run_id, states = judged(airflow, mlflow_run=champion["run_id"])
    assert set(states.values()) == {"success"}
    assert airflow.xcom("corrected.train", run_id, "deploy")["version"] == "1"
    assert len(Ledger(stack.environment["AIRWORTHY_LEDGER_URL"]).entries("corrected")) == 1  # it was champion already
    assert airflow.xcom("corrected.train", run_id, "train")["as_of"] == champion["as_of"]
    run_id, states = judged(airflow, mlflow_run="0" * 32)
    assert states["train"] == "failed" and states["deploy"] == "upstream_failed"
    assert "must be a finished training run of corrected" in airflow.log("corrected.train", run_id, "train")
    with pytest.raises(ServiceError, match="mlflow_run"):
        airflow.trigger("corrected.train", mlflow_run="../../etc/passwd")


def test_an_imported_version_is_judged_against_the_champion_here(airflow, champion, stack, tmp_path) -> None:
    mine, theirs = tmp_path / "mine.zip", tmp_path / "theirs.zip"
    done = airworthy(stack, "export", "corrected", "1", "--to", str(mine))
    assert done.returncode == 0, done.stdout + done.stderr
    again = airworthy(stack, "import", "corrected", str(mine))
    assert again.returncode == 0 and "was trained here: it is version 1 here" in again.stdout
    folder = tmp_path / "archive"
    elsewhere = archive.read(mine, folder).model_copy(update={"training_key": "f" * 64, "registry": "http://dev:5000"})
    archive.write(theirs, elsewhere, folder)
    done = airworthy(stack, "import", "corrected", str(theirs))
    assert "version 1 of http://dev:5000 is version 2 here" in done.stdout, done.stdout + done.stderr
    (mlflow_run,) = re.findall(r'\{"mlflow_run": "(\w+)"\}', done.stdout)
    run_id, states = judged(airflow, mlflow_run=mlflow_run, as_of="2026-01-09")
    assert states == {"train": "success", "evaluate": "success", "gates": "success", "deploy": "skipped"}
    assert airflow.xcom("corrected.train", run_id, "evaluate")["champion"] == "1"
    verdicts = {verdict["gate"]: verdict["status"] for verdict in airflow.xcom("corrected.train", run_id, "gates")}
    assert verdicts == {"metric_floor": "passed", "beats_champion": "failed", "servable": "passed"}
    run_id, states = judged(airflow, mlflow_run=mlflow_run, as_of="2026-01-07")
    assert states["train"] == "failed"
    assert "as_of: must be 2026-01-09 00:00 or later" in airflow.log("corrected.train", run_id, "train")


def test_the_old_content_takes_the_mark_off(airflow, champion, stack, data) -> None:
    write(data, CHANGED)
    (told,) = event(airflow, "features", ingest(airflow, CHANGED))["partitions"]
    assert told["changed"] and told["stale_versions"] == []
    assert mark(stack, champion["run_id"]) == [None, None]
    assert "changed: version" not in page(airflow, champion)
