"""What README.md tells people to write works as it is written there."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import import_module
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import yaml

from airworthy import kinds
from airworthy.config import load_pipeline
from airworthy.connections import from_environment
from airworthy.errors import ServiceError
from airworthy.evidence import Evidence, Scores
from airworthy.partitions import parse_key
from airworthy.profile import ROOT
from airworthy.targets import Target
from airworthy.wait import Wait
from serving_process import promote, trained
from toy_pipeline import Toy

README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def added(family: kinds.Family, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Returns the name of the kind that the README adds to a family, which has it from here on."""
    found = re.search(
        rf"`include/airworthy/{family}/(\w+)\.py`[^`]*```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL
    )
    assert found is not None
    (folder / f"{found[1]}.py").write_text(found[2])
    package = import_module(f"airworthy.{family}")
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
    return found[1]


def test_the_pipeline_is_one(tmp_path: Path) -> None:
    (text,) = (block for block in blocks("yaml") if block.startswith("description:"))
    file = tmp_path / "churn.yaml"
    file.write_text(text)
    assert load_pipeline(file).label.column == "missed"


def test_what_watches_the_champion_is_read(toy: Toy) -> None:
    (text,) = (block for block in blocks("yaml") if block.startswith("monitor:"))
    shown = yaml.safe_load(text)
    pipeline = toy.pipeline(**shown)
    assert pipeline.retrain.budget == 4 and pipeline.alerts is not None
    assert set(pipeline.alerts.respond) == {"drift", "decay", "data", "labels"}


def test_every_source_that_is_shown_is_one() -> None:
    (text,) = (block for block in blocks("yaml") if block.startswith("source:"))
    shown = yaml.safe_load(text)["source"]
    assert sorted(shown) == kinds.names("sources")
    for name, fields in shown.items():
        if name != "python":  # whose function is the reader's own
            found = kinds.parse("sources", {name: fields}).model_dump(mode="json", exclude_defaults=True)
            assert found | {"labels": None} == fields | {"labels": None}  # which are a source of their own


def test_the_wait_that_is_shown_is_one() -> None:
    (text,) = (block for block in blocks("yaml") if block.startswith("wait:"))
    assert Wait.model_validate(yaml.safe_load(text)["wait"]).timeout.hours == 6


def test_the_view_is_one_of_that_pipeline(tmp_path: Path) -> None:
    text, views = (
        next(block for block in blocks("yaml") if block.startswith(key)) for key in ("description:", "views:")
    )
    file = tmp_path / "churn.yaml"
    file.write_text(text + views)
    (view,) = load_pipeline(file).views.values()
    assert (view.key, view.columns, view.online.kind()) == (("depot",), ("temp", "wind"), "sqlite")
    for online in re.findall(r"or (\w+: \{connection: )<id>\}", views):
        file.write_text(text + views.replace("online: sqlite", f"online: {{{online}weather_db}}}}"))
        assert load_pipeline(file).views["weather"].online.kind() == online.partition(":")[0]


@pytest.mark.parametrize(("spread", "passed"), [(1.0, True), (0.01, False)])
def test_the_gate_judges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spread: float, passed: bool) -> None:
    gate = kinds.parse("gates", {added("gates", tmp_path, monkeypatch): {"least": 0.1}})
    evidence = Evidence(
        task="binary",
        metric="roc_auc",
        label=np.arange(10) % 2,
        block=np.arange(10),
        challenger=Scores(version="", prediction=np.linspace(0, spread, 10), metrics={}),
        has_champion=False,
    )
    verdict = gate.judge(evidence)
    assert (verdict.gate, verdict.passed) == ("not_constant", passed)


def test_the_request_names_every_column_of_a_flight() -> None:
    (found,) = re.findall(r"-d '(\{\"dataframe_records.*?)'", README, re.DOTALL)
    (record,) = json.loads(found)["dataframe_records"]
    flights = load_pipeline(ROOT / "config" / "pipelines" / "flight_delays.yaml")
    week = flights.source.extract(parse_key("week", "2013-12-23"), from_environment).frame()
    assert set(record) == set(week.columns) - {flights.label.column}


class Service(BaseHTTPRequestHandler):
    """Loads what it is told under `/load`, and fails to under any other path."""

    told: ClassVar[list[bytes]] = []

    def do_POST(self) -> None:
        self.told.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200 if self.path == "/load" else 500)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def service() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Service) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_the_target_goes_live(toy: Toy, service: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "targets"
    folder.mkdir()
    name = added("targets", folder, monkeypatch)
    toy.fill(toy.pipeline(), toy.rows())
    entry = promote(toy, trained(toy, toy.pipeline()))
    targets = [kinds.parse("targets", {name: {"url": f"{service}/{path}"}}) for path in ("load", "broken")]
    assert all(isinstance(target, Target) for target in targets)
    assert targets[0].wait_until_live(entry, toy.profile) == f"{service}/load"
    assert entry.digest.encode() in Service.told[0]
    with pytest.raises(ServiceError, match="must load version 1"):
        targets[1].wait_until_live(entry, toy.profile)
