"""The evidence gates judge: what challenger and champion did on the same out-of-time holdout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from airworthy.errors import ModelError

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
class Measured:
    """What a fresh process found on the saved model files.

    Attributes:
        requests: How many recorded requests it answered.
        largest_difference: Of an answer from the recorded one.
        seconds: That took, for all requests together and ten of them one by one.
        error: Why it could not.
        load_seconds: Until the model could answer, its libraries imported already.
        timed: How many answers to single requests the latencies rest on; 0 if none was timed.
        rounds: How often each request was asked; its latency is the median of them.
        p50_ms: Milliseconds within which half of the requests were answered.
        p99_ms: The same for 99 of 100.
        peak_megabytes: The most memory the process held, libraries included.
        bytes: Of all files of the model.
    """

    requests: int
    largest_difference: float
    seconds: float
    error: str = ""
    load_seconds: float = 0.0
    timed: int = 0
    rounds: int = 0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    peak_megabytes: float = 0.0
    bytes: int = 0


class Declared(Protocol):
    """What evidence was gathered for: a gate, told apart by what its pipeline file says of it."""

    @property
    def declaration(self) -> str: ...


@dataclass(frozen=True)
class Evidence:
    """All a gate may look at when it judges.

    Attributes:
        label: Shape (n,): 0/1 for binary, class index for multiclass, a number for regression.
        block: Shape (n,): the day of each row as an integer; rows of one day are not independent.
        metric: The metric the pipeline leads with.
        champion: None together with `has_champion` True means the champion could not be scored.
        champion_error: Why it could not.
        gathered: By a gate's declaration: what its `gather` returned.
        missing: By a gate's declaration: why its `gather` returned nothing.
    """

    task: Task
    metric: Metric
    label: np.ndarray
    block: np.ndarray
    challenger: Scores
    has_champion: bool
    champion: Scores | None = None
    champion_error: str = ""
    classes: tuple[str, ...] = field(default=())
    gathered: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)

    def of(self, gate: Declared) -> Mapping[str, Any]:
        """Returns what a gate gathered.

        Raises:
            ModelError: It gathered nothing, or could not.
        """
        if gate.declaration in self.gathered:
            return self.gathered[gate.declaration]
        hint = self.missing.get(gate.declaration, "Nothing was gathered for this declaration; evaluate again")
        raise ModelError("evidence", "must be there for every gate", hint=hint)
