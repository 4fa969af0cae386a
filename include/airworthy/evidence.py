"""The evidence gates judge: what challenger and champion did on the same out-of-time holdout."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np

Task = Literal["binary", "multiclass", "regression"]


@dataclass(frozen=True)
class Scores:
    """One model's answers on the holdout.

    Attributes:
        version: The model version, or "" for a challenger that is not registered yet.
        prediction: Shape (n,) for binary (probability of the positive class) and regression,
            (n, classes) for multiclass probabilities.
        metrics: Metric name to value on the whole holdout.
    """

    version: str
    prediction: np.ndarray
    metrics: dict[str, float]


@dataclass(frozen=True)
class Servable:
    """What a fresh process did with the saved model files."""

    requests: int
    largest_difference: float
    seconds: float
    error: str = ""


@dataclass(frozen=True)
class Evidence:
    """All a gate may look at.

    Attributes:
        label: Shape (n,): 0/1 for binary, class index for multiclass, a number for regression.
        block: Shape (n,): the day of each row as an integer; rows of one day are not independent.
        champion: None together with `has_champion` True means the champion could not be scored.
    """

    task: Task
    label: np.ndarray
    block: np.ndarray
    challenger: Scores
    has_champion: bool
    champion: Scores | None = None
    servable: Servable | None = None
    classes: tuple[str, ...] = field(default=())
