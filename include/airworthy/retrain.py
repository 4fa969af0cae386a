"""`retrain:` of a pipeline file: what asks for a retrain, and what holds it back."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from airworthy.explain import problem
from airworthy.partitions import Duration
from airworthy.people import some_time


class Decay(BaseModel):
    """When the champion's metric on labelled rows is too bad.

    Attributes:
        floor: The worst value that is good enough.
        tolerance: By which share it may be worse than on the holdout it was judged on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    floor: float | None = None
    tolerance: float | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _some_bound(self) -> Self:
        if self.floor is None and self.tolerance is None:
            raise problem("must declare floor, tolerance or both", None)
        return self


class Retrain(BaseModel):
    """When monitoring asks for a retrain. `train.schedule` and people start trainings beside it, without being asked.

    Attributes:
        drift: What must drift from the champion's training; none of them: nothing asks that way. `concept` is how
            labels come where the model says the same, `format` that values are written anew.
        kpis: Key figures that ask when they are not what their past lets expect, `performance` among them.
        decay: When performance asks; null for never.
        volume: How many rows of features newer than the champion ask; null for any number.
        confirm: Whether drift does not ask where the labels of its partition say that performance has not decayed.
        debounce: How many partitions in a row must ask by drift, decay or key figures. A request begins the count
            anew.
        cooldown: The least time from a training to a request. From a request to the next it is twice that after the
            first one that the present champion has survived, four times after the second, and so on up to 64 times.
        budget: How many requests there may be in a calendar month.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    drift: tuple[Literal["prediction", "columns", "label", "concept", "format"], ...] = ("prediction",)
    kpis: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    decay: Decay | None = None
    volume: int | None = Field(default=None, ge=1)
    confirm: bool = False
    debounce: int = Field(default=1, ge=1)
    cooldown: Annotated[Duration, AfterValidator(some_time)] = Field(default="7 days", validate_default=True)
    budget: int = Field(default=4, ge=0)

    @model_validator(mode="after")
    def _confirmed_by_something(self) -> Self:
        if self.confirm and self.decay is None:
            raise problem("must be false without decay, which says what labels confirm", True, loc=("confirm",))
        return self
