"""The trade-off of a search: the Pareto front, what limits recommend, and the page."""

from __future__ import annotations

import os
from datetime import UTC, datetime

import pytest

from airworthy import cli, tradeoff
from airworthy.errors import ModelError
from airworthy.searches import Measured, measured
from airworthy.stages.train import train
from airworthy.tradeoff import front, recommended
from airworthy.tune import Limits
from toy_pipeline import Toy

AS_OF = datetime(2013, 4, 1, tzinfo=UTC)


def trial(number: int, value: float, latency: float, size: float) -> Measured:
    return Measured(number=number, params={"a": number}, value=value, latency_ms=latency, size_mb=size)


TRIALS = [
    trial(0, 0.90, 9.0, 9.0),  # the best
    trial(1, 0.88, 5.0, 5.0),
    trial(2, 0.88, 6.0, 5.0),  # slower than 1, and no better
    trial(3, 0.80, 1.0, 6.0),  # the fastest
    trial(4, 0.79, 2.0, 1.0),  # the smallest
    trial(5, 0.70, 2.0, 1.5),  # worse than 4 in everything
    trial(6, 0.88, 5.0, 5.0),  # equal to 1
]


def numbers(trials: list[Measured]) -> list[int]:
    return [found.number for found in trials]


def test_the_front_is_what_nothing_beats() -> None:
    assert numbers(front(TRIALS, "roc_auc")) == [0, 1, 6, 3, 4]
    assert numbers(front(TRIALS, "log_loss")) == [5, 4, 3]  # lower is better
    assert numbers(front(TRIALS[:1], "roc_auc")) == [0]


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        (Limits(), 0),
        (Limits(latency_ms=9), 0),
        (Limits(latency_ms=8), 1),
        (Limits(latency_ms=4), 3),
        (Limits(latency_ms=4, size_mb=5), 4),
        (Limits(size_mb=5), 1),
        (Limits(latency_ms=0.5), None),
    ],
    ids=str,
)
def test_the_best_within_the_limits_is_recommended(limits: Limits, expected: int | None) -> None:
    found = recommended(TRIALS, "roc_auc", limits)
    assert (found.number if found else None) == expected


def test_trials_that_were_stopped_are_left_out() -> None:
    columns = ["trial", "value", "stopped_at", "seconds", "latency_ms", "size_mb", "a"]
    table = {"columns": columns, "data": [[0, 0.5, None, 1, 0.2, 0.1, 7], [1, None, 25, 1, None, None, 8]]}
    assert measured(table) == [Measured(number=0, params={"a": 7}, value=0.5, latency_ms=0.2, size_mb=0.1)]
    assert measured(None) == []


def test_the_command_tells_and_draws_the_trade_off_of_a_run(
    toy: Toy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline = toy.pipeline(tune={"trials": 3, "space": {"n_estimators": {"choice": [2, 40, 400]}}})
    toy.fill(pipeline, toy.rows())
    monkeypatch.setenv("AIRWORTHY_LEDGER_URL", toy.profile.ledger_url)
    monkeypatch.setattr(tradeoff, "load_profile", lambda _: toy.profile)
    assert cli.main(["tradeoff", toy.name]) == 1
    assert "must have a finished training run that searched parameters" in capsys.readouterr().err
    challenger = train(pipeline, AS_OF, toy.profile)
    assert cli.main(["tradeoff", toy.name, "--run", challenger.run_id[:8]]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].split() == ["trial", "roc_auc", "latency", "ms", "size", "MB", "parameters"] and len(said) == 6
    assert said[4].startswith("Recommended without limits: trial ") and said[4].endswith("the run's model.")
    page = toy.profile.reports_dir / toy.name / "tradeoff.html"
    assert said[5] == str(page) and page.read_text().count("<circle") == 6
    assert cli.main(["tradeoff", toy.name, "--size-mb", "0.000001"]) == 0
    assert "No trial is within 1e-06 MB; the fastest, trial " in capsys.readouterr().out
    assert cli.main(["tradeoff", toy.name, "--latency-ms", "-1"]) == 1
    assert "latency_ms must be more than 0. Got -1" in capsys.readouterr().err
    with pytest.raises(ModelError, match="Got 'nosuchrun'"):
        tradeoff.run(toy.name, os.environ, "nosuchrun", Limits())
