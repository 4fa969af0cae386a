"""How often `beats_champion` promotes, where it is known which model is better.

"At most" allows for chance: so much above what is declared is seen in one of a hundred runs of a test that is exact.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import numpy as np
import pytest

from airworthy.budget import ReplayBudget
from airworthy.evidence import Evidence, Metric, Scores
from airworthy.gates import gather_all, judge_all
from airworthy.gates.beats_champion import BeatsChampion
from airworthy.intervals import of_gain
from simulated_holdouts import holdout

DECISIONS = 1000


def at_most(declared: float, decisions: int) -> float:
    return declared + 2.33 * (declared * (1 - declared) / decisions) ** 0.5


@pytest.mark.parametrize(
    ("metric", "days", "rows", "rate", "alpha"),
    [
        ("roc_auc", 30, 40, 0.3, 0.1),
        ("roc_auc", 30, 40, 0.3, 0.02),
        ("roc_auc", 7, 60, 0.3, 0.1),
        ("roc_auc", 14, 60, 0.02, 0.02),
        ("average_precision", 14, 40, 0.3, 0.1),
        ("accuracy", 7, 40, 0.3, 0.02),
        ("log_loss", 30, 40, 0.02, 0.02),
        ("log_loss", 14, 40, 0.0, 0.1),  # multiclass
        ("mae", 30, 40, 0.3, 0.02),
        ("rmse", 14, 40, 0.3, 0.1),
    ],
)
def test_equally_good_models_are_promoted_no_more_often_than_declared(
    metric: Metric, days: int, rows: int, rate: float, alpha: float
) -> None:
    rng = np.random.default_rng(2013)
    gate = BeatsChampion(metric=metric, confidence=1 - alpha)
    promoted = 0
    for _ in range(DECISIONS):
        promoted += gate.judge(holdout(rng, metric, days, rows, rate)).passed
    print(f"{metric}, {days} days, {rate:.0%} positive: {promoted / DECISIONS:.3f} promoted, {alpha} declared")
    assert promoted / DECISIONS <= at_most(alpha, DECISIONS)


@pytest.mark.parametrize("days", [2, 3])
def test_days_that_by_chance_gain_exactly_the_same_promote_nothing(days: int) -> None:
    """Of two and of three days of ten rows, 42 and 8 holdouts in a thousand have one gain on all, hence no error."""
    rng, gate = np.random.default_rng(2018), BeatsChampion(metric="accuracy", confidence=0.998)
    block, label, promoted = np.repeat(np.arange(days), 10), np.zeros(10 * days, int), 0
    for _ in range(DECISIONS):
        models = [np.where(rng.random(len(label)) < 0.7, 0.1, 0.9) for _ in range(2)]
        scores = [Scores("", one, {"accuracy": float((one < 0.5).mean())}) for one in models]
        evidence = Evidence("binary", "accuracy", label, block, scores[0], True, scores[1])
        promoted += gate.judge(evidence).passed
    assert promoted / DECISIONS <= at_most(0.002, DECISIONS)


def daily(rng: np.random.Generator, gain: float, days: int = 30) -> Evidence:
    """Returns a holdout of one row a day; the challenger gains `gain` standard deviations of a day."""
    champion = np.abs(rng.normal(10, 1, days))
    challenger = np.abs(champion - gain - rng.normal(0, 1, days))
    label, metrics = np.zeros(days), [{"mae": float(losses.mean())} for losses in (challenger, champion)]
    scores = Scores("", challenger, metrics[0]), Scores("1", champion, metrics[1])
    return Evidence("regression", "mae", label, np.arange(days), scores[0], True, scores[1])


def promotions_of_a_year(rng: np.random.Generator, gate: BeatsChampion, gain: float, looks: int) -> list[int]:
    """Returns which of a year's retrains would have been promoted."""
    budget, found = ReplayBudget(), []
    for number in range(looks):
        as_of = datetime(2013, 1, 1, tzinfo=UTC) + timedelta(days=365 / looks * number)
        case = SimpleNamespace(
            pipeline=SimpleNamespace(name="p"),
            challenger=SimpleNamespace(run_id=str(number), as_of=as_of),
            evidence=daily(rng, gain),
            budget=budget,
        )
        if judge_all([gate], gather_all([gate], case))[0].passed:
            found.append(number)
    return found


@pytest.mark.parametrize(("gain", "most"), [(0.0, 0.1), (-0.1, 0.02)])
def test_a_year_of_weekly_retrains_promotes_a_worse_model_no_more_often_than_budgeted(gain: float, most: float) -> None:
    """Not better at all is the hardest case; a tenth of a day's deviation worse is hardly ever promoted."""
    rng, years = np.random.default_rng(2014), 200
    fooled = sum(bool(promotions_of_a_year(rng, BeatsChampion(error_budget=0.1), gain, 52)) for _ in range(years))
    print(f"gain {gain}: a worse model promoted in {fooled} of {years} years")
    assert fooled / years <= at_most(most, years)


def test_without_a_budget_a_year_of_weekly_retrains_surely_promotes_a_worse_model() -> None:
    """Each test at 90 % by itself: 1 - 0.9^52 of the years. This is what the budget is for."""
    rng, years = np.random.default_rng(2015), 20
    gate = BeatsChampion(confidence=0.9)
    assert sum(bool(promotions_of_a_year(rng, gate, 0.0, 52)) for _ in range(years)) >= 18


def test_non_inferiority_promotes_what_is_worse_by_the_margin_no_more_often_than_declared() -> None:
    rng = np.random.default_rng(2016)
    gate = BeatsChampion(test="non_inferiority", margin=0.3, confidence=0.95)
    worse = np.mean([gate.judge(daily(rng, -0.3)).passed for _ in range(DECISIONS)])
    equal = np.mean([gate.judge(daily(rng, 0.3)).passed for _ in range(200)])
    assert worse <= at_most(0.05, DECISIONS)
    assert equal > 0.8


def test_better_models_are_found(capsys: pytest.CaptureFixture[str]) -> None:
    """The power: of challengers truly better by so much, how many one look finds, by what it may draw."""
    rng, repeats = np.random.default_rng(2017), 60
    spending = BeatsChampion().spending
    assert spending is not None
    steady = {looks: spending.share * 0.1 / (1 + spending.share * (looks - 1)) for looks in (12, 52)}
    lines, power = ["gain in AUC  rows        alone at 90 %  first look  12 a year  52 a year"], {}
    for noise in (0.6, 0.4, 0.1):
        for days, rows in ((30, 100), (90, 100)):
            found = []
            for _ in range(repeats):
                seen = holdout(rng, "roc_auc", days, rows, noise=noise)
                assert seen.champion is not None
                pair = seen.challenger.prediction, seen.champion.prediction
                found.append(of_gain("roc_auc", seen.label, *pair, seen.block))
            gain = float(np.mean([one.value for one in found]))
            alphas = (0.1, spending.share * 0.1, steady[12], steady[52])
            row = [float(np.mean([one.bounds(1 - alpha)[0] > 0 for one in found])) for alpha in alphas]
            power[noise, days] = row
            cells = "  ".join(f"{value:9.2f}" for value in row)
            lines.append(f"{gain:11.4f}  {days} x {rows:3d}  {cells}")
    with capsys.disabled():
        print("", *lines, sep="\n")
    assert power[0.1, 90][1] > 0.75
    assert all(row == sorted(row, reverse=True) for row in power.values())


def test_the_same_gain_is_seldom_luck_on_more_days() -> None:
    rng = np.random.default_rng(3)
    evidence = daily(rng, 0.5, days=60)
    half = replace(evidence, block=evidence.block // 30)
    assert BeatsChampion(confidence=0.99).judge(evidence).passed
    assert not BeatsChampion(confidence=0.99).judge(half).passed
