"""What work takes, measured on processes that take a known amount, and the record of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from airworthy import cli
from airworthy.errors import ServiceError
from airworthy.resource_log import LAST, Record, ResourceLog, drawn, table, trends
from airworthy.resources import Usage
from hungry import measured
from toy_pipeline import Toy

SLACK = 12  # MB: what Python itself takes meanwhile, and what the kernel has not counted yet


def test_of_a_fork_only_its_own_memory_and_time_count() -> None:
    """Not the 400 MB that it was born with, nor the 900 that its parent had once."""
    used = measured("child_of_a_big_parent")
    assert used["peak_mb"] == pytest.approx(100, abs=SLACK)
    assert used["resident_mb"] == pytest.approx(500, abs=3 * SLACK)  # with the interpreter
    assert 0.2 <= used["cpu_seconds"] <= used["seconds"] + 0.1


def test_processor_time_is_that_of_all_threads_and_processes_but_none_asleep() -> None:
    used = measured("processors")
    assert 0.9 <= used["cpu_seconds"] < used["seconds"]  # of which it slept two


def test_a_meter_inside_another_takes_nothing_from_it() -> None:
    found = measured("nested")
    assert found["outer"] == pytest.approx(150, abs=SLACK)
    assert found["inner"] == pytest.approx(50, abs=SLACK)
    assert found["after"] == pytest.approx(0, abs=SLACK)


def test_where_the_peak_cannot_be_reset_memory_is_sampled() -> None:
    """And a peak above all earlier ones is exact, however short."""
    found = measured("sampled")
    assert found["lower"] == pytest.approx(100, abs=SLACK)
    assert found["higher"] == pytest.approx(600, abs=SLACK)


def used(seconds: float = 10, cpu: float = 8, peak: float = 100) -> Usage:
    return Usage(seconds, cpu, peak, peak + 400)


def records(*peaks: float, state: str = "success") -> list[Record]:
    return [
        Record(pipeline="p", stage="train", run=str(n), attempt=1, state=state, **used(peak=peak)._asdict())
        for n, peak in enumerate(peaks)
    ]


def test_the_trend_tells_what_grew_and_only_that() -> None:
    steady = trends(records(*[100, 104, 97] * 4))
    assert [trend.grew for trend in steady.values()] == ["", "", ""]
    one_spike = trends(records(*[100] * 9, 300))
    assert one_spike["peak_mb"].grew == "" and one_spike["peak_mb"].newest == 300
    grown = trends(records(*[100] * 9, 180, 190, 200))
    assert grown["peak_mb"].grew == "peak_mb 100 to 190"
    assert grown["peak_mb"][:2] == (200, 100) and 190 <= grown["peak_mb"].p95 <= 200
    assert not trends(records(*[5] * 9, 10, 10, 10))["peak_mb"].grew  # what doubles and is still nothing
    assert not trends(records(100, 200, 200, 200))["peak_mb"].grew  # one run says little about those before


def test_failed_runs_are_told_but_are_no_trend() -> None:
    mixed = [*records(*[100] * 6), *records(10, 10, 10, state="failed")]
    assert trends(mixed)["peak_mb"].newest == 100
    (row,) = table({"train": mixed})
    assert row[:2] == ("train", "9, 3 failed")
    assert trends(records(10, state="failed"))["peak_mb"].newest == 10
    assert [chart.title for chart in drawn({"train": mixed})] == ["train: time", "train: peak memory"]


def test_the_newest_runs_of_each_stage_are_read_in_order(tmp_path: Path) -> None:
    log = ResourceLog(f"sqlite:///{tmp_path}/ledger.db")
    assert log.last("toy") == {}
    for number in range(LAST + 5):
        log.add("toy", "train", f"run {number}", 1, "success", used(seconds=number))
    log.add("toy", "deploy", "run 0", 2, "failed", used())
    log.add("other", "train", "run 0", 1, "success", used())
    found = log.last("toy")
    assert [one.run for one in found["train"]] == [f"run {number}" for number in range(5, LAST + 5)]
    assert [(one.attempt, one.state) for one in found["deploy"]] == [(2, "failed")]
    with pytest.raises(ServiceError, match="record of resources"):
        ResourceLog("sqlite:////no/such/folder/ledger.db").add("toy", "train", "run", 1, "success", used())


def test_the_command_shows_the_newest_and_the_trend(
    toy: Toy, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in toy.environment({}).items():
        monkeypatch.setenv(name, value)
    name = toy.pipeline().name
    assert cli.main(["resources", name]) == 1
    assert "must have run since resources are on record. Got 'nothing'" in capsys.readouterr().err
    log = ResourceLog(toy.profile.ledger_url)
    for peak in [100, 100, 100, 200, 200, 200]:
        log.add(name, "train", "run", 1, "success", used(peak=peak))
    log.add(name, "gates", "run", 1, "success", used())
    assert cli.main(["resources", name]) == 0
    head, train, gates = capsys.readouterr().out.splitlines()
    assert head.split()[:4] == ["stage", "runs", "newest", "seconds"] and gates.startswith("gates")
    assert train.split()[-4:] == ["peak_mb", "100", "to", "200"]
    assert cli.main(["resources", name, "--stage", "train", "--last", "2", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert list(told) == ["train"] and len(told["train"]["runs"]) == 2
    assert told["train"]["seconds"] == {"newest": 10, "median": 10, "p95": 10, "grew": ""}
    assert cli.main(["resources", name, "--stage", "tarin"]) == 1
    assert "Got 'only train, gates'" in capsys.readouterr().err
