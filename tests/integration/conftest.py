"""One real stack for all integration tests: PostgreSQL, MLflow, Airflow's four components and serving."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from airworthy.airflow_api import AirflowApi, wait_for
from airworthy.profile import ROOT
from airworthy.stack import free_ports, running_stack
from airworthy.store import Store

HERE = Path(__file__).parent
# The pipelines of these tests: `tiny.yaml`, and what is different about the others.
VARIANTS: dict[str, dict[str, str]] = {
    "tiny": {},
    "outage": {},
    "damaged": {},
    "pages": {},
    "replayed": {},
    "noise": {"synthetic:extract": "synthetic:extract_noise"},
    "one_class": {"synthetic:extract": "synthetic:extract_one_class"},
    "no_column": {"synthetic:extract": "synthetic:extract_without_label"},
    "raising": {"synthetic:features": "synthetic:raising_features"},
    "asking": {
        "synthetic:extract": "synthetic:extract_in_milli",
        "time: at": "quarantine: {ask: true, repairs: {in_units: 'synthetic:in_units'}}\ntime: at",
    },
    **{
        f"bad_{name}": {
            'python: {function: "synthetic:extract"}': f"files: {{glob: 'DATA/bad_{name}/{{partition}}.{suffix}'}}"
        }
        for name, suffix in (("parquet", "parquet"), ("csv", "csv.gz"))
    },
    "corrected": {'python: {function: "synthetic:extract"}': "files: {glob: 'DATA/corrected/{partition}.parquet'}"},
    "not_parquet": {'python: {function: "synthetic:extract"}': "files: {glob: 'DATA/{partition}.parquet'}"},
}


@pytest.fixture(scope="session")
def config_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project") / "config"
    (folder / "pipelines").mkdir(parents=True)
    for name, replaced in VARIANTS.items():
        text = (HERE / "tiny.yaml").read_text()
        for old, new in replaced.items():
            assert old in text
            text = text.replace(old, new)
        text = text.replace("DATA", str(folder.parent / "data"))
        (folder / "pipelines" / f"{name}.yaml").write_text(text)
    return folder


@pytest.fixture(scope="session")
def s3_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a local server that speaks S3; the stack knows it as the connection `lake`."""
    port = free_ports().airflow
    url = f"http://127.0.0.1:{port}"
    with (tmp_path_factory.mktemp("s3") / "log").open("wb") as log:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_for("the S3 server", lambda: (server.poll() is None and _answers(url)) or None, timeout=60)
        yield url
    finally:
        server.terminate()
        server.wait(timeout=30)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5, trust_env=False).is_success
    except httpx.HTTPError:
        return False


@pytest.fixture(scope="session")
def stack(config_dir: Path, s3_url: str) -> Iterator[Any]:
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
        "AIRFLOW_CONN_LAKE": json.dumps(
            {
                "conn_type": "aws",
                "login": "tester",
                "password": "hunter2",
                "extra": {"region_name": "us-east-1", "endpoint_url": s3_url},
            }
        ),
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(bundles),
    }
    with running_stack(home=config_dir.parent / "state", config=config_dir, extra=extra) as running:
        yield running


@pytest.fixture(scope="session")
def airflow(stack: Any) -> AirflowApi:
    api = AirflowApi(stack.airflow_url, "admin", stack.password)
    api.wait_for_dags("probes", *(f"{name}.{part}" for name in VARIANTS for part in ("ingest", "train", "monitor")))
    return api


@pytest.fixture(scope="session")
def store(stack: Any) -> Store:
    return Store(f"{stack.home}/store", "tiny")
