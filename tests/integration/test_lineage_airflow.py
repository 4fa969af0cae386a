"""Corrected data, through Airflow: what was built on the old rows is marked, and can be built again."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from airworthy.airflow_api import AirflowApi
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
    path = f"dags/corrected.train/dagRuns/{champion['run']}/taskInstances/train/links"
    answer = httpx.get(airflow.get(path)["extra_links"]["Lineage"], headers=airflow._http.headers)
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
    done = airworthy(stack, "rebuild", "corrected", "--model-version", "1", "--to", str(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"identical: {champion['digest']}" in done.stdout
    assert "largest difference 0" in done.stdout


def test_the_old_content_takes_the_mark_off(airflow, champion, stack, data) -> None:
    write(data, CHANGED)
    (told,) = event(airflow, "features", ingest(airflow, CHANGED))["partitions"]
    assert told["changed"] and told["stale_versions"] == []
    assert mark(stack, champion["run_id"]) == [None, None]
    assert "changed: version" not in page(airflow, champion)
