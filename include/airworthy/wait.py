"""`wait: {timeout: 6 hours, every: 5 minutes}`: how long a run waits for its partition's data to arrive."""

from __future__ import annotations

from typing import Self

from dateutil.relativedelta import relativedelta
from pydantic import BaseModel, ConfigDict, Field, model_validator

from airworthy.explain import problem
from airworthy.partitions import Duration, write_duration


class Wait(BaseModel):
    """Waits until the source has the partition's data, without holding a worker.

    Attributes:
        timeout: From the run's start until it fails.
        every: How long between two looks.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    timeout: Duration
    every: Duration = Field(default="5 minutes", validate_default=True)

    @model_validator(mode="after")
    def _some_time(self) -> Self:
        for name, value in (("timeout", self.timeout), ("every", self.every)):
            if value == relativedelta() or value.months or value.years:
                rule = "must be some seconds, minutes, hours, days or weeks"
                raise problem(rule, write_duration(value), loc=(name,))
        return self
