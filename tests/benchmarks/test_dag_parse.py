"""How long Airflow takes to read `dags/`: with ten pipelines, with one, and a folder with one plain DAG."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from airworthy.profile import ROOT

REPEATS = 5
PROBE = """
import sys, time
import airflow.sdk
from airflow.dag_processing.dagbag import DagBag
started = time.perf_counter()
bag = DagBag(sys.argv[1], bundle_path=sys.argv[1])
print([time.perf_counter() - started, len(bag.dags)])
"""
PLAIN = """
from airflow.sdk import dag, task

@dag
def plain():
    @task
    def nothing():
        pass

    nothing()

plain()
"""


def parse(folder: Path, home: Path) -> tuple[float, int]:
    """Returns the median seconds of a fresh process, and how many DAGs it found."""
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(home),
        "AIRWORTHY_CONFIG": str(home / "config"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "PYTHONPATH": str(ROOT / "plugins"),
    }
    command = [sys.executable, "-c", PROBE, str(folder)]
    found = [
        json.loads(subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE).stdout.splitlines()[-1])
        for _ in range(REPEATS)
    ]
    return statistics.median(seconds for seconds, _ in found), found[0][1]


def test_reading_the_dags(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "config" / "pipelines" / "flight_delays.yaml").read_text()
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "plain.py").write_text(PLAIN)
    for count in (1, 10):
        folder = tmp_path / str(count) / "config" / "pipelines"
        folder.mkdir(parents=True)
        for number in range(count):
            (folder / f"pipeline_{number}.yaml").write_text(text)
    plain, _ = parse(tmp_path / "plain", tmp_path / "1")
    one, three = parse(ROOT / "dags", tmp_path / "1")
    ten, thirty = parse(ROOT / "dags", tmp_path / "10")
    assert (three, thirty) == (3, 30)
    with capsys.disabled():
        print(
            f"\nA DagBag of dags/ with 10 pipelines takes {ten:.2f} s, with one {one:.2f} s (ratio {ten / one:.1f}); "
            f"a folder with one plain DAG {plain:.2f} s (ratio {ten / plain:.1f})"
        )
