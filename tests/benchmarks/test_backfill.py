"""The year of flights as daily partitions by an Airflow backfill, against the same work in a pool of two processes.

Run with `make benchmark`. It prints times and ratios measured side by side in one run; it asserts only
that both sides left the same tables. AIRWORTHY_BENCHMARK_DAYS sets the number of partitions (365).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from airworthy.airflow_api import AirflowApi
from airworthy.profile import ROOT
from airworthy.stack import running_stack
from airworthy.store import Store

CONFIG = ROOT / "config"
pytestmark = pytest.mark.timeout(3600)
START = datetime(2013, 1, 1, tzinfo=UTC)
# What the example says of weeks, said of days; a day may differ from the contract that was learnt from the year.
OF_DAYS = {
    "start: 2012-12-31": f"start: {START:%Y-%m-%d}",
    "partition: week": "partition: day",
    "{min_value: 1000, max_value: 20000}": "{min_value: 100, max_value: 20000}",
    "{column: temp, min_value: 0.5}": "{column: temp, min_value: 0}",  # there is no weather of the last day
    "{column: late, min_value: 0.05, max_value: 0.6}": "{column: late, min_value: 0.01, max_value: 0.95}",
}
DAYS = int(os.environ.get("AIRWORTHY_BENCHMARK_DAYS", "365"))
POOL = """
import sys, time
from concurrent.futures import ProcessPoolExecutor
from airworthy.config import load_pipeline
from airworthy.partitions import parse_key
from airworthy.profile import load_profile, pipelines_dir
from airworthy.stages import ingest, process, validate
from airworthy.store import Store
import pandas, great_expectations, deltalake.fs

profile, pipeline = load_profile(), load_pipeline(pipelines_dir() / "by_pool.yaml")

def data(day):
    partition, store = parse_key("day", day), Store(profile.store_uri, pipeline.name)
    raw = ingest.ingest(pipeline, partition, store)
    validation = validate.validate(pipeline, partition, raw, store, profile.reports_dir)
    return process.process(pipeline, partition, validation, store).rows

if __name__ == "__main__":
    with ProcessPoolExecutor(2) as pool:
        list(pool.map(data, sys.argv[1:3]))  # both are warm, as Airflow's workers are
        started = time.perf_counter()
        assert all(pool.map(data, sys.argv[1:]))
        print(time.perf_counter() - started)
"""


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Any]:
    config = tmp_path / "config"
    (config / "pipelines").mkdir(parents=True)
    shutil.copytree(ROOT / "config" / "profiles", config / "profiles")
    (config / "contracts").mkdir()
    text = (CONFIG / "pipelines" / "flight_delays.yaml").read_text() + "contract: {on_change: warn}\n"
    for weekly, daily in OF_DAYS.items():
        assert text.count(weekly) == 1
        text = text.replace(weekly, daily)
    for name, batch in (("one_by_one", 1), ("batched", 92), ("by_pool", 1)):
        (config / "pipelines" / f"{name}.yaml").write_text(f"{text}batch: {batch}\n")
        contract = (CONFIG / "contracts" / "flight_delays.yaml").read_text().replace("flight_delays", name)
        (config / "contracts" / f"{name}.yaml").write_text(contract)
    with running_stack(home=tmp_path / "state", config=config) as running:
        yield running


def backfill(airflow: AirflowApi, dag_id: str, days: int) -> tuple[float, int]:
    """Returns the seconds from asking for a backfill to the end of its last run, and the number of runs."""
    airflow.unpause(dag_id)
    asked = datetime.now(UTC)
    airflow.backfill(dag_id, START, START + timedelta(days=days - 1))
    runs = airflow.wait_for_backfill(dag_id, timeout=3600)
    assert {run["state"] for run in runs} == {"success"}
    return (max(datetime.fromisoformat(run["end_date"]) for run in runs) - asked).total_seconds(), len(runs)


def test_a_year_by_backfill_against_a_pool(stack: Any, capsys: pytest.CaptureFixture[str]) -> None:
    airflow = AirflowApi(stack.airflow_url, "admin", stack.password)
    airflow.wait_for_dags("one_by_one.ingest", "batched.ingest")
    airflow.unpause("one_by_one.ingest")
    first = airflow.trigger("one_by_one.ingest", partition=f"{START:%Y-%m-%d}")  # it waits for the API server
    assert airflow.wait("one_by_one.ingest", first)["state"] == "success"
    fewer = max(DAYS // 12, 1)
    single, _ = backfill(airflow, "one_by_one.ingest", fewer)
    batched, runs = backfill(airflow, "batched.ingest", DAYS)
    file = Path(stack.home).parent / "pool.py"
    file.write_text(POOL)
    days = [f"{START + timedelta(days=day):%Y-%m-%d}" for day in range(DAYS)]
    ran = subprocess.run(
        [sys.executable, str(file), *days],
        env={**os.environ, **stack.environment},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    pool = float(ran.stdout)
    left = [Store(f"{stack.home}/store", name).history("features") for name in ("batched", "by_pool")]
    content = [{one.partition: one.digest for one in writes} for writes in left]
    assert content[0] == content[1] and len(content[0]) == DAYS == len(left[0])
    with capsys.disabled():
        print(
            f"\n{DAYS} daily partitions through ingest, validate and process by a backfill of {runs} runs "
            f"{batched:.1f} s; in a pool of two processes {pool:.1f} s (ratio {batched / pool:.2f}). With a run each, "
            f"{fewer} of them took {single:.1f} s: {single / fewer:.2f} s against {pool / DAYS:.2f} s for one"
        )
