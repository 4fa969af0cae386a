"""Seven stages under Airflow against the same work in one plain Python script, and without preloading.

Run with `make benchmark`. It prints times and ratios measured side by side in one run; it asserts only
that each side did the work.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
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
import sys, time
from datetime import UTC, datetime
from airworthy.config import load_pipeline
from airworthy.ledger import Ledger
from airworthy.partitions import parse_key
from airworthy.profile import load_profile, pipelines_dir
from airworthy.stages import deploy, evaluate, ingest, monitor, process, train, validate
from airworthy.store import Store

profile = load_profile()

def data(pipeline, day):
    partition, store = parse_key("day", day), Store(profile.store_uri, pipeline.name)
    raw = ingest.ingest(pipeline, partition, store)
    validation = validate.validate(pipeline, partition, raw, store, profile.reports_dir)
    process.process(pipeline, partition, validation, store)
    return partition

def seven_stages(pipeline, day, as_of):
    partition = data(pipeline, day)
    challenger = train.train(pipeline, datetime.fromisoformat(as_of).replace(tzinfo=UTC), profile)
    champion = Ledger(profile.ledger_url).champion_at(pipeline.name, challenger.as_of, besides=challenger.run_id)
    evaluation = evaluate.evaluate(pipeline, challenger, champion, profile)
    verdicts = evaluate.judge(pipeline, challenger, evaluation, profile)
    release = deploy.deploy(pipeline, challenger, evaluation, verdicts, profile, actor="plain script")
    assert release.action == "promoted", release
    predictions = monitor.score(pipeline, partition, profile)
    found = monitor.drift(pipeline, partition, predictions, profile)
    monitor.decide(pipeline, partition, found, monitor.performance(pipeline, partition, predictions, profile))

as_of, *days = sys.argv[1:]
pipelines = [load_pipeline(pipelines_dir() / f"{name}.yaml") for name in ("first_script", "second_script")]
if as_of == "prepare":
    for pipeline in pipelines:
        for day in days:
            data(pipeline, day)
else:
    for pipeline in pipelines:
        started = time.perf_counter()
        seven_stages(pipeline, days[0], as_of)
        print(time.perf_counter() - started)
"""


@pytest.fixture(params=["local", "cold"])
def stack(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    config = tmp_path / "config"
    shutil.copytree(ROOT / "config" / "profiles", config / "profiles")
    (config / "profiles" / "cold.yaml").write_text("preload: []\n")
    (config / "pipelines").mkdir()
    text = (INTEGRATION / "tiny.yaml").read_text()
    for name in ("by_airflow", "first_script", "second_script"):
        (config / "pipelines" / f"{name}.yaml").write_text(text)
    extra = {"PYTHONPATH": str(INTEGRATION / "modules"), "AIRWORTHY_PROFILE": request.param}
    with running_stack(home=tmp_path / "state", config=config, extra=extra) as running:
        yield running


def run_plainly(stack: Any, *arguments: str) -> str:
    command = [sys.executable, "-c", PLAIN, *arguments]
    return subprocess.run(
        command, env={**os.environ, **stack.environment}, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


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

    run_plainly(stack, "prepare", *days)
    first, again = (float(line) for line in run_plainly(stack, as_of, last).splitlines())
    with capsys.disabled():
        print(
            f"\n[{stack.environment['AIRWORTHY_PROFILE']}] the seven stages in {tasks} tasks under Airflow "
            f"{under_airflow:.1f} s; in one plain script {first:.1f} s (ratio {under_airflow / first:.2f}), and once "
            f"more, with everything imported, {again:.1f} s: {(under_airflow - again) / tasks:.2f} s a task on top"
        )
