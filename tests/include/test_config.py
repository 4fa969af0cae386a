from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from airworthy.config import Pipeline, load_all, load_pipeline
from airworthy.errors import Problems
from airworthy.kinds import names
from airworthy.profile import ROOT

GOOD: dict[str, Any] = {
    "description": "Who will leave?",
    "start": "2026-01-01",
    "source": {"files": {"glob": "data/{partition}.csv"}},
    "time": "at",
    "key": ["id"],
    "label": {"column": "left"},
    "model": {"xgboost": {}},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "config" / "pipelines"
    found.mkdir(parents=True)
    return found


def write(folder: Path, content: dict[str, Any] | str, name: str = "churn") -> Path:
    file = folder / f"{name}.yaml"
    file.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return file


def lines(folder: Path, **changes: Any) -> list[str]:
    """Returns the problems of a file that differs from a good one; an Ellipsis takes a key out."""
    content = copy.deepcopy({key: value for key, value in {**GOOD, **changes}.items() if value is not ...})
    with pytest.raises(Problems) as raised:
        load_pipeline(write(folder, content))
    found = str(raised.value).splitlines()
    assert all(line.startswith("config/pipelines/churn.yaml: ") for line in found)
    return [line.removeprefix("config/pipelines/churn.yaml: ") for line in found]


def test_a_short_file_gets_every_default(folder: Path) -> None:
    found = load_pipeline(write(folder, GOOD))
    assert found.name == "churn" and found.partition == "day" and found.metric == "roc_auc"
    defaults = ["beats_champion", "slices", "calibration", "signature", "freshness", "leakage", "explained", "servable"]
    assert [gate.kind() for gate in found.gates] == defaults
    assert found.target.kind() == "serving" and found.features is None


def test_quarantine_declares_who_is_asked_and_what_may_be_done(folder: Path) -> None:
    declared = {"ask": True, "repairs": {"tidy": "json:loads"}, "answer_within": "2 days", "assigned_users": ["ann"]}
    found = load_pipeline(write(folder, {**GOOD, "quarantine": declared})).quarantine
    assert found.ask and found.options == ["drop", "repair: tidy", "release"]
    (line,) = lines(folder, quarantine={"repairs": {"Tidy up": "json:loads"}})
    assert line.startswith("quarantine.repairs.Tidy up")
    (line,) = lines(folder, quarantine={"repairs": {"tidy": "no_such_module:tidy"}})
    assert "quarantine.repairs.tidy" in line and "'no_such_module', which cannot be imported" in line
    (line,) = lines(folder, quarantine={"answer_within": "0 days"})
    assert line.startswith("quarantine.answer_within must be longer than nothing")


def test_a_key_without_a_value_is_a_key_left_out(folder: Path) -> None:
    text = yaml.safe_dump(GOOD) + "checks:\ntune:\nfeatures:\n"
    assert load_pipeline(write(folder, text)) == load_pipeline(write(folder, GOOD))


def test_a_pipeline_survives_being_written_and_read(folder: Path) -> None:
    content = {
        **GOOD,
        "train": {"window": "36 hours", "holdout": "2 weeks"},
        "tune": {"space": {"a": {"int": [1, 3]}, "b": {"float": [0.1, 1], "log": True}, "c": {"choice": ["x", 1]}}},
        "gates": [{"metric_floor": {"metric": "roc_auc", "floor": 0.6}}, "servable"],
        "checks": {"expectations": [{"expect_column_to_exist": {"column": "id"}}]},
    }
    found = load_pipeline(write(folder, content))
    assert Pipeline.model_validate_json(json.dumps(found.model_dump(mode="json"))) == found


def test_three_errors_give_three_lines(folder: Path) -> None:
    assert lines(
        folder,
        partition="fortnight",
        checks={"expectations": [{"expect_column_values_to_be_betwen": {"column": "load"}}]},
        gates=[{"metric_floor": {"metric": "roc_auc", "floor": "high"}}],
    ) == [
        "partition must be one of hour, day, week, month. Got 'fortnight'.",
        "checks.expectations[0] must be an expectation of the installed Great Expectations. "
        "Got 'expect_column_values_to_be_betwen'. Perhaps expect_column_values_to_be_between is meant.",
        "gates[0].metric_floor.floor must be a number. Got 'high'.",
    ]


METRICS = "roc_auc, average_precision, log_loss, accuracy"
SPAN = "a whole number of seconds, minutes, hours, days, weeks or months"
RANGE = "must be written as `int: [1, 9]`, `float: [0.1, 1]` or `choice: [a, b]`."


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"description": ..., "key": ...}, ["description is required.", "key is required."]),
        ({"gate": []}, ["gate is not a known key. Check the spelling."]),
        ({"start": "soon"}, ["start must be a date, e.g. 2013-01-31. Got 'soon'."]),
        (
            {"key": ["version"]},
            [
                "key must be none of partition, prediction, version, which the tables use themselves. Got 'version'. "
                "Give the column another name in extract()."
            ],
        ),
        (
            {"label": {"column": "left", "matures_after": "30 days"}, "train": {"holdout": "1 month"}},
            ["train.holdout must be longer than label.matures_after, or no label of it is known. Got '1 months'."],
        ),
        (
            {"label": {"column": "left", "matures_after": "1 hour"}, "train": {"holdout": "25 hours"}},
            [
                "train.holdout must be over a day longer than label.matures_after, for beats_champion, calibration to "
                "compare days. Got '25 hours'."
            ],
        ),
        (
            {"retrain": {"confirm": True}},
            ["retrain.confirm must be false without decay, which says what labels confirm. Got True."],
        ),
        ({"end": "2025-12-31"}, ["end must be after start. Got '2025-12-31'."]),
        ({"key": []}, ["key must have at least 1 item(s). Got []."]),
        ({"key": "id"}, ["key must be a list. Got 'id'."]),
        ({"key": [""]}, ["key[0] must not be empty. Got ''."]),
        ({"catchup": "perhaps"}, ["catchup must be true or false. Got 'perhaps'."]),
        ({"label": "left"}, ["label must be a mapping of keys. Got 'left'."]),
        (
            {"label": {"column": "left", "task": "ranking"}},
            ["label.task must be one of binary, multiclass, regression. Got 'ranking'."],
        ),
        (
            {"label": {"column": "left", "matures_after": "soon"}},
            [f"label.matures_after must be {SPAN}, e.g. '28 days'. Got 'soon'."],
        ),
        ({"checks": {"allowed_bad_share": 2}}, ["checks.allowed_bad_share must be at most 1. Got 2."]),
        (
            {"checks": {"expectations": ["expect_x"]}},
            ["checks.expectations[0] must be one expectation, written as `expect_...: {...}`. Got 'expect_x'."],
        ),
        (
            {"checks": {"expectations": [{"expect_column_to_exist": 3}]}},
            ["checks.expectations[0].expect_column_to_exist must be a mapping of keys. Got 3."],
        ),
        ({"features": "churn"}, ["features must be written as `module:function`. Got 'churn'."]),
        ({"features": 3}, ["features must be text. Got 3."]),
        (
            {"features": "pipelines.nowhere:features"},
            [
                "features names the module 'pipelines.nowhere', which cannot be imported; put it in include/pipelines. "
                "Got 'pipelines.nowhere:features'."
            ],
        ),
        ({"tune": {"trials": 0}}, ["tune.trials must be at least 1. Got 0."]),
        ({"tune": {"timeout": 0}}, ["tune.timeout must be more than 0. Got 0."]),
        ({"tune": {"space": {"a": {"int": [1, "x"]}}}}, ["tune.space.a.int[1] must be a whole number. Got 'x'."]),
        (
            {"tune": {"space": {"a": {"int": [1, 2, 3]}}}},
            ["tune.space.a.int must have at most 2 item(s). Got [1, 2, 3]."],
        ),
        (
            {"tune": {"space": {"a": {"float": [5, 1]}}}},
            ["tune.space.a.float must be the lower bound, then the higher one. Got [5.0, 1.0]."],
        ),
        (
            {"tune": {"space": {"a": {"float": [0, 1], "log": True}}}},
            ["tune.space.a.float[0] must be above 0 with `log: true`. Got 0.0."],
        ),
        ({"tune": {"space": {"a": {"flot": [1, 2]}}}}, [f"tune.space.a {RANGE} Got {{'flot': [1, 2]}}."]),
        (
            {"tune": {"space": {"a": {"int": [1, 2], "choice": [1]}}}},
            [f"tune.space.a {RANGE} Got {{'choice': [1], 'int': [1, 2]}}."],
        ),
        ({"tune": {"space": {"a": {"choice": []}}}}, ["tune.space.a.choice must have at least 1 item(s). Got []."]),
        ({"train": {"window": "3 fortnights"}}, [f"train.window must be `expanding`, or {SPAN}. Got '3 fortnights'."]),
        ({"train": {"holdout": 3}}, [f"train.holdout must be {SPAN}, e.g. '28 days'. Got 3."]),
        ({"train": {"metric": "rmse"}}, [f"train.metric must be one of {METRICS} for a binary label. Got 'rmse'."]),
        (
            {"retrain": {"drift": ["rain"]}},
            ["retrain.drift[0] must be one of prediction, columns, label, concept, format. Got 'rain'."],
        ),
        (
            {"alerts": {"respond": {"decay": "retrain"}}},
            ["retrain.decay must be declared, because alerts.respond names decay. Got None."],
        ),
        ({"retrain": {"decay": {}}}, ["retrain.decay must declare floor, tolerance or both. Got None."]),
        (
            {"retrain": {"cooldown": "0 days", "budget": -1, "debounce": 0}},
            [
                "retrain.debounce must be at least 1. Got 0.",
                "retrain.cooldown must be longer than nothing. Got '0 days'.",
                "retrain.budget must be at least 0. Got -1.",
            ],
        ),
        (
            {"monitor": {"labels": {"enough": 2, "deadline": "soon"}}},
            [
                "monitor.labels.enough must be at most 1. Got 2.",
                f"monitor.labels.deadline must be {SPAN}, e.g. '28 days'. Got 'soon'.",
            ],
        ),
        (
            {"source": {"pyton": {}}},
            ["source must be one of captured, delta, files, python, sql. Got 'pyton'. Perhaps python is meant."],
        ),
        ({"source": {"files": {}}}, ["source.files.glob is required."]),
        (
            {"source": {"python": {"function": "here"}}},
            ["source.python.function must be written as `module:function`. Got 'here'."],
        ),
        ({"model": {"xgboost": {"parms": {}}}}, ["model.xgboost.parms is not a known key. Check the spelling."]),
        ({"model": 3}, ["model must be one of python, sklearn, xgboost, written as `python: {...}`. Got 3."]),
        ({"target": {"serving": {"timeout": -1}}}, ["target.serving.timeout must be more than 0. Got -1."]),
        ({"gates": []}, ["gates must have at least 1 item(s). Got []."]),
        ({"gates": {"servable": {}}}, ["gates must be a list. Got {'servable': {}}."]),
        ({"gates": [{"servable": "yes"}]}, ["gates[0].servable must be a mapping of keys. Got 'yes'."]),
        (
            {"gates": ["servable", {"metric_flor": {}}]},
            [f"gates[1] must be one of {', '.join(names('gates'))}. Got 'metric_flor'. Perhaps metric_floor is meant."],
        ),
        (
            {"gates": [{"metric_floor": {"metric": "rmse", "floor": 1}}]},
            [f"gates[0].metric_floor.metric must be one of {METRICS} for a binary label. Got 'rmse'."],
        ),
        (
            {"gates": [{"beats_champion": {"confidence": 1.5, "margn": 1}}, {"metric_floor": {}}]},
            [
                "gates[0].beats_champion.confidence must be less than 1. Got 1.5.",
                "gates[0].beats_champion.margn is not a known key. Check the spelling.",
                "gates[1].metric_floor.metric is required.",
                "gates[1].metric_floor.floor is required.",
            ],
        ),
    ],
    ids=str,
)
def test_a_mistake_is_named_by_its_path(folder: Path, changes: dict[str, Any], expected: list[str]) -> None:
    assert lines(folder, **changes) == expected


def test_at_most_ten_problems_are_spelled_out(folder: Path) -> None:
    with pytest.raises(Problems) as raised:
        load_pipeline(write(folder, {f"key_{number}": 1 for number in range(20)}))
    found = str(raised.value).splitlines()
    assert len(found) == 11 and found[-1] == f"... and {len(raised.value.problems) - 10} more"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "config/pipelines/churn.yaml: must be YAML. while parsing"),
        ("a: 1\nb: 2\na: 3\n", "config/pipelines/churn.yaml: must be YAML. the key 'a' is written twice in"),
        ("- a", "config/pipelines/churn.yaml: must be a mapping of keys. Got ['a']."),
        ("", "config/pipelines/churn.yaml: must be a mapping of keys. Got None."),
        ("? [a, b]\n: 1\n", "config/pipelines/churn.yaml: must be YAML."),
    ],
)
def test_a_file_that_is_no_mapping_is_named(folder: Path, text: str, message: str) -> None:
    with pytest.raises(Problems) as raised:
        load_pipeline(write(folder, text))
    assert str(raised.value).startswith(message)


def test_a_file_that_is_not_there_is_named_with_those_that_are(folder: Path) -> None:
    write(folder, {})
    with pytest.raises(Problems, match=r"config/pipelines/chrun.yaml: must exist. There are: churn"):
        load_pipeline(folder / "chrun.yaml")


@pytest.mark.parametrize("name", ["Churn", "churn-rate", "1st", "x" * 51])
def test_a_file_must_have_a_name_a_dag_can_have(folder: Path, name: str) -> None:
    with pytest.raises(Problems, match="must be named in lower case letters"):
        load_pipeline(write(folder, GOOD, name))


def test_broken_files_leave_the_others_alone(folder: Path) -> None:
    write(folder, GOOD, "healthy")
    write(folder, {**GOOD, "partition": "fortnight"}, "broken")
    write(folder, GOOD).rename(folder / "misnamed.yml")
    (folder / "binary.yaml").write_bytes(b"\x80\x81")
    (folder / "notes.txt").write_text("not ours")
    healthy, broken = load_all(folder)
    assert set(healthy) == {"healthy"} and set(broken) == {"broken", "misnamed", "binary"}
    assert "and end in .yaml. Got 'misnamed.yml'" in str(broken["misnamed"])


def test_the_projects_own_pipelines_are_healthy() -> None:
    healthy, broken = load_all(ROOT / "config" / "pipelines")
    assert not broken and "flight_delays" in healthy


def test_reading_pipelines_imports_no_heavy_library() -> None:
    code = (
        "import sys; from airworthy.config import load_all; from airworthy.profile import ROOT\n"
        "from airworthy import kinds\n"
        "load_all(ROOT / 'config' / 'pipelines')\n"
        "for family in ('sources', 'models', 'gates', 'targets'):\n"
        "    for name in kinds.names(family): kinds.find(family, name)\n"
        "heavy = 'pandas numpy pyarrow sklearn xgboost mlflow great_expectations evidently optuna deltalake'.split()\n"
        "print(sorted(set(heavy) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
