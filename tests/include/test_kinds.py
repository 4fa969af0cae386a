from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from airworthy import gates, kinds
from airworthy.gates import Gate
from airworthy.gates.metric_floor import MetricFloor

FAMILIES: tuple[kinds.Family, ...] = ("sources", "models", "gates", "targets")


@pytest.mark.parametrize(
    ("family", "ours"),
    [
        ("sources", {"files", "python"}),
        ("models", {"sklearn", "xgboost"}),
        ("gates", {"beats_champion", "metric_floor", "servable"}),
        ("targets", {"serving"}),
    ],
)
def test_the_kinds_are_the_modules_of_the_family(family: kinds.Family, ours: set[str]) -> None:
    assert set(kinds.names(family)) >= ours


@pytest.mark.parametrize("family", FAMILIES)
def test_every_kind_knows_its_own_name(family: kinds.Family) -> None:
    for name in kinds.names(family):
        assert kinds.find(family, name).kind() == name


@pytest.mark.parametrize("family", FAMILIES)
def test_every_kind_is_frozen_and_says_what_it_is(family: kinds.Family) -> None:
    for name in kinds.names(family):
        kind = kinds.find(family, name)
        assert kind.model_config["frozen"] and kind.model_config["extra"] == "forbid"
        assert kind.__doc__ and kind.__doc__ != kinds.Kind.__doc__


def test_a_kind_is_declared_by_a_mapping_of_one_key() -> None:
    found = kinds.parse("gates", {"metric_floor": {"metric": "roc_auc", "floor": 0.7}})
    assert found == MetricFloor(metric="roc_auc", floor=0.7)
    assert kinds.parse("gates", found) is found


@pytest.mark.parametrize("declared", ["servable", {"servable": {}}, {"servable": None}])
def test_a_kind_that_needs_nothing_can_stand_alone(declared: object) -> None:
    assert kinds.parse("gates", declared).kind() == "servable"


@pytest.mark.parametrize("declared", [3, None, [], {}, {"servable": {}, "metric_floor": {}}, "nothing", {1: {}}])
def test_anything_else_is_refused_with_what_there_is(declared: object) -> None:
    with pytest.raises(ValidationError, match=r"must be one of .*beats_champion.*metric_floor.*servable"):
        kinds.parse("gates", declared)


@pytest.fixture
def extra_gates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(gates, "__path__", [*gates.__path__, str(tmp_path)])
    return tmp_path


def test_a_new_file_is_a_new_kind(extra_gates: Path) -> None:
    (extra_gates / "always_fine.py").write_text(
        "from airworthy.gates import Gate\n\n\n"
        "class AlwaysFine(Gate):\n"
        "    word: str = 'fine'\n\n"
        "    def judge(self, evidence):\n"
        "        return self.verdict(True, self.word)\n"
    )
    found = kinds.parse("gates", {"always_fine": {"word": "good"}})
    assert isinstance(found, Gate) and found.judge(None).reason == "good"  # type: ignore[arg-type]


def test_a_file_that_cannot_be_imported_hurts_only_who_names_it(extra_gates: Path) -> None:
    (extra_gates / "half_done.py").write_text("import a_module_that_is_not_there\n")
    assert kinds.parse("gates", "servable")
    with pytest.raises(
        ValidationError, match=r"half_done\n.*cannot be imported: No module named 'a_module_that_is_not"
    ):
        kinds.parse("gates", "half_done")


def test_a_file_whose_class_has_another_name_is_named(extra_gates: Path) -> None:
    (extra_gates / "other_name.py").write_text("class Othername: pass\n")
    with pytest.raises(ValidationError, match="OtherName"):
        kinds.parse("gates", "other_name")
