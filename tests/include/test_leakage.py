from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from airworthy.gates import leakage
from airworthy.gates.leakage import Leakage
from airworthy.telling import alone, where_missing
from judged_case import case, holdout, verdict


@pytest.fixture(autouse=True)
def _no_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """The arrays of these cases have neither newer rows nor recorded requests; see test_evaluated_gates."""
    monkeypatch.setattr(leakage, "_newest", lambda case: None)
    monkeypatch.setattr(leakage, "_after", lambda case: {})


def parcels(seed: int = 0, *, task="binary", days: int = 30, **columns):
    """Honest features; `columns` are made of rows, label, day and a generator."""
    rows, block, rng = holdout(seed, days=days)
    bad_day = rng.normal(0, 1, days)[block]
    truth = 0.1 * (rows["wind"] - 10) + (rows["carrier"] == "WN") + bad_day + rng.normal(0, 1, len(rows))
    label = {"binary": (truth > 1).astype(int), "regression": truth, "multiclass": np.digitize(truth, [-1, 1])}[task]
    label = np.asarray(label)
    for name, make in columns.items():
        rows[name] = make(rows, label, block, rng)
    prediction = np.full(len(rows), 0.3) if task != "multiclass" else np.full((len(rows), 3), 1 / 3)
    return case(rows, block, label, prediction, task=task)


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_a_perfect_future_feature_is_stopped_by_name(task) -> None:
    assert verdict(Leakage(), parcels(task=task)).passed
    made = parcels(task=task, arrived=lambda rows, label, block, rng: label + rng.normal(0, 0.05, len(rows)))
    found = verdict(Leakage(), made)
    assert found.status == "failed" and found.blocks
    assert found.reason.startswith("arrived tells the label alone")
    assert verdict(Leakage(known=("arrived",)), made).passed


def test_a_feature_that_tells_the_label_without_order_is_seen() -> None:
    """The area under the curve of the raw values would be one half."""
    made = parcels(shift=lambda rows, label, block, rng: np.where(label == 1, 2, 0) * rng.choice([-1, 1], len(rows)))
    assert "shift tells the label alone" in verdict(Leakage(), made).reason


def test_what_is_missing_only_for_some_tells_the_label() -> None:
    """As in the flights: one carrier never has a value, which hides that all others miss it only when late."""

    def seats(rows, label, block, rng):
        cancelled = (label == 1) & (rng.random(len(rows)) < 0.1)
        return np.where(cancelled | (rows["carrier"] == "AA"), np.nan, 100.0)

    made = parcels(seats=seats)
    assert pd.Series(made.rows["seats"].isna()).corr(pd.Series(made.evidence.label)) < 0.1
    found = verdict(Leakage(), made)
    assert found.status == "failed"
    assert "seats tells the label by missing" in found.reason and "with carrier=" in found.reason


def test_a_sensor_that_fails_on_bad_days_is_no_leak() -> None:
    def down_on_the_worst_days(rows, label, block, rng):
        late = pd.Series(label).groupby(block).transform("mean").to_numpy()
        return np.where((late > np.quantile(late, 0.9)) & (rng.random(len(rows)) < 0.6), np.nan, 1.0)

    made = parcels(sensor=down_on_the_worst_days)
    label, missing = made.evidence.label, made.rows["sensor"].isna()
    assert label[missing].mean() - label[~missing].mean() > 0.3
    assert verdict(Leakage(), made).passed


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda rows, label, block, rng: np.arange(len(rows)), "integers"),
        (lambda rows, label, block, rng: rng.permutation(10**6)[: len(rows)].astype("float64"), "integers"),
        (lambda rows, label, block, rng: [f"order-{number}" for number in range(len(rows))], "values"),
    ],
)
def test_identifiers_are_named(make, kind: str) -> None:
    found = verdict(Leakage(), parcels(order=make))
    assert found.status == "failed"
    assert found.reason == f"order is an identifier (100% of its {kind} are different)"


def test_measurements_are_no_identifiers() -> None:
    cents = parcels(cents=lambda rows, label, block, rng: (rng.lognormal(3, 1, len(rows)) * 100).astype(int))
    assert verdict(Leakage(), cents).passed
    assert verdict(Leakage(), parcels(weight=lambda rows, label, block, rng: rng.normal(0, 1, len(rows)))).passed


def test_few_rows_of_a_wide_number_are_different_by_chance() -> None:
    made = parcels(days=1, income=lambda rows, label, block, rng: rng.choice(80_000, len(rows), replace=False) + 20_000)
    assert made.rows["income"].is_unique
    assert verdict(Leakage(), made).passed
    ids = parcels(days=1, order=lambda rows, label, block, rng: 7_000_000 + 3 * np.arange(len(rows)))
    assert verdict(Leakage(), ids).reason == "order is an identifier (100% of its integers are different)"


def test_an_identifier_tells_nothing_alone() -> None:
    rng = np.random.default_rng(1)
    label, block = rng.integers(0, 2, 3000), np.repeat(np.arange(30), 100)
    assert alone("binary", label, block, pd.Series([f"id{n}" for n in range(3000)])) == pytest.approx(0.5, abs=0.02)


def test_where_nearly_all_are_late_missing_and_late_is_no_news() -> None:
    rng = np.random.default_rng(1)
    label, block = (rng.random(3000) < 0.97).astype(int), np.repeat(np.arange(30), 100)
    column = pd.Series(np.ones(3000))
    column[rng.choice(np.flatnonzero(label == 1), 40, replace=False)] = np.nan
    (found,) = where_missing("binary", label, block, column, [])["surest"]
    assert found["told"] == pytest.approx(1) and found["error"] > 0.5


def test_missing_on_one_day_only_is_not_known() -> None:
    rng = np.random.default_rng(1)
    label, block = rng.integers(0, 2, 3000), np.repeat(np.arange(30), 100)
    column = pd.Series(np.where((block == 4) & (label == 1), np.nan, 1.0))
    assert where_missing("binary", label, block, column, [])["surest"] == []


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_honest_features_are_seldom_stopped(task) -> None:
    def gusts(rows, label, block, rng):
        return np.where(rng.random(len(rows)) < 0.6, np.nan, rows["wind"])

    def depot(rows, label, block, rng):
        return np.where(rng.random(len(rows)) < 0.02, None, rng.choice(list("abcdefgh"), len(rows)))

    stopped = sum(
        not verdict(Leakage(), parcels(seed, task=task, gust=gusts, depot=depot)).passed for seed in range(20)
    )
    assert stopped == 0


def test_the_label_itself_in_other_words_is_seen_for_classes_of_text() -> None:
    made = parcels(outcome=lambda rows, label, block, rng: np.array(["on time", "late"], dtype=object)[label])
    assert "outcome tells the label alone (AUC 1.000" in verdict(Leakage(), made).reason
