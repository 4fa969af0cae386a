"""How well a single feature, or that it is missing, tells the label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from airworthy.evidence import Task
from airworthy.grouping import Grouping, group
from airworthy.intervals import standard_error

_VALUES = 2000  # a group of its own each
_RANGES = 50
_PRIOR = 5.0  # rows with the mean label that every group is given, so that a group of one row tells little
_FEW = 30
_LEAST = 30
_NOTHING = 1e-9


def alone(task: Task, label: np.ndarray, block: np.ndarray, column: pd.Series[Any]) -> float:
    """Returns how well a column alone tells the label: the area under the ROC curve, or R² for regression.

    The mean label of each value, or range of numbers, is learnt on every other day and scored on the days between,
    and the other way round, so that a column in which every row is another value tells nothing. Of several classes
    the one that is told best counts. Missing values are a value.

    Args:
        task: What the label is predicted as.
        label: Shape (n,).
        block: Shape (n,): each row's day.
        column: Shape (n,).
    """
    from sklearn.metrics import roc_auc_score

    grouping = group(column, values=_VALUES if column.dtype.kind == "O" else _RANGES, ranges=_RANGES)
    odd = np.unique(block, return_inverse=True)[1] % 2 == 1
    if not 0 < odd.sum() < len(odd):
        odd = np.arange(len(odd)) % 2 == 1
    found = []
    for one in _indicators(task, label, ranked=False):
        told = np.empty(len(one))
        for part in (odd, ~odd):
            told[part] = _means(grouping, one, ~part)[grouping.code[part]]
        if task == "regression":
            spread = float(((one - one.mean()) ** 2).sum())
            found.append(1 - float(((one - told) ** 2).sum()) / spread if spread else 0.0)
        elif 0 < one.sum() < len(one):
            found.append(float(roc_auc_score(one, told)))
    return max(found, default=0.0)


def where_missing(
    task: Task,
    label: np.ndarray,
    block: np.ndarray,
    column: pd.Series[Any],
    others: Sequence[Grouping],
    *,
    keep: int = 5,
) -> dict[str, Any]:
    """Returns how far rows without a value are on the way from the label's share on their day to certainty.

    On the whole and inside of each group of other columns, because what leaks for one carrier may drown in the
    missing values that another always has. Rows are compared with those of the same day, so that a day on which a
    sensor was down and everybody was late is no leak. In the result, `looked_at` is how many slices were compared, and
    `surest` those with the surest differences.

    Args:
        task: Of classes, the share among the day's other rows is where the way begins; of numbers, their mean rank.
        label: Shape (n,).
        block: Shape (n,): each row's day.
        column: Shape (n,).
        others: Groups of the rows.
        keep: How many slices to return.
    """
    missing = column.isna().to_numpy()
    if not _LEAST <= missing.sum() <= len(missing) - _LEAST:
        return {"looked_at": 0, "surest": []}
    day = np.unique(block, return_inverse=True)[1]
    found = []
    everywhere = Grouping("", ("all rows",), np.zeros(len(day), dtype="int64"))
    for one in _indicators(task, label, ranked=True):
        for grouping in (everywhere, *others):
            found += _differences(grouping, one, day, missing)
    found.sort(key=lambda one: one["least"], reverse=True)
    return {"looked_at": len(found), "surest": found[:keep]}


def few_valued(rows: pd.DataFrame, names: Sequence[str]) -> list[Grouping]:
    """Returns the groups of those columns that hold few values."""
    return [group(rows[name], values=_FEW, ranges=1) for name in names if 1 < rows[name].nunique(dropna=True) <= _FEW]


def _differences(grouping: Grouping, one: np.ndarray, day: np.ndarray, missing: np.ndarray) -> list[dict[str, Any]]:
    days, groups = int(day.max()) + 1, len(grouping.names)
    cell, size = grouping.code * days + day, groups * days

    def table(chosen: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        held = None if weights is None else weights[chosen]
        return np.bincount(cell[chosen], weights=held, minlength=size).reshape(groups, days)

    absent, there = table(missing), table(~missing)
    sums, usual = table(missing, one), table(~missing, one)
    compared = np.where(there > 0, absent, 0)  # a day without any other row has nothing to compare with
    with np.errstate(divide="ignore", invalid="ignore"):
        rate = np.where(there > 0, usual / there, 0.0)
        expected = compared * rate
        surplus = np.where(there > 0, sums, 0.0) - expected
    found = []
    for number in range(groups):
        rows, usually = compared[number].sum(), expected[number].sum()
        if rows < _LEAST or there[number].sum() < _LEAST:
            continue
        left, still = rows - compared[number], usually - expected[number]
        if not (left > 0).all():
            continue  # all on one day
        more = surplus[number].sum()
        most, without_most = (rows - usually, left - still) if more > 0 else (usually, still)
        told = float(more / max(most, _NOTHING))
        by_days = float(standard_error((more - surplus[number]) / np.maximum(without_most, _NOTHING)))
        # Thirty rows that are late where all are late do not vary by day either, and tell nothing.
        by_chance = float(np.sqrt((expected[number] * (1 - rate[number])).sum()) / max(most, _NOTHING))
        error = max(by_days, by_chance)
        found.append(
            {
                "slice": grouping.names[number],
                "rows": int(rows),
                "days": int((compared[number] > 0).sum()),
                "told": told,
                "error": error,
                "least": abs(told) - 3 * error,
            }
        )
    return found


def _indicators(task: Task, label: np.ndarray, *, ranked: bool) -> list[np.ndarray]:
    """Returns the label as numbers to average: a column per class; of numbers, their ranks if asked for."""
    if task == "regression":
        return [pd.Series(label).rank(pct=True).to_numpy() if ranked else label.astype("float64")]
    if task == "binary":
        return [(label == 1).astype("float64")]
    return [(label == number).astype("float64") for number in np.unique(label)]


def _means(grouping: Grouping, one: np.ndarray, learnt: np.ndarray) -> np.ndarray:
    """Returns the mean label of each group on some of the rows."""
    size = len(grouping.names)
    rows = np.bincount(grouping.code[learnt], minlength=size)
    sums = np.bincount(grouping.code[learnt], weights=one[learnt], minlength=size)
    return np.asarray((sums + _PRIOR * one[learnt].mean()) / (rows + _PRIOR))
