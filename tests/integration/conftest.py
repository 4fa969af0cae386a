"""One real stack for all integration tests: PostgreSQL, MLflow, Airflow's four components and serving."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airworthy.airflow_api import AirflowApi
from airworthy.profile import ROOT
from airworthy.stack import running_stack
from airworthy.store import Store

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def config_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project") / "config"
    shutil.copytree(HERE / "pipelines", folder / "pipelines")
    return folder


@pytest.fixture(scope="session")
def stack(config_dir: Path) -> Iterator[Any]:
    bundles = [
        {
            "name": name,
            "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
            "kwargs": {"path": str(path)},
        }
        for name, path in (("dags-folder", ROOT / "dags"), ("probes", HERE / "dags"))
    ]
    extra = {
        "PYTHONPATH": str(HERE / "modules"),
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(bundles),
    }
    with running_stack(home=config_dir.parent / "state", config=config_dir, extra=extra) as running:
        yield running


@pytest.fixture(scope="session")
def airflow(stack: Any) -> AirflowApi:
    return AirflowApi(stack.airflow_url, "admin", stack.password)


@pytest.fixture(scope="session")
def store(stack: Any) -> Store:
    return Store(f"{stack.home}/store", "tiny")
