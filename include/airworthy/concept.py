"""Whether labels come as they used to where the model says the same: its calibration, kept as a small table.

The score is binary's probability, multiclass's largest one, or regression's number; the outcome is the label as 0 or 1,
whether the likeliest class is right, or the residual. The reference is the holdout, which the model has not learned
from, so that a model that was never calibrated raises no alarm as long as it errs as it did.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np

from airworthy.evidence import Task

BINS = 10
_LEAST = 20  # rows of both sides that a bin needs to be compared


@dataclass
class Calibration:
    """Outcomes by score.

    Attributes:
        edges: Ascending, between the bins.
        counts: Rows of each bin, one more than there are edges.
        sums: Of their outcomes.
        squares: Of the squares of these.
    """

    edges: np.ndarray
    counts: np.ndarray = field(default_factory=lambda: np.zeros(0))
    sums: np.ndarray = field(default_factory=lambda: np.zeros(0))
    squares: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def __post_init__(self) -> None:
        self.edges = np.asarray(self.edges, dtype="float64")
        for name in ("counts", "sums", "squares"):
            held = np.asarray(getattr(self, name), dtype="float64")
            setattr(self, name, held if len(held) else np.zeros(len(self.edges) + 1))

    @classmethod
    def of(cls, score: np.ndarray, outcome: np.ndarray) -> Calibration:
        """Returns the outcomes in `BINS` bins of equally many rows."""
        found = cls(np.unique(np.quantile(score, np.linspace(0, 1, BINS + 1)[1:-1])))
        found.add(score, outcome)
        return found

    def like(self) -> Calibration:
        """Returns an empty one with the same bins."""
        return Calibration(self.edges)

    def add(self, score: np.ndarray, outcome: np.ndarray) -> None:
        """Takes further rows into account, shape (n,)."""
        place = np.searchsorted(self.edges, score, side="right")
        for held, weights in ((self.counts, None), (self.sums, outcome), (self.squares, outcome**2)):
            held += np.bincount(place, weights, minlength=len(held))

    def to_json(self) -> dict[str, Any]:
        return {name: value.tolist() for name, value in asdict(self).items()}


class Apart(NamedTuple):
    """How outcomes differ.

    Attributes:
        effect: The mean difference over the rows; of residuals in their standard deviations.
        chance: How likely differences like these are if nothing has changed.
    """

    effect: float
    chance: float
    rows: int
    observed: float
    expected: float


def apart(reference: Calibration, current: Calibration) -> Apart | None:
    """Returns how outcomes differ in the bins in which both have enough rows; None if there is no such bin.

    The chance is that of the sum of squared differences over their variances: chi-squared with as many degrees of
    freedom as bins, if both sides are drawn from the same outcomes.
    """
    from scipy.stats import chi2

    enough = (reference.counts >= _LEAST) & (current.counts >= _LEAST)
    if not enough.any():
        return None
    m, n = reference.counts[enough], current.counts[enough]
    before, now = reference.sums[enough] / m, current.sums[enough] / n
    pooled = (reference.sums[enough] + current.sums[enough]) / (m + n)
    variance = (reference.squares[enough] + current.squares[enough]) / (m + n) - pooled**2
    difference = now - before
    varying = variance > 1e-12
    statistic = float((difference[varying] ** 2 / (variance * (1 / m + 1 / n))[varying]).sum())
    weight = n / n.sum()
    return Apart(
        effect=float((weight * np.abs(difference)).sum()) / _scale(reference),
        chance=float(chi2.sf(statistic, int(varying.sum()))) if varying.any() else 1.0,
        rows=int(current.counts.sum()),
        observed=float((weight * now).sum()),
        expected=float((weight * before).sum()),
    )


def outcomes(task: Task, prediction: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns score and outcome of each row.

    Args:
        prediction: Shape (n,), or (n, classes) of a multiclass model.
        label: As `encode_label` returns it.
    """
    if task == "multiclass":
        return prediction.max(axis=1), (prediction.argmax(axis=1) == label).astype("float64")
    return prediction, label - prediction if task == "regression" else label.astype("float64")


def from_json(content: Mapping[str, Sequence[float]]) -> Calibration:
    """Returns what `Calibration.to_json` gave."""
    return Calibration(**{name: np.asarray(values) for name, values in content.items()})


def _scale(reference: Calibration) -> float:
    """Returns 1 for shares, and the standard deviation of residuals."""
    share = np.allclose(reference.squares, reference.sums)
    if share:
        return 1.0
    rows = reference.counts.sum()
    return float(np.sqrt(max(reference.squares.sum() / rows - (reference.sums.sum() / rows) ** 2, 1e-24)))
