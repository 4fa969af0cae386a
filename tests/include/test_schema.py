from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from airworthy import kinds
from airworthy.profile import ROOT
from airworthy.schema import schema
from airworthy.starter import write_starter


def read(file: Path) -> Any:
    """Returns what an editor sees, to which a date is text."""
    return json.loads(json.dumps(yaml.safe_load(file.read_text()), default=str))


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    found = schema()
    Draft202012Validator.check_schema(found)
    return Draft202012Validator(found)


@pytest.fixture
def content(tmp_path: Path) -> Any:
    return read(write_starter("churn", tmp_path, datetime(2026, 1, 1, tzinfo=UTC))[0])


def test_the_projects_own_pipelines_fit(validator: Draft202012Validator) -> None:
    files = list((ROOT / "config" / "pipelines").glob("*.yaml"))
    assert files
    for file in files:
        assert list(validator.iter_errors(read(file))) == [], file


def test_the_file_that_editors_read_is_up_to_date() -> None:
    stored = json.loads((ROOT / "config" / "pipeline.schema.json").read_text())
    assert stored == schema(), "run `make schema`"


def test_every_kind_is_offered() -> None:
    properties = schema()["properties"]
    for field, family in (("source", "sources"), ("model", "models"), ("target", "targets")):
        offered = [next(iter(one["properties"])) for one in properties[field]["oneOf"] if "properties" in one]
        assert offered == kinds.names(family)  # type: ignore[arg-type]
    assert len(properties["gates"]["items"]["oneOf"]) == len(kinds.names("gates")) + 1


@pytest.mark.parametrize(
    "change",
    [
        {"gate": []},
        {"name": "churn"},
        {"gates": []},
        {"gates": [{"metric_flor": {}}]},
        {"gates": ["metric_floor"]},
        {"gates": [{"metric_floor": {"metric": "roc_auc", "floor": "high"}}]},
        {"gates": [{"servable": {}, "metric_floor": {"metric": "roc_auc", "floor": 1}}]},
        {"source": {"files": {}}},
        {"partition": "fortnight"},
        {"label": {"column": "late", "matures_after": "soon"}},
        {"checks": {"expectations": [{"expect_column_values_to_be_betwen": {"column": "x"}}]}},
        {"tune": {"space": {"a": {"flot": [0, 1]}}}},
    ],
    ids=str,
)
def test_mistakes_do_not_fit(validator: Draft202012Validator, content: Any, change: dict[str, Any]) -> None:
    assert validator.is_valid(content)
    assert not validator.is_valid({**content, **change})


@pytest.mark.parametrize("change", [{"gates": ["servable"]}, {"model": "xgboost"}, {"features": None}], ids=str)
def test_short_forms_fit(validator: Draft202012Validator, content: Any, change: dict[str, Any]) -> None:
    assert validator.is_valid({**content, **change})


def test_a_file_without_a_required_key_does_not_fit(validator: Draft202012Validator, content: Any) -> None:
    for key in ("description", "start", "source", "time", "key", "label", "model"):
        assert not validator.is_valid({name: value for name, value in content.items() if name != key}), key
