"""Intervals over days, where the truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from airworthy import intervals
from airworthy.evidence import METRICS, Metric
from airworthy.metrics import score


def rows(seed: int, days: int = 20) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    block = np.repeat(np.arange(days) * 3 + 7, rng.integers(5, 40, days))
    label = rng.integers(0, 2, len(block))
    return label, rng.normal(label, 1.0), block


@pytest.mark.parametrize("metric", [*METRICS["binary"], *METRICS["regression"]])
def test_the_error_is_that_of_leaving_each_day_out(metric: Metric) -> None:
    label, raw, block = rows(1)
    prediction = 1 / (1 + np.exp(-raw))
    found = intervals.of_metric(metric, label, prediction, block)
    days = np.unique(block)
    without = [score("binary", metric, label[block != day], prediction[block != day]) for day in days]
    expected = np.sqrt((len(days) - 1) / len(days) * ((without - np.mean(without)) ** 2).sum())
    assert found.value == pytest.approx(score("binary", metric, label, prediction))
    assert found.error == pytest.approx(expected)
    assert found.days == 20


def test_days_of_even_size_give_the_t_test() -> None:
    rng = np.random.default_rng(3)
    half = rng.normal(0.1, 1.0, 15)
    daily = np.concatenate([half, -half]) + 0.2  # symmetric, so that nothing is there to unskew
    found = intervals.of_mean(np.repeat(daily, 10), np.repeat(np.arange(30), 10))
    expected = stats.ttest_1samp(daily, 0.0, alternative="greater").confidence_interval(0.99)
    assert found.freedom == pytest.approx(29)
    assert found.skewness == pytest.approx(0, abs=1e-9)
    assert found.bounds(0.99)[0] == pytest.approx(expected.low)


def test_bounds_move_away_from_a_rare_bad_day() -> None:
    daily = np.full(30, 0.02) + np.random.default_rng(5).normal(0, 0.002, 30)
    daily[4] = -0.2
    found = intervals.of_mean(daily, np.arange(30))
    lower, upper = found.bounds(0.95)
    assert found.skewness < -3
    assert found.value - lower > 1.5 * (upper - found.value)


def test_a_gain_is_a_reduction_where_lower_is_better_and_nothing_on_oneself() -> None:
    label, raw, block = rows(2)
    good, bad = 1 / (1 + np.exp(-raw + 0.5)), np.full(len(label), 0.5)
    for metric in METRICS["binary"]:
        gain = intervals.of_gain(metric, label, good, bad, block)
        assert gain.value > 0
        assert intervals.of_gain(metric, label, bad, good, block).value == pytest.approx(-gain.value)
        assert intervals.of_gain(metric, label, good, good, block).bounds(0.9) == (0.0, 0.0)


def test_days_without_the_rare_class_count_for_nothing() -> None:
    block = np.repeat(np.arange(30), 10)
    label = np.zeros(300, int)
    label[[0, 1, 11, 12, 21, 22]] = 1  # on three days of thirty
    assert intervals.effective_days(block, label) == pytest.approx(3)
    found = intervals.of_metric("roc_auc", label, np.linspace(0, 1, 300), block)
    assert found.freedom == pytest.approx(2)


@pytest.mark.parametrize("positives", [[3], [3, 5]])
def test_all_positive_rows_on_one_day_tell_nothing(positives: list[int]) -> None:
    label = np.zeros(300, int)
    label[positives] = 1
    found = intervals.of_metric("roc_auc", label, np.linspace(0, 1, 300), np.repeat(np.arange(30), 10))
    assert not found.known
    assert np.isnan(found.bounds(0.9)).all()


@pytest.mark.parametrize(
    ("days", "alpha", "most"), [(14, 0.1, 0.11), (30, 0.02, 0.022), (90, 0.002, 0.0025), (30, 0.002, 0.0025)]
)
def test_symmetric_days_hold_the_level(days: int, alpha: float, most: float) -> None:
    """20,000 means that are truly zero; of 0.002 forty are expected, and fifty at most are two standard deviations."""
    rng = np.random.default_rng(days)
    daily = rng.normal(size=(20_000, days))
    above = [intervals.of_mean(one, np.arange(days)).bounds(1 - alpha)[0] > 0 for one in daily]
    assert np.mean(above) <= most


def test_a_tail_on_the_wrong_side_does_not_break_the_level() -> None:
    """Exponential days with rare bad ones: Student's t says "surely above zero" nine times as often as declared."""
    rng = np.random.default_rng(8)
    daily = 1 - rng.exponential(size=(20_000, 30))
    found = [intervals.of_mean(one, np.arange(30)) for one in daily]
    student = np.mean([one.value > stats.t.ppf(0.998, 29) * one.error for one in found])
    ours = np.mean([one.bounds(0.998)[0] > 0 for one in found])
    assert student > 7 * 0.002
    assert ours < 3.5 * 0.002
