"""Holdouts of which it is known which model is better: days of unlike size, each model with good and bad days."""

from __future__ import annotations

import numpy as np

from airworthy.evidence import Evidence, Metric, Scores, Task
from airworthy.metrics import score


def holdout(
    rng: np.random.Generator, metric: Metric, days: int = 30, rows: int = 40, rate: float = 0.3, noise: float = 0.7
) -> Evidence:
    """Returns what two models did that were trained apart; with the same `noise`, 0.7, they are equally good.

    Both see the same signal and share half of what is noise to them; a day shifts and stretches each one's scores.

    Args:
        rng: Where chance comes from.
        metric: Says the task, too.
        days: How many days.
        rows: How many rows a day has on average.
        rate: How many labels are positive, for a binary one.
        noise: The challenger's own; less is better.
    """
    block = np.repeat(np.arange(days), rng.poisson(rows * np.exp(rng.normal(0, 0.25, days))) + 1)
    size = len(block)
    task: Task = "binary"
    if metric in ("mae", "rmse", "r2"):
        task, label, signal = "regression", *_numbers(rng, days, block)
    elif rate == 0:
        task, label, signal = "multiclass", *_classes(rng, days, block)
    else:
        signal = rng.normal(0, 1, (size, 1))
        logit = np.log(rate / (1 - rate)) - 0.4 + signal[:, 0] + rng.normal(0, 0.5, days)[block]
        label = (rng.random(size) < 1 / (1 + np.exp(-logit))).astype(int)
        signal = signal + rng.normal(0, 0.7, (size, 1))
    width = signal.shape[1]
    raw = [
        signal * (1 + rng.normal(0, 0.15, (days, 1))[block])
        + rng.normal(0, own, (size, width))
        + rng.normal(0, 0.25, (days, width))[block]
        for own in (noise, 0.7)
    ]
    models = [_answers(task, values, rate) for values in raw]
    challenger, champion = (
        Scores(version, model, {metric: score(task, metric, label, model)})
        for version, model in zip(("", "1"), models, strict=True)
    )
    return Evidence(task, metric, label, block, challenger, True, champion, classes=tuple("abc"[:width]))


def _numbers(rng: np.random.Generator, days: int, block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    signal = rng.normal(0, 1, (len(block), 1))
    return signal[:, 0] + rng.standard_t(4, len(block)) + rng.normal(0, 0.5, days)[block], signal


def _classes(rng: np.random.Generator, days: int, block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    signal = rng.normal(0, 1, (len(block), 3)) + rng.normal(0, 0.5, (days, 3))[block]
    return (signal + rng.gumbel(size=signal.shape)).argmax(axis=1), signal


def _answers(task: Task, raw: np.ndarray, rate: float) -> np.ndarray:
    if task == "regression":
        return raw[:, 0]
    if task == "binary":
        return 1 / (1 + np.exp(-(np.log(rate / (1 - rate)) - 0.4 + raw[:, 0])))
    likely = np.exp(raw - raw.max(axis=1, keepdims=True))
    return likely / likely.sum(axis=1, keepdims=True)
