"""The DAG folder as Airflow reads it: exactly the declared DAGs, and nothing heavy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from airworthy.config import load_all
from airworthy.profile import ROOT

PARTS = ("ingest", "quarantine", "train", "rollback", "monitor", "rebuild")
FLIGHTS = ROOT / "config" / "pipelines" / "flight_delays.yaml"
HEAVY = {"pandas", "mlflow", "xgboost", "sklearn", "great_expectations", "evidently", "optuna", "pyarrow", "deltalake"}
PROBE = """
import json, sys
from airflow.dag_processing.dagbag import DagBag
import airflow.sdk
bag = DagBag(sys.argv[1], bundle_path=sys.argv[1])
print(json.dumps({
    "dags": {d: {"owner": g.owner, "tags": sorted(g.tags), "doc": g.doc_md, "description": g.description,
                 "tasks": [t.task_id for t in g.topological_sort()]} for d, g in bag.dags.items()},
    "errors": bag.import_errors,
    "modules": sorted(m for m in sys.modules if "." not in m),
}))
"""


def read_dags(home: Path, config: Path, folder: Path = ROOT / "dags") -> dict:
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(home),
        "AIRWORTHY_HOME": str(home),
        "AIRWORTHY_CONFIG": str(config),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in ("plugins", "include")),
    }
    command = [sys.executable, "-c", PROBE, str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.strip().splitlines()[-1])


def read_variant(home: Path, name: str, text: str) -> dict:
    """Returns the DAGs of a pipeline whose file says this, by their names; none of its errors is let through."""
    file = home / "config" / "pipelines" / f"{name}.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    found = read_dags(home, home / "config")
    assert found["errors"] == {}
    return found["dags"]


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> dict:
    return read_dags(tmp_path_factory.mktemp("airflow"), ROOT / "config")


def test_exactly_the_declared_dags_are_there(bag: dict) -> None:
    healthy, broken = load_all(ROOT / "config" / "pipelines")
    assert broken == {} and bag["errors"] == {}
    assert set(bag["dags"]) == {f"{name}.{part}" for name in healthy for part in PARTS} | {"game_day"}


def test_the_dags_read_as_their_stages(bag: dict) -> None:
    assert bag["dags"]["flight_delays.ingest"]["tasks"] == ["ingest", "validate", "process"]
    assert bag["dags"]["flight_delays.quarantine"]["tasks"] == ["decide", "apply", "validate", "process"]
    assert bag["dags"]["flight_delays.train"]["tasks"] == ["train", "evaluate", "gates", "deploy"]
    assert bag["dags"]["flight_delays.rebuild"]["tasks"] == ["rebuild"]
    assert bag["dags"]["game_day"]["tasks"][:2] == ["copy", "inject"]
    assert set(bag["dags"]["game_day"]["tasks"][2:]) == {"report", "remove"}
    assert bag["dags"]["flight_delays.monitor"]["tasks"][0] == "score"
    assert bag["dags"]["flight_delays.monitor"]["tasks"][-1] == "decide"


def test_a_pipeline_with_a_canary_looks_at_it_after_performance(tmp_path: Path) -> None:
    dags = read_variant(tmp_path, "tried", f"{FLIGHTS.read_text()}\ncanary: {{shares: [0.2]}}\n")
    tasks = dags["tried.monitor"]["tasks"]
    assert set(tasks) == {"score", "drift", "performance", "decide", "canary"}
    assert tasks.index("canary") > tasks.index("performance")


def test_a_pipeline_that_asks_about_its_quarantine_does_so_after_validating(tmp_path: Path) -> None:
    dags = read_variant(tmp_path, "asking", f"{FLIGHTS.read_text()}\nquarantine: {{ask: true}}\n")
    assert set(dags["asking.ingest"]["tasks"]) == {"ingest", "validate", "process", "questions", "ask"}
    assert set(dags["asking.quarantine"]["tasks"]) == {
        "decide",
        "apply",
        "validate",
        "process",
        "questions",
        "ask",
    }


@pytest.mark.parametrize(
    ("gates", "asked"),
    [
        ("[servable, {approval: {people: 3}}]", ["approve_1", "approve_2", "approve_3"]),
        ("[{servable: {on_fail: ask}}]", ["approve"]),
        ("[{servable: {on_fail: warn}}]", []),
    ],
)
def test_a_pipeline_whose_gates_may_ask_asks_before_it_deploys(tmp_path: Path, gates: str, asked: list[str]) -> None:
    before, _, after = FLIGHTS.read_text().partition("\ngates:\n")
    rest = after[after.index("target:") :]
    dags = read_variant(tmp_path, "approving", f"{before}\ngates: {gates}\n{rest}")
    assert dags["approving.train"]["tasks"] == ["train", "evaluate", "gates", *asked, "deploy"]


def test_each_dag_has_an_owner_tags_a_description_and_a_page(bag: dict) -> None:
    for dag_id, dag in bag["dags"].items():
        assert dag["owner"] not in {"", "airflow"} and dag["description"] and dag["doc"], dag_id
        assert {"airworthy", *dag_id.split(".")} <= set(dag["tags"])


def test_reading_the_folder_imports_no_heavy_library(bag: dict) -> None:
    assert HEAVY & set(bag["modules"]) == set()


def test_one_broken_file_leaves_the_other_pipelines_alone(tmp_path: Path) -> None:
    config = tmp_path / "config"
    (config / "pipelines").mkdir(parents=True)
    healthy = (ROOT / "config" / "pipelines" / "flight_delays.yaml").read_text()
    (config / "pipelines" / "healthy.yaml").write_text(healthy)
    (config / "pipelines" / "broken.yaml").write_text("description: 7\n")
    bag = read_dags(tmp_path, config)
    assert set(bag["dags"]) == {f"healthy.{part}" for part in PARTS} | {"game_day"}
    assert [Path(file).name for file in bag["errors"]] == ["config_errors.py"]
    assert "pipelines/broken.yaml: description" in next(iter(bag["errors"].values()))


def test_dag_files_are_short() -> None:
    for file in (ROOT / "dags").glob("*.py"):
        assert len(file.read_text().splitlines()) <= 60, file.name
