from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from airworthy.gates.slices import Slices
from airworthy.grouping import group
from airworthy.intervals import reach, standard_error, without_each
from airworthy.metrics import resample, score
from judged_case import case, holdout, probability, verdict


def flights(seed: int = 0, *, hidden=None, task="binary", rows_a_day: int = 200):
    """Two models of one quality; the challenger guesses in the rows that `hidden` names, and is better elsewhere."""
    rows, block, rng = holdout(seed, rows_a_day=rows_a_day)
    truth = rng.normal(0, 1, len(rows)) + 0.3 * rng.normal(0, 1, 30)[block]
    mine, theirs = (truth + rng.normal(0, 1, len(rows)) for _ in range(2))
    if hidden is not None:
        better = truth + rng.normal(0, 0.5, len(rows))
        mine = np.where(hidden(rows), rng.normal(0, 1.4, len(rows)), better)
    if task == "regression":
        return case(rows, block, truth, mine, theirs, task=task)
    label = (truth + rng.logistic(0, 0.3, len(rows)) > 0.5).astype(int)
    return case(rows, block, label, probability(mine), probability(theirs))


def evening_at_jfk(rows):
    return (rows["origin"] == "JFK") & (rows["hour"] >= 18)


def test_a_slice_that_is_worse_than_the_champions_is_stopped_by_name() -> None:
    made = flights(hidden=lambda rows: rows["carrier"] == "WN")
    found = verdict(Slices(columns=("carrier", "origin"), find=0), made)
    assert found.status == "failed"
    assert "carrier=WN" in found.reason and "surely worse than the champion's" in found.reason
    assert "origin" not in found.reason
    (named,) = (one for one in found.evidence["slices"] if one["slice"] == "carrier=WN")
    inside = made.rows["carrier"].to_numpy() == "WN"
    assert named["rows"] == inside.sum()
    models = (made.evidence.challenger, made.evidence.champion)
    expected = [score("binary", "roc_auc", made.evidence.label[inside], one.prediction[inside]) for one in models]
    assert [named["value"], named["champion"]] == pytest.approx(expected)


@pytest.mark.parametrize("task", ["binary", "regression"])
def test_a_slice_of_two_columns_hidden_in_a_better_average_is_found(task) -> None:
    made = flights(3, hidden=evening_at_jfk, task=task)
    metric = made.evidence.metric
    sign = -1 if metric == "rmse" else 1
    assert sign * made.evidence.challenger.metrics[metric] > sign * made.evidence.champion.metrics[metric]
    found = verdict(Slices(), made)
    assert found.status == "failed"
    assert "origin=JFK and hour" in found.reason
    assert verdict(Slices(find=0, columns=("carrier",)), made).passed


def test_the_default_columns_are_categories_of_few_values() -> None:
    made = flights()
    named = {one["slice"] for one in verdict(Slices(find=0), made).evidence["slices"]}
    assert named == {f"origin={one}" for one in ("EWR", "JFK", "LGA")} | {
        f"carrier={one}" for one in ("AA", "B6", "UA", "WN")
    }


def test_a_floor_holds_in_every_slice() -> None:
    made = flights(hidden=lambda rows: rows["origin"] == "LGA")
    alone = SimpleNamespace(**{**vars(made), "evidence": replace(made.evidence, has_champion=False, champion=None)})
    assert verdict(Slices(), alone).passed
    found = verdict(Slices(floor=0.6), alone)
    assert found.status == "failed"
    assert "origin=LGA" in found.reason and "surely below the floor 0.600" in found.reason
    ceiling = verdict(Slices(metric="log_loss", floor=0.7, columns=("origin",)), alone)
    assert "origin=LGA" in ceiling.reason and "surely above the ceiling 0.700" in ceiling.reason


def test_a_champion_that_could_not_be_scored_is_not_beaten_anywhere() -> None:
    made = flights()
    broken = replace(made.evidence, champion=None, champion_error="its file is damaged")
    found = verdict(Slices(), SimpleNamespace(**{**vars(made), "evidence": broken}))
    assert found.status == "failed" and "its file is damaged" in found.reason


def test_declared_slices_that_cannot_be_judged_are_not_passed() -> None:
    made = flights()
    assert verdict(Slices(columns=("origin",), rows=5000, find=0), made).status == "failed"
    missing = verdict(Slices(columns=("gate",)), made)
    assert missing.status == "error" and missing.blocks and "gate" in missing.reason


def test_a_declared_column_that_cannot_be_judged_is_not_passed_for_other_slices() -> None:
    made = flights()
    made.rows["gate"] = (np.arange(len(made.rows)) % 29).astype(str)  # 207 rows each
    for columns in (("gate",), ("origin", "gate")):
        found = verdict(Slices(columns=columns), made)
        assert any(one["found"] for one in found.evidence["slices"])
        assert found.status == "failed"
        assert found.reason == "no slice of gate has 300 rows on 5 days with an own roc_auc"


def test_slices_of_few_rows_are_named() -> None:
    made = flights()
    made.rows.loc[:99, "origin"] = "SWF"
    found = verdict(Slices(columns=("origin",), find=0), made)
    assert found.passed
    assert found.reason.endswith("(too few rows or days to judge origin=SWF)")


def test_false_alarms_are_no_more_than_declared() -> None:
    """Challenger and champion of one quality: at 95 % one in twenty may be stopped, with no tolerance."""
    gate = Slices(tolerance=0, rows=100)
    stopped = sum(not verdict(gate, flights(seed, rows_a_day=60)).passed for seed in range(60))
    assert stopped <= 8  # the 99th percentile of a binomial of 60 and 0.05


def test_errors_by_days_are_those_of_repeated_holdouts() -> None:
    rng = np.random.default_rng(1)
    block, counts = np.repeat(np.arange(30), 40), without_each(30)
    values, errors = [], []
    for _ in range(300):
        label = rng.integers(0, 2, len(block))
        prediction = label + rng.normal(0, 1, len(block)) + rng.normal(0, 1, 30)[block] * (label - 0.5)
        values.append(score("binary", "roc_auc", label, prediction))
        errors.append(float(standard_error(resample("roc_auc", label, prediction, block, counts))))
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.15)


def test_one_day_has_no_error_and_nothing_is_sure() -> None:
    assert np.isnan(standard_error(np.ones(1)))
    assert reach(0.95, 1) == np.inf
    assert reach(0.95, 1000) == pytest.approx(1.645, abs=0.01)
    assert reach(0.95, 30, tests=20) > reach(0.95, 30, tests=2) > reach(0.95, 30)


def test_groups_name_values_ranges_and_what_is_missing() -> None:
    numbers = group(pd.Series([1.0, 2, 3, 4, 5, 6, 7, 8, np.nan], name="temp"), values=3, ranges=2)
    assert numbers.names == ("temp 1..4", "temp 5..8", "temp missing")
    assert numbers.code.tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 2]
    few = group(pd.Series([5, 17, 5], name="hour"), values=3, ranges=2)
    assert few.names == ("hour=5", "hour=17") and few.code.tolist() == [0, 1, 0]
    texts = group(pd.Series(["b", "a", "a", "c", None, "d", "b"], name="dest"), values=3, ranges=2)
    assert texts.names == ("dest=a", "dest=b", "dest=any of 2 others", "dest missing")
    assert texts.code.tolist() == [1, 0, 0, 2, 3, 2, 1]
    assert group(pd.Series([None, None], name="gust", dtype=object), values=3, ranges=2).names == ("gust missing",)
    flags = group(pd.Series([True, False, True], name="far"), values=12, ranges=5)
    assert flags.names == ("far=False", "far=True")
