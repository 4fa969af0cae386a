"""By how much one line of a backtest is better than another, with an interval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import pandas as pd

from airworthy.config import Pipeline
from airworthy.evidence import LOWER_IS_BETTER
from airworthy.lines import LINES, Followed
from airworthy.metrics import resample, score_or_nan

CONFIDENCE = 0.95
_RESAMPLES = 1000
_LEAST = 0.1  # of the median month's rows


@dataclass(frozen=True)
class Month:
    """One line's month.

    Attributes:
        draws: The score of every resample of its days, shape (resamples,); other lines' are of the same days.
    """

    rows: int
    score: float
    draws: np.ndarray


Months: TypeAlias = Mapping[str, Month]


@dataclass(frozen=True)
class Gain:
    """How much better the first of two lines is, as a mean over months; positive is better, whatever the metric.

    Attributes:
        mean: Every month counts the same.
        weighted: Every month counts by its rows.
        interval: Of `mean`, at `CONFIDENCE`.
        months: How many there are with both lines.
    """

    mean: float
    weighted: float
    interval: tuple[float, float]
    months: int

    @property
    def sure(self) -> bool:
        """Whether zero is outside of the interval."""
        return not self.interval[0] <= 0 <= self.interval[1]

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.mean:+.4f} [{low:+.4f}, {high:+.4f}]"


def counted(scores: pd.DataFrame) -> pd.DataFrame:
    """Returns the months that have enough rows to stand for a month: a tenth of those of the median one."""
    return scores[scores["rows"] >= _LEAST * scores["rows"].median()]


def draws(pipeline: Pipeline, followed: Followed, scores: pd.DataFrame) -> dict[str, Months]:
    """Returns the months that count, by line.

    Method: a bootstrap of whole days within each month (Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
    chapters 8 and 13). Which days a resample takes depends on the month alone, so that all lines of all
    policies are scored on the same ones, and what they share falls out of their difference.

    Args:
        pipeline: Whose metric.
        followed: The rows.
        scores: The same by month, as `lines.by_month`.
    """
    task, metric = pipeline.label.task, pipeline.metric
    found: dict[str, dict[str, Month]] = {line: {} for line in LINES}
    for month in counted(scores)["month"].dt.strftime("%Y-%m"):
        chosen = followed.month == month
        days, block = np.unique(followed.block[chosen], return_inverse=True)
        random = np.random.default_rng(int(month.replace("-", "")))
        counts = random.multinomial(len(days), np.full(len(days), 1 / len(days)), size=_RESAMPLES)
        label = followed.label[chosen]
        known: list[tuple[np.ndarray, Month]] = []  # two lines with one model have one score
        for line in LINES:
            answers = followed.answers[line][chosen]
            same = next((one for given, one in known if np.array_equal(given, answers)), None)
            if same is None:
                drawn = resample(metric, label, answers, block, counts)
                same = Month(int(chosen.sum()), score_or_nan(task, metric, label, answers), drawn)
                known.append((answers, same))
            found[line][month] = same
    return dict(found)


def gain(pipeline: Pipeline, one: Months, other: Months) -> Gain | None:
    """Returns how much better one line is than another in the months whose rows both answered; None if there are none.

    Args:
        pipeline: Whose metric.
        one: A line of what `draws` returned.
        other: A line of the same, or of another policy's.
    """
    sign = -1 if pipeline.metric in LOWER_IS_BETTER else 1
    pairs = [(month, other[name]) for name, month in one.items() if name in other and other[name].rows == month.rows]
    pairs = [(mine, theirs) for mine, theirs in pairs if np.isfinite(mine.score - theirs.score)]
    if not pairs:
        return None
    means = [sign * (mine.score - theirs.score) for mine, theirs in pairs]
    drawn = np.nanmean([sign * (mine.draws - theirs.draws) for mine, theirs in pairs], axis=0)
    low, high = np.nanquantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    weighted = float(np.average(means, weights=[mine.rows for mine, _ in pairs]))
    return Gain(float(np.mean(means)), weighted, (float(low), float(high)), len(pairs))
