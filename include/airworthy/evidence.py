"""The evidence gates judge: what challenger and champion did on the same out-of-time holdout."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np

Task = Literal["binary", "multiclass", "regression"]
Metric = Literal["roc_auc", "average_precision", "log_loss", "accuracy", "rmse", "mae", "r2"]
METRICS: dict[Task, tuple[Metric, ...]] = {
    "binary": ("roc_auc", "average_precision", "log_loss", "accuracy"),
    "multiclass": ("log_loss", "accuracy"),
    "regression": ("rmse", "mae", "r2"),
}
LOWER_IS_BETTER: frozenset[Metric] = frozenset({"log_loss", "rmse", "mae"})


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
    metrics: dict[Metric, float]


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
        metric: The metric the pipeline leads with.
        champion: None together with `has_champion` True means the champion could not be scored.
        champion_error: Why it could not.
    """

    task: Task
    metric: Metric
    label: np.ndarray
    block: np.ndarray
    challenger: Scores
    has_champion: bool
    champion: Scores | None = None
    champion_error: str = ""
    servable: Servable | None = None
    classes: tuple[str, ...] = field(default=())
