"""The game day: each fault makes its alarms fire in a copy, and the pipeline itself is as it was."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from airworthy.alerts import Alerts
from airworthy.errors import AirworthyError, ConfigError, DataError, ServiceError
from airworthy.gameday import Outcome, Signal, faults
from airworthy.gameday.copies import Copy
from airworthy.gameday.day import play
from airworthy.gameday.declaration import folder_of, name_of
from airworthy.gameday.faults.drift import Drift
from airworthy.gameday.making import make, remove
from airworthy.gameday.page import GameDay, in_order, publish, require_all
from airworthy.ledger import Ledger
from airworthy.profile import Serving
from airworthy.stages import alarms
from published import Published
from serving_process import promote, trained
from toy_pipeline import Toy, toy_at

MONTHS = ("2013-01-01", "2013-02-01", "2013-03-01", "2013-04-01")
FAULTS = [
    "bad_champion",
    "burst",
    "corrupt_challenger",
    "dead_registry",
    "drift",
    "late_labels",
    "schema_break",
    "slow_challenger",
]


@dataclass
class Real:
    """A pipeline with four months and a champion."""

    toy: Toy
    published: Published

    def make(self) -> Copy:
        patient = {"serving": Serving(requests=32, seconds=60)}  # whatever else this machine does meanwhile
        return make(self.published.pipeline, self.toy.profile.model_copy(update=patient))

    def remove(self) -> None:
        remove(self.toy.name, self.toy.profile)

    def state(self) -> dict[str, Any]:
        """Returns all there is of it, and of anybody else in its places."""
        client = MlflowClient(self.toy.mlflow_uri)
        ledger = Ledger(self.toy.profile.ledger_url)
        return {
            "entries": {name: ledger.entries(name) for name in ledger.pipelines()},
            "files": {file: file.stat().st_mtime_ns for file in self.toy.folder.rglob("*") if _is_its_own(file)},
            "models": [
                (one.name, dict(one.aliases), dict(one.tags))
                for one in client.search_registered_models(f"name LIKE '{self.toy.name}%'")
            ],
            "experiments": sorted(one.name for one in client.search_experiments() if self.toy.name in one.name),
        }


def _is_its_own(file: Path) -> bool:
    return file.is_file() and "__pycache__" not in file.parts and file.name != "ledger.db"


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory, mlflow_uri: str) -> Iterator[Real]:
    with pytest.MonkeyPatch.context() as patch:
        folder: Path = tmp_path_factory.mktemp("game_day")
        patch.setenv("AIRWORTHY_HOME", str(folder / "home"))
        toy = toy_at(folder, mlflow_uri, patch)
        published = Published(toy, alerts={"webhook": {"connection": "nowhere"}})
        for key in MONTHS:
            published.process(key)
        promote(toy, trained(toy, published.pipeline))
        yield Real(toy, published)


@pytest.fixture(scope="module")
def copy(real: Real) -> Iterator[Copy]:
    made = real.make()
    yield made
    real.remove()


def test_the_faults_are_found_by_their_files() -> None:
    assert faults() == FAULTS


@pytest.mark.parametrize("name", FAULTS)
def test_every_alarm_fires(copy: Copy, name: str) -> None:
    before = copy.champion
    outcome = play(name, copy)
    assert outcome.status == "passed", outcome.model_dump_json(indent=1)
    assert {signal.alarm for signal in outcome.signals} == set(outcome.must)
    now = copy.champion
    assert before and now and now.version == before.version


def test_an_alert_that_is_not_told_is_named(copy: Copy) -> None:
    quiet = copy.pipeline.model_copy(update={"alerts": Alerts(on=("gates",))})
    outcome = play("schema_break", replace(copy, pipeline=quiet))
    assert (outcome.status, outcome.silent) == ("failed", ("alert data",))
    assert outcome.told == "schema_break: did not fire: alert data"
    assert "`alerts.on` does not name data" in outcome.signals[-1].told


def test_a_response_that_does_nothing_is_named(copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ServiceError("ledger", "must answer")

    monkeypatch.setattr(alarms, "withdraw", broken)
    outcome = play("bad_champion", copy)
    assert (outcome.status, outcome.silent) == ("failed", ("response stop_serving",))
    assert "ledger: must answer" in outcome.signals[-1].told


def test_a_threshold_that_nothing_reaches_is_named(copy: Copy) -> None:
    monitor = copy.pipeline.monitor.model_copy(update={"prediction_drift": 1000.0})
    outcome = play("drift", replace(copy, pipeline=copy.pipeline.model_copy(update={"monitor": monitor})))
    assert (outcome.status, outcome.silent) == ("failed", Drift.must)
    assert "1000 is drift" in outcome.signals[0].told


def test_a_deadline_that_never_comes_is_named(copy: Copy) -> None:
    labels = copy.pipeline.monitor.labels.model_copy(update={"deadline": None})
    monitor = copy.pipeline.monitor.model_copy(update={"labels": labels})
    outcome = play("late_labels", replace(copy, pipeline=copy.pipeline.model_copy(update={"monitor": monitor})))
    assert (outcome.status, outcome.silent) == ("failed", ("overdue labels", "alert labels"))


def test_a_gate_that_only_warns_lets_a_slow_challenger_through_and_is_named(copy: Copy) -> None:
    gates = tuple(
        one.model_copy(update={"on_fail": "warn"}) if one.kind() == "latency" else one for one in copy.pipeline.gates
    )
    outcome = play("slow_challenger", replace(copy, pipeline=copy.pipeline.model_copy(update={"gates": gates})))
    assert (outcome.status, outcome.silent) == ("failed", ("alert gates", "deployment refused"))


def test_what_crashes_has_fired_nothing(copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(self: Drift, copy: Copy) -> Iterator[Signal]:
        yield Signal(alarm=Drift.must[0], fired=True, told="it did")
        raise ValueError("the wire broke")

    monkeypatch.setattr(Drift, "inject", crash)
    outcome = play("drift", copy)
    assert (outcome.status, outcome.silent) == ("error", Drift.must[1:])
    assert outcome.told == "drift: did not fire: alert drift, retrain request (ValueError: the wire broke)"


def test_an_alarm_that_is_seen_silent_once_has_not_fired() -> None:
    both = (Signal(alarm="one", fired=True, told=""), Signal(alarm="one", fired=False, told=""))
    assert Outcome(fault="x", injected="", must=("one",), signals=both).status == "failed"
    assert Outcome(fault="x", injected="", must=("one",), signals=both[:1]).status == "passed"


def test_the_report_names_what_was_silent_or_never_looked_at(tmp_path: Path) -> None:
    fired = tuple(Signal(alarm=alarm, fired=True, told="<it> did") for alarm in Drift.must)
    good = Outcome(fault="drift", injected=Drift.injects, must=Drift.must, signals=fired)
    outcomes = in_order(["drift", "burst"], [good])
    day = GameDay(
        pipeline="toy", at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), lent=("alerts: lent",), outcomes=outcomes
    )
    page = publish(day, tmp_path)
    assert page == tmp_path / "toy/game_day/2026-01-02T030405.html"
    assert GameDay.model_validate_json(page.with_suffix(".json").read_text()) == day
    text = page.read_text()
    assert "&lt;it&gt; did" in text and "alerts: lent" in text and "4 of 7 alarms did not fire" in text
    with pytest.raises(AirworthyError, match=r"every alarm must fire.*burst: did not fire: too many are refused"):
        require_all(day)
    require_all(day.model_copy(update={"outcomes": (good,)}))
    with pytest.raises(AirworthyError, match="no fault was played"):
        require_all(day.model_copy(update={"outcomes": ()}))


def test_a_copy_leaves_nothing_and_changes_nothing(copy: Copy, real: Real) -> None:
    """The copy of the other tests is removed, also without its folder; then there is what was there before it."""
    real.remove()
    before = real.state()
    made = real.make()
    assert real.state() != before and made.store.partitions("features") == ["2013-02-01", "2013-03-01"]
    play("schema_break", made)
    real.remove()
    assert real.state() == before
    assert not folder_of(real.toy.name).exists()
    with pytest.raises(ConfigError, match="It was removed"):
        Copy.of(real.toy.name, real.toy.profile)
    real.remove()


def test_what_cannot_be_copied_is_said(real: Real, monkeypatch: pytest.MonkeyPatch) -> None:
    retrain = real.published.pipeline.retrain.model_copy(update={"debounce": 4})
    with pytest.raises(DataError, match=r"must have more than 4 partition\(s\)"):
        make(real.published.pipeline.model_copy(update={"retrain": retrain}), real.toy.profile)


def test_the_name_of_a_copy_is_a_name() -> None:
    assert name_of("churn") == "churn__game_day"
    longer = [name_of("p" * 49 + end) for end in "ab"]
    assert {len(name) for name in longer} == {50} and longer[0] != longer[1]
