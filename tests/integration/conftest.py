"""One real stack for all integration tests: PostgreSQL, MLflow, Airflow's four components and serving."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airworthy.airflow_api import AirflowApi
from airworthy.profile import ROOT
from airworthy.stack import running_stack
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
        "PYTHONPATH": os.pathsep.join(filter(None, [str(HERE / "modules"), os.environ.get("PYTHONPATH")])),
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
