"""What the gates cost on a month of the flights, against the training they judge, with a search of 30 trials.

Run with `make benchmark`. It prints seconds measured side by side in one run, and asserts only that the honest
pipeline passes. The goal is an evaluation of at most a fifth of the training time.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from airworthy import kinds
from airworthy.config import Tune, load_pipeline
from airworthy.connections import from_environment
from airworthy.features import compute_features
from airworthy.gates import Gate, gather_all, judge_all
from airworthy.partitions import Partition, partitions_between
from airworthy.profile import ROOT, Profile
from airworthy.stages.evaluate import open_case
from airworthy.stages.train import train
from airworthy.store import Store
from ports import free_port

YEAR = Partition("2013", datetime(2012, 12, 31, tzinfo=UTC), datetime(2014, 1, 6, tzinfo=UTC))
AS_OF = datetime(2013, int(os.environ.get("AIRWORTHY_BENCHMARK_MONTH", "9")), 1, tzinfo=UTC)
TRIALS = int(os.environ.get("AIRWORTHY_BENCHMARK_TRIALS", "30"))
DECLARED = (
    {"metric_floor": {"metric": "roc_auc", "floor": 0.6}},
    "beats_champion",
    "slices",
    {"fairness": {"columns": ["origin", "carrier"], "difference": 0.5}},
    "signature",
    {"latency": {"p99_ms": 1000}},
    "size",
    "freshness",
    "explained",
    "leakage",
    "calibration",
    "servable",
    "stability",
)


@pytest.fixture
def mlflow_uri(tmp_path: Path) -> Iterator[str]:
    uri = f"http://127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", uri.rpartition(":")[2]]
    command += [
        "--backend-store-uri",
        f"sqlite:///{tmp_path}/mlflow.db",
        "--artifacts-destination",
        str(tmp_path / "a"),
    ]
    quiet = {"DO_NOT_TRACK": "true", "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (tmp_path / "mlflow.log").open("wb") as log:
        server = subprocess.Popen(
            command, stdout=log, stderr=log, env=os.environ | quiet, cwd=tmp_path, start_new_session=True
        )
    try:
        until(f"{uri}/health", server)
        yield uri
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=30)


def until(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"{url} does not answer")


@contextmanager
def timed(what: str, found: dict[str, float]) -> Iterator[None]:
    started = time.perf_counter()
    yield
    found[what] = time.perf_counter() - started
    print(f"{what:12} {found[what]:7.2f} s")


def test_what_the_gates_cost(mlflow_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRWORTHY_HOME", str(tmp_path))
    pipeline = load_pipeline(ROOT / "config" / "pipelines" / "flight_delays.yaml")
    gates = [kinds.parse("gates", declared) for declared in DECLARED]
    tune = Tune(trials=TRIALS, space=pipeline.tune.space)
    pipeline = pipeline.model_copy(update={"tune": tune, "gates": tuple(gates)})
    local = "http://127.0.0.1:1"
    profile = Profile(
        store_uri=str(tmp_path / "store"),
        reports_dir=tmp_path / "reports",
        mlflow_uri=mlflow_uri,
        ledger_url=f"sqlite:///{tmp_path}/ledger.db",
        serving_url=local,
        airflow_url=local,
    )
    store, year = Store(profile.store_uri, pipeline.name), pipeline.source.extract(YEAR, from_environment).frame()
    features = year[[*pipeline.key, pipeline.time, pipeline.label.column]].join(compute_features(pipeline, year))
    for partition in partitions_between("week", pipeline.start, AS_OF):
        inside = (year["time_hour"] >= partition.start) & (year["time_hour"] < partition.end)
        store.write("raw", partition, year[inside])
        store.write("features", partition, features[inside])
    seconds: dict[str, float] = {}
    with timed("training", seconds):
        challenger = train(pipeline, AS_OF, profile)
    with timed("evaluation", seconds), open_case(pipeline, challenger, None, profile) as case:
        print(f"{'':12} {len(case.rows):7,} rows in the holdout")
        for gate in gates:
            assert isinstance(gate, Gate)
            with timed(gate.kind(), seconds):
                (verdict,) = judge_all([gate], gather_all([gate], case))
            assert verdict.passed, verdict
    print(f"evaluation is {seconds['evaluation'] / seconds['training']:.0%} of training with {TRIALS} trials")
