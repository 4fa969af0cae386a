"""The same week of flights from every kind of source through a real Airflow, and data that arrives late."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import httpx
import pandas as pd
import psutil
import pyarrow as pa
import pytest
import sqlalchemy as sa
from deltalake import write_deltalake

from airworthy.airflow_api import AirflowApi, wait_for
from airworthy.config import load_pipeline
from airworthy.connections import from_environment
from airworthy.partitions import parse_key
from airworthy.profile import ROOT
from airworthy.store import Store

WEEK = parse_key("week", "2013-07-01")
TINY = Path(__file__).with_name("tiny.yaml")
FLIGHTS = ROOT / "config" / "pipelines" / "flight_delays.yaml"
PYTHON = 'python: {function: "pipelines.flight_delays:extract"}'
QUERY = "select * from flights where time_hour >= :start and time_hour < :end order by time_hour, flight_id"
KEYS = {"aws_access_key_id": "tester", "aws_secret_access_key": "hunter2"}
SOURCES = {
    "python": PYTHON,
    "csv": "files: {glob: 'DATA/{partition}.csv'}",
    "gz": "files: {glob: 'DATA/{partition}.csv.gz'}",
    "parquet": "files: {glob: 'DATA/{partition}-*.parquet'}",
    "jsonl": "files: {glob: 'DATA/{partition}.jsonl'}",
    "s3": "files: {glob: 's3://flights/{partition}/*.parquet', connection: lake}",
    "sql": f"sql: {{connection: warehouse, query: '{QUERY}', chunk_rows: 1000}}",
    "delta": "delta: {uri: 's3://flights/table', time: time_hour, connection: lake}",
    "spark": f"{PYTHON}\nengine: spark",  # another engine instead of another source
}


@pytest.fixture(scope="module")
def week(stack: Any) -> Iterator[pd.DataFrame]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("AIRWORTHY_HOME", str(stack.home))  # so that the year is unpacked once
        yield load_pipeline(FLIGHTS).source.extract(WEEK, from_environment).frame()


@pytest.fixture(scope="module")
def delivered(week: pd.DataFrame, stack: Any, airflow: AirflowApi, s3_url: str, config_dir: Path) -> Path:
    """Leaves the week with every source, and a pipeline for each."""
    data = config_dir.parent / "flights"
    data.mkdir()
    _as_files(week, data)
    _on_s3(week, data, s3_url)
    _in_postgres(week, stack, airflow)
    for kind, declared in SOURCES.items():
        text = FLIGHTS.read_text().replace(PYTHON, declared.replace("DATA", str(data)))
        (config_dir / "pipelines" / f"flights_{kind}.yaml").write_text(text)
    for name, (timeout, declared) in WAITING.items():
        source = f"{declared.replace('DATA', str(data))}\nwait: {{timeout: {timeout}, every: 1 second}}"
        text = TINY.read_text().replace('python: {function: "synthetic:extract"}', source) + BATCHES.get(name, "")
        (config_dir / "pipelines" / f"{name}.yaml").write_text(text)
    names = [*WAITING, *(f"flights_{kind}" for kind in SOURCES)]
    airflow.wait_for_dags(*(f"{name}.ingest" for name in names), timeout=300)
    return data


def _as_files(week: pd.DataFrame, data: Path) -> None:
    week.to_csv(data / f"{WEEK.key}.csv", index=False)
    (data / f"{WEEK.key}.csv.gz").write_bytes(gzip.compress((data / f"{WEEK.key}.csv").read_bytes()))
    for number, half in enumerate((week.iloc[:1000], week.iloc[1000:])):
        half.to_parquet(data / f"{WEEK.key}-{number}.parquet", index=False, row_group_size=500)
    records = week.astype(object).where(week.notna(), None).to_dict("records")
    (data / f"{WEEK.key}.jsonl").write_text("\n".join(json.dumps(record, default=str) for record in records))


def bucket(url: str) -> Any:
    return boto3.client("s3", endpoint_url=url, region_name="us-east-1", **KEYS)


def _on_s3(week: pd.DataFrame, data: Path, url: str) -> None:
    client = bucket(url)
    client.create_bucket(Bucket="flights")
    for number in range(2):
        client.upload_file(str(data / f"{WEEK.key}-{number}.parquet"), "flights", f"{WEEK.key}/{number}.parquet")
    options = {name.upper(): value for name, value in KEYS.items()}
    options |= {"AWS_ENDPOINT_URL": url, "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1"}
    both = pd.concat([week, week.assign(time_hour=week["time_hour"] + pd.Timedelta("7 days"))])
    write_deltalake("s3://flights/table", pa.Table.from_pandas(both, preserve_index=False), storage_options=options)


def _in_postgres(week: pd.DataFrame, stack: Any, airflow: AirflowApi) -> None:
    url = sa.make_url(stack.environment["AIRWORTHY_LEDGER_URL"])
    engine = sa.create_engine(url)
    both = pd.concat([week, week.assign(time_hour=week["time_hour"] + pd.Timedelta("7 days"))])
    both.sample(frac=1, random_state=7).to_sql("flights", engine, index=False)
    engine.dispose()
    fields = {"host": url.host, "port": url.port, "login": url.username, "password": url.password}
    fields |= {"connection_id": "warehouse", "conn_type": "postgres", "schema": url.database}
    airflow.post("connections", fields)


@pytest.fixture(scope="module")
def ingested(delivered: Path, airflow: AirflowApi) -> dict[str, tuple[str, str]]:
    """The digests of the partition of raw rows and of features, by kind of source."""
    runs = {}
    for kind in SOURCES:
        airflow.unpause(f"flights_{kind}.ingest")
        runs[kind] = airflow.trigger(f"flights_{kind}.ingest", partition=WEEK.key)
    found = {}
    for kind, run_id in runs.items():
        dag_id = f"flights_{kind}.ingest"
        assert airflow.wait(dag_id, run_id)["state"] == "success", airflow.log(dag_id, run_id, "ingest")
        raw, features = (airflow.xcom(dag_id, run_id, task)[0] for task in ("ingest", "process"))
        found[kind] = (raw["digest"], features["digest"])
    return found


@pytest.mark.parametrize("kind", SOURCES)
def test_every_source_gives_the_same_week_and_the_same_features(
    kind: str, ingested: dict[str, tuple[str, str]], week: pd.DataFrame, stack: Any
) -> None:
    assert ingested[kind] == ingested["python"]
    raw = Store(f"{stack.home}/store", f"flights_{kind}").read("raw", partitions=[WEEK.key])
    pd.testing.assert_frame_equal(raw, week, check_dtype=False)


def test_each_write_knows_what_it_came_from(ingested: dict[str, tuple[str, str]], stack: Any) -> None:
    names = {}
    for kind in SOURCES:
        (write,) = Store(f"{stack.home}/store", f"flights_{kind}").history("raw")
        names[kind] = [origin["name"] for origin in write.facts["origins"]]
        assert all(origin["version"] for origin in write.facts["origins"])
    assert names["s3"] == [f"s3://flights/{WEEK.key}/{number}.parquet" for number in range(2)]
    assert names["sql"] == ["query on warehouse"] and names["delta"] == ["s3://flights/table"]


# --- Data that arrives late


WAITING = {
    "late": ("10 minutes", "files: {glob: 's3://flights/late-{partition}.parquet', connection: lake}"),
    "missed": ("3 seconds", "files: {glob: 'no/such/{partition}.csv'}"),
    "unconnected": ("10 minutes", "files: {glob: 's3://flights/{partition}.csv', connection: nowhere}"),
    "half": ("3 seconds", "files: {glob: 'DATA/half-{partition}.csv', ready: 'DATA/half-{partition}.done'}"),
}
BATCHES = {"half": "batch: 2\n"}


def waiting(airflow: AirflowApi, name: str) -> str:
    """Returns the id of a run that waits for a partition."""
    airflow.unpause(f"{name}.ingest")
    return airflow.trigger(f"{name}.ingest", partition="2026-01-05")


def deferred(airflow: AirflowApi, dag_id: str, run_id: str) -> dict[str, Any] | None:
    task = airflow.tasks(dag_id, run_id)["wait"]
    assert task["state"] not in ("success", "failed"), airflow.log(dag_id, run_id, "wait")
    return task if task["state"] == "deferred" else None


def events() -> pd.DataFrame:
    at = pd.date_range("2026-01-05", periods=200, freq="7min", tz="UTC")
    numbers = range(200)
    lines = ["red", "green", "blue", "green"] * 50
    return pd.DataFrame({"id": [*map(str, numbers)], "at": at, "load": 0.5, "line": lines, "late": [0, 1] * 100})


def test_late_data_is_waited_for_without_a_worker_and_ingested_when_it_is_there(
    airflow: AirflowApi, delivered: Path, s3_url: str, stack: Any
) -> None:
    name = "late-2026-01-05.parquet"
    run_id = waiting(airflow, "late")
    task = wait_for("the task to wait", lambda: deferred(airflow, "late.ingest", run_id), timeout=60)
    wait_for("the task's process to end", lambda: not psutil.pid_exists(task["pid"]) or None, timeout=30)
    assert airflow.get("pools/default_pool")["deferred_slots"] >= 1
    looked = f"a file s3://flights/{name} is not there yet"
    wait_for("a look", lambda: looked in airflow.log("late.ingest", run_id, "wait") or None, timeout=60)
    kill_triggerer(stack)  # the next one goes on where this one stopped
    events().to_parquet(delivered / name)
    bucket(s3_url).upload_file(str(delivered / name), "flights", name)
    assert airflow.wait("late.ingest", run_id)["state"] == "success"
    assert Store(f"{stack.home}/store", "late").has("features", "2026-01-05")
    assert "everything is there" in airflow.log("late.ingest", run_id, "wait")


def kill_triggerer(stack: Any) -> None:
    manager = psutil.Process(int((stack.home / "supervisord.pid").read_text()))
    (triggerer,) = (one for one in manager.children() if "triggerer" in one.cmdline())
    for process in (triggerer, *triggerer.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):  # one may end because the one before it did
            process.kill()


def test_what_does_not_come_in_time_is_named(airflow: AirflowApi, delivered: Path) -> None:
    began = time.monotonic()
    run_id = waiting(airflow, "missed")
    assert airflow.wait("missed.ingest", run_id)["state"] == "failed"
    assert time.monotonic() - began > 3
    expected = "a file no/such/2026-01-05.csv must be there within 3 seconds of the run's start. Clear this task once"
    tasks = airflow.tasks("missed.ingest", run_id)
    assert expected in airflow.log("missed.ingest", run_id, "wait", tasks["wait"]["try_number"])
    assert tasks["ingest"]["state"] == "upstream_failed"


def test_of_several_partitions_those_that_came_in_time_go_on(airflow: AirflowApi, delivered: Path, stack: Any) -> None:
    for day in (5, 6):
        events().to_csv(delivered / f"half-2026-01-0{day}.csv", index=False)
    (delivered / "half-2026-01-05.done").touch()  # the other one is still being written
    airflow.unpause("half.ingest")
    first = datetime(2026, 1, 5, tzinfo=UTC)
    airflow.backfill("half.ingest", first, first + timedelta(days=1))
    (run,) = airflow.wait_for_backfill("half.ingest")
    states = {name: task["state"] for name, task in airflow.tasks("half.ingest", run["dag_run_id"]).items()}
    assert states["wait"] == states["ingest"] == "failed"
    assert "partition 2026-01-06: was waited for, and is not there" in airflow.log(
        "half.ingest", run["dag_run_id"], "ingest"
    )
    assert Store(f"{stack.home}/store", "half").partitions("features") == ["2026-01-05"]


def test_a_connection_that_is_not_defined_is_named(airflow: AirflowApi, delivered: Path) -> None:
    run_id = waiting(airflow, "unconnected")
    assert airflow.wait("unconnected.ingest", run_id)["state"] == "failed"
    log = airflow.log("unconnected.ingest", run_id, "wait")
    assert "connection nowhere: must be defined. Define it in Airflow" in log and "AIRFLOW_CONN_NOWHERE" in log


def test_no_secret_is_in_a_log(ingested: dict[str, tuple[str, str]], stack: Any) -> None:
    secrets = ("hunter2", sa.make_url(stack.environment["AIRWORTHY_LEDGER_URL"]).password or "hunter2")
    logs = [file for file in (stack.home / "logs" / "tasks").glob("dag_id=flights_*/**/*.log") if file.is_file()]
    assert logs
    assert [file for file in logs if any(secret in file.read_text() for secret in secrets)] == []
    assert httpx.get(f"{stack.airflow_url}/api/v2/monitor/health", timeout=60).is_success
