from __future__ import annotations

import itertools
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import pipelines
from airworthy.config import Pipeline, load_pipeline
from airworthy.connections import from_environment
from airworthy.errors import ConfigError
from airworthy.features import compute_features
from airworthy.partitions import parse_key, partitions_between
from airworthy.profile import ROOT
from airworthy.stages.ingest import ingest
from airworthy.stages.process import process
from airworthy.stages.validate import validate
from airworthy.starter import write_starter
from airworthy.store import Store

TODAY = datetime(2026, 6, 1, tzinfo=UTC)

_numbers = itertools.count()


@pytest.fixture
def starter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    declaration, module = write_starter(f"starter_{next(_numbers)}", tmp_path, TODAY)
    monkeypatch.setenv("AIRWORTHY_CONFIG", str(tmp_path / "config"))
    monkeypatch.setattr(pipelines, "__path__", [*pipelines.__path__, str(module.parent)])
    return load_pipeline(declaration)


def test_it_runs_as_it_is(starter: Pipeline, tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"), starter.name)
    for partition in partitions_between("day", starter.start, starter.start + timedelta(days=3)):
        raw = ingest(starter, partition, store)
        found = validate(starter, partition, raw, store, tmp_path / "reports")
        assert found.failures == () and raw.rows == 400
        process(starter, partition, found, store)
    assert len(store.read("features")) == 1200


def test_it_starts_where_there_is_something_to_fill(starter: Pipeline) -> None:
    assert starter.start == TODAY - timedelta(days=60)


@pytest.mark.parametrize("key", ["1999-12-31", "2024-02-29", "2026-06-01", "2080-01-01"])
def test_its_rows_are_the_same_each_time_whatever_the_date(starter: Pipeline, key: str) -> None:
    partition = parse_key("day", key)
    rows = starter.source.extract(partition, from_environment).frame()
    assert rows.equals(starter.source.extract(partition, from_environment).frame())
    assert len(rows) == 400 and rows["parcel_id"].is_unique
    assert rows["dispatched_at"].between(partition.start, partition.end, inclusive="left").all()
    assert 0.02 < rows["late"].mean() < 0.8


def test_any_grain_gives_the_same_rows(starter: Pipeline) -> None:
    week = starter.source.extract(parse_key("week", "2026-01-05"), from_environment).frame()
    hours = [
        starter.source.extract(hour, from_environment).frame()
        for hour in partitions_between("hour", TODAY, TODAY + timedelta(days=1))
    ]
    assert len(week) == 2800 and sum(map(len, hours)) == 400


def test_there_is_something_to_learn(starter: Pipeline) -> None:
    rows = starter.source.extract(parse_key("month", "2026-01-01"), from_environment).frame()
    features = compute_features(starter, rows)
    far = features["distance_km"] > features["distance_km"].median()
    assert rows["late"][far].mean() > rows["late"][~far].mean() + 0.1


def test_every_key_a_file_may_have_is_explained(tmp_path: Path) -> None:
    text = write_starter("churn", tmp_path, TODAY)[0].read_text()
    assert text.startswith("# yaml-language-server: $schema=../pipeline.schema.json\n")
    for key in set(Pipeline.model_fields) - {"name"}:
        assert re.search(rf"^(# .*)?`?{key}:", text, re.MULTILINE), key


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    declaration, module = write_starter("churn", tmp_path)
    declaration.write_text("mine")
    with pytest.raises(
        ConfigError, match=r"^config/pipelines/churn\.yaml: must not exist yet\. Choose another NAME\.$"
    ):
        write_starter("churn", tmp_path)
    assert declaration.read_text() == "mine"
    declaration.unlink()
    module.write_text("mine")
    with pytest.raises(ConfigError, match=r"^include/pipelines/churn\.py: must not exist yet"):
        write_starter("churn", tmp_path)
    assert module.read_text() == "mine" and not declaration.exists()


@pytest.mark.parametrize("name", ["", "Churn", "late-parcels", "../escape", "1st", "x" * 51, "a b"])
def test_a_name_that_cannot_be_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="NAME: must be lower case letters"):
        write_starter(name, tmp_path)
    assert list(tmp_path.rglob("*")) == []


def test_the_projects_own_names_are_taken() -> None:
    with pytest.raises(ConfigError, match="must not exist yet"):
        write_starter("flight_delays", ROOT)
