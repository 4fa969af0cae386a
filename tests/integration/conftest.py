"""One real stack for all integration tests: PostgreSQL, MLflow, Airflow's four components and serving."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect, sync_playwright

from airworthy.airflow_api import AirflowApi, wait_for
from airworthy.profile import ROOT
from airworthy.stack import free_ports, running_stack
from airworthy.store import Store
from webhook_server import Chat, chat_server

HERE = Path(__file__).parent
ALERTED = {"monitor: ": "alerts: {webhook: {connection: ops_chat}}\nmonitor: "}
# The pipelines of these tests: `tiny.yaml`, and what is different about the others.
VARIANTS: dict[str, dict[str, str]] = {
    "tiny": ALERTED,
    "outage": {"trials: 2": "trials: 100", "n_estimators: 30": "n_estimators: 300"},
    "damaged": {},
    "pages": {},
    "replayed": {},
    "walked": {
        "monitor:": """backtest:
  policies:
    recent: {train: {window: 4 days}}
    strict: {gates: [metric_floor: {metric: roc_auc, floor: 0.999}]}
monitor:"""
    },
    "played": {**ALERTED, "partition: day": "partition: day\nbatch: 10"},
    # Nothing drifts by its threshold, and nobody is told of bad data.
    "silenced": {
        "partition: day": "partition: day\nbatch: 10",
        "monitor: {prediction_drift: 0.3}": "alerts: {'on': [gates, drift]}\nmonitor: {prediction_drift: 1000}",
    },
    "returning": {"  - beats_champion: {confidence: 0.9}\n": ""},
    "noise": {**ALERTED, "synthetic:extract": "synthetic:extract_noise"},
    "one_class": {"synthetic:extract": "synthetic:extract_one_class"},
    "no_column": {"synthetic:extract": "synthetic:extract_without_label"},
    "raising": {"synthetic:features": "synthetic:raising_features"},
    "approving": {
        **ALERTED,
        "beats_champion: {confidence: 0.9}": (
            "approval: {assigned_users: [alice, bob], people: 2, answer_within: 2 hours}"
        ),
    },
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


@pytest.fixture(scope="session")
def chat() -> Iterator[Chat]:
    """Where alerts are posted; the stack knows it as the connection `ops_chat`."""
    with chat_server() as found:
        yield found


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5, trust_env=False).is_success
    except httpx.HTTPError:
        return False


@pytest.fixture(scope="session")
def stack(config_dir: Path, s3_url: str, chat: Chat) -> Iterator[Any]:
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
        "AIRFLOW_CONN_LAKE": json.dumps(
            {
                "conn_type": "aws",
                "login": "tester",
                "password": "hunter2",
                "extra": {"region_name": "us-east-1", "endpoint_url": s3_url},
            }
        ),
        "AIRFLOW_CONN_OPS_CHAT": chat.url,
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(bundles),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRWORTHY_USERS", "alice,bob,carol")
        with running_stack(home=config_dir.parent / "state", config=config_dir, extra=extra) as running:
            yield running


@pytest.fixture(scope="session")
def airflow(stack: Any) -> AirflowApi:
    api = AirflowApi(stack.airflow_url, "admin", stack.password)
    api.wait_for_dags("probes", *(f"{name}.{part}" for name in VARIANTS for part in ("ingest", "train", "monitor")))
    return api


@pytest.fixture(scope="module")
def sign_in(stack: Any) -> Iterator[Callable[[str], Page]]:
    """What opens Airflow in a real browser for one of its people."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("there is no Chromium here; .ci/run installs one")
    expect.set_options(timeout=60_000)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-dev-shm-usage"])

        def signed_in(user: str) -> Page:
            passwords = json.loads((stack.home / "airflow" / "passwords.json").read_text())
            page = chromium.new_page(base_url=stack.airflow_url, viewport={"width": 1440, "height": 1400})
            page.set_default_timeout(60_000)
            page.goto("/")
            page.locator("input[name=username]").fill(user)
            page.locator("input[name=password]").fill(passwords[user])
            page.keyboard.press("Enter")
            expect(page.get_by_text("Welcome")).to_be_visible()
            return page

        yield signed_in
        chromium.close()


@pytest.fixture(scope="session")
def store(stack: Any) -> Store:
    return Store(f"{stack.home}/store", "tiny")
