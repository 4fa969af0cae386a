"""Seven stages under Airflow against the same work in one plain Python script, and without preloading.

Run with `make benchmark`. It prints times and ratios measured side by side in one run; it asserts only
that each side did the work.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from airworthy.airflow_api import AirflowApi
from airworthy.profile import ROOT
from airworthy.stack import running_stack

INTEGRATION = ROOT / "tests" / "integration"
PARTITIONS = 8
PLAIN = """
import sys
from datetime import UTC, datetime
from airworthy.config import load_pipeline
from airworthy.ledger import Ledger
from airworthy.partitions import parse_key
from airworthy.profile import load_profile, pipelines_dir
from airworthy.stages import deploy, evaluate, ingest, monitor, process, train, validate
from airworthy.store import Store

pipeline = load_pipeline(pipelines_dir() / f"{sys.argv[1]}.yaml")
profile = load_profile()
store = Store(profile.store_uri, pipeline.name)
partition = parse_key("day", sys.argv[2])
raw = ingest.ingest(pipeline, partition, store)
validation = validate.validate(pipeline, partition, raw, store, profile.reports_dir)
process.process(pipeline, partition, validation, store)
if len(sys.argv) > 3:
    challenger = train.train(pipeline, datetime.fromisoformat(sys.argv[3]).replace(tzinfo=UTC), profile)
    champion = Ledger(profile.ledger_url).champion_at(pipeline.name, challenger.as_of, besides=challenger.run_id)
    evaluation = evaluate.evaluate(pipeline, challenger, champion, profile)
    verdicts = evaluate.judge(pipeline, challenger, evaluation, profile)
    deploy.deploy(pipeline, challenger, evaluation, verdicts, profile, actor="plain script")
    predictions = monitor.score(pipeline, partition, profile)
    found = monitor.drift(pipeline, partition, predictions, profile)
    monitor.decide(pipeline, partition, found, monitor.performance(pipeline, partition, predictions, profile))
"""


@pytest.fixture(params=["local", "cold"])
def stack(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    config = tmp_path / "config"
    shutil.copytree(ROOT / "config" / "profiles", config / "profiles")
    (config / "profiles" / "cold.yaml").write_text("preload: []\n")
    (config / "pipelines").mkdir()
    text = (INTEGRATION / "tiny.yaml").read_text()
    for name in ("by_airflow", "by_script"):
        (config / "pipelines" / f"{name}.yaml").write_text(text)
    extra = {"PYTHONPATH": str(INTEGRATION / "modules"), "AIRWORTHY_PROFILE": request.param}
    with running_stack(home=tmp_path / "state", config=config, extra=extra) as running:
        yield running


def seconds_of(run: dict[str, Any]) -> float:
    ended, asked = (datetime.fromisoformat(run[key]) for key in ("end_date", "queued_at"))
    return (ended - asked).total_seconds()


def test_seven_stages_against_a_plain_script(stack: Any, capsys: pytest.CaptureFixture[str]) -> None:
    airflow = AirflowApi(stack.airflow_url, "admin", stack.password)
    for part in ("ingest", "train", "monitor"):
        airflow.unpause(f"by_airflow.{part}")
    days = [f"2026-01-{day:02d}" for day in range(1, PARTITIONS + 1)]
    as_of = f"2026-01-{PARTITIONS + 2:02d}"
    last = f"2026-01-{PARTITIONS + 1:02d}"
    first_day, last_day = (datetime.fromisoformat(day).replace(tzinfo=UTC) for day in (days[0], days[-1]))
    airflow.backfill("by_airflow.ingest", first_day, last_day)
    assert {run["state"] for run in airflow.wait_for_backfill("by_airflow.ingest")} == {"success"}

    under_airflow, tasks = 0.0, 0
    for part, conf in (("ingest", {"partition": last}), ("train", {"as_of": as_of}), ("monitor", {"partition": last})):
        dag_id = f"by_airflow.{part}"
        run = airflow.wait(dag_id, airflow.trigger(dag_id, **conf))
        assert run["state"] == "success", (dag_id, run)
        under_airflow += seconds_of(run)
        tasks += len(airflow.tasks(dag_id, run["dag_run_id"]))

    environment = {**os.environ, **stack.environment}
    for day in days:
        subprocess.run([sys.executable, "-c", PLAIN, "by_script", day], env=environment, check=True)
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", PLAIN, "by_script", last, as_of], env=environment, check=True)
    plain = time.perf_counter() - started

    with capsys.disabled():
        print(
            f"\n[{stack.environment['AIRWORTHY_PROFILE']}] {tasks} tasks under Airflow {under_airflow:.1f} s, "
            f"one plain script {plain:.1f} s (imports included): ratio {under_airflow / plain:.2f}, "
            f"{(under_airflow - plain) / tasks:+.2f} s a task"
        )
