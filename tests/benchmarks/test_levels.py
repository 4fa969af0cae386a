"""Methods to compare two models, on the same holdouts of which it is known that neither is better.

Printed is how often each says "surely better", as a multiple of how often it should. Rows of a day share its luck,
and each model has good and bad days of its own.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import stdtrit
from scipy.stats import rankdata

from airworthy import intervals
from airworthy.metrics import resample

ALPHAS = (0.1, 0.02, 0.005)
HOLDOUTS = 800


def holdout(rng: np.random.Generator, days: int, rate: float) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    block = np.repeat(np.arange(days), rng.poisson(60 * np.exp(rng.normal(0, 0.25, days))) + 1)
    size, signal = len(block), rng.normal(0, 1, len(block))
    logit = np.log(rate / (1 - rate)) - 0.4 + signal + rng.normal(0, 0.5, days)[block]
    label = (rng.random(size) < 1 / (1 + np.exp(-logit))).astype(int)
    shared = rng.normal(0, 0.7, size)
    models = [
        signal * (1 + rng.normal(0, 0.25, days)[block])
        + shared
        + rng.normal(0, 0.7, size)
        + rng.normal(0, 0.25, days)[block]
        for _ in range(2)
    ]
    return label, models, block


def delong(label: np.ndarray, models: list[np.ndarray], block: np.ndarray, days: int) -> float:
    """Returns the clustered DeLong statistic (Obuchowski, Biometrics 53, 1997)."""
    positive = label == 1
    wins, losses = [], []
    for score in models:
        rank = rankdata(score)
        wins.append((rank[positive] - rankdata(score[positive])) / (~positive).sum())
        losses.append(1 - (rank[~positive] - rankdata(score[~positive])) / positive.sum())
    won, lost = wins[0] - wins[1], losses[0] - losses[1]
    gain = won.mean()
    part = np.bincount(block[positive], won - gain, days) / positive.sum()
    part += np.bincount(block[~positive], lost - gain, days) / (~positive).sum()
    return float(gain / np.sqrt(days / (days - 1) * (part**2).sum()))


@pytest.mark.parametrize(("days", "rate"), [(7, 0.3), (30, 0.3), (30, 0.02)])
def test_the_level_of_each_method(days: int, rate: float, capsys: pytest.CaptureFixture[str]) -> None:
    rng, said = np.random.default_rng(1), {"jackknife": [], "clustered DeLong": [], "percentiles": []}
    while len(said["jackknife"]) < HOLDOUTS:
        label, models, block = holdout(rng, days, rate)
        found = intervals.of_gain("roc_auc", label, *models, block)
        if not found.known:
            continue
        statistic = delong(label, models, block, days)
        counts = rng.multinomial(days, np.full(days, 1 / days), size=2000)
        first, second = (resample("roc_auc", label, model, block, counts) for model in models)
        below = np.nanmean(np.where(np.isfinite(first - second), first - second <= 0, np.nan))
        said["jackknife"].append([found.bounds(1 - alpha)[0] > 0 for alpha in ALPHAS])
        said["clustered DeLong"].append([statistic > stdtrit(days - 1, 1 - alpha) for alpha in ALPHAS])
        said["percentiles"].append([below < alpha for alpha in ALPHAS])
    multiple = {name: np.mean(rows, axis=0) / ALPHAS for name, rows in said.items()}
    with capsys.disabled():
        print(f"\n{days} days, {rate:.0%} positive; of {', '.join(map(str, ALPHAS))}:")
        for name, values in multiple.items():
            print(f"  {name:18s}", "  ".join(f"{value:5.2f}" for value in values))
    exact = 1 + 2.33 * np.sqrt((1 - np.array(ALPHAS)) / np.array(ALPHAS) / HOLDOUTS)
    assert (multiple["jackknife"] <= exact).all()
    assert multiple["percentiles"][1] > multiple["jackknife"][1]
