"""`tune: {trials: 20, space: {...}}`: the search for a model's parameters that a pipeline file declares."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from airworthy.explain import problem


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class IntRange(_Strict):
    int: tuple[int, int]
    log: bool = False


class FloatRange(_Strict):
    float: tuple[float, float]
    log: bool = False


class Choice(_Strict):
    choice: tuple[bool | int | float | str, ...] = Field(min_length=1)


def _range(value: Any) -> Any:
    known: dict[str, type[_Strict]] = {"int": IntRange, "float": FloatRange, "choice": Choice}
    if isinstance(value, _Strict):
        return value
    chosen = [name for name in known if isinstance(value, dict) and name in value]
    if len(chosen) != 1:
        raise problem("must be written as `int: [1, 9]`, `float: [0.1, 1]` or `choice: [a, b]`", value)
    found = known[chosen[0]].model_validate(value)
    if isinstance(found, Choice):
        return found
    assert isinstance(found, IntRange | FloatRange)
    low, high = found.int if isinstance(found, IntRange) else found.float
    if low >= high:
        raise problem("must be the lower bound, then the higher one", [low, high], loc=(chosen[0],))
    if found.log and low <= 0:
        raise problem("must be above 0 with `log: true`", low, loc=(chosen[0], 0))
    return found


Range = Annotated[IntRange | FloatRange | Choice, BeforeValidator(_range)]


class Limits(_Strict):
    """What a model may cost at most.

    Attributes:
        latency_ms: Median time of a prediction for one row.
        size_mb: Of the saved model, in 10^6 bytes.
    """

    latency_ms: float | None = Field(default=None, gt=0)
    size_mb: float | None = Field(default=None, gt=0)

    def __bool__(self) -> bool:
        return self.latency_ms is not None or self.size_mb is not None

    def keeps(self, latency_ms: float, size_mb: float) -> bool:
        """Returns whether a model of this cost is within the limits."""
        limits = ((latency_ms, self.latency_ms), (size_mb, self.size_mb))
        return all(limit is None or cost <= limit for cost, limit in limits)

    def __str__(self) -> str:
        limits = (("ms", self.latency_ms), ("MB", self.size_mb))
        return " and ".join(f"{limit:g} {unit}" for unit, limit in limits if limit is not None)


class Tune(_Strict):
    """The declared search: Optuna draws from `space` until `trials` or `timeout` seconds are used up.

    Attributes:
        timeout: Seconds, those of attempts that were cut off included.
        parallel: How many trials are trained at once, sharing `train.threads`; default: one a thread.
        prune: Whether a trial stops early when it is worse than the median of earlier ones at the same point.
        warm_start: Whether the first trial is the best one of the last run as of an earlier date with this space.
        limits: The best trial is chosen among those that keep them.
    """

    trials: int = Field(default=10, ge=1)
    timeout: float = Field(default=600, gt=0)
    parallel: int | None = Field(default=None, ge=1)
    prune: bool = True
    warm_start: bool = True
    limits: Limits = Limits()
    space: dict[str, Range] = {}

    @model_validator(mode="after")
    def _something_to_choose_from(self) -> Tune:
        if self.limits and not self.space:
            raise problem("must have a space to choose from, because there are limits", None, loc=("space",))
        return self
