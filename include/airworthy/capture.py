"""`capture:` of a pipeline file: what is kept of the answers that serving gives, and the names it is kept under."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from airworthy.partitions import Duration
from airworthy.people import some_time

CAPTURED, LOSS = "captured", "captured_loss"

# The columns of `captured` beside the inputs, `prediction` and `version`; no input is captured that begins so.
PREFIX = "captured_"
AT, REQUEST, ROW = "captured_at", "captured_request", "captured_row"
SECONDS, SEQUENCE = "captured_seconds", "captured_sequence"
FEATURES_VERSION, FEATURES_TIME = "captured_features_version", "captured_features_time"
PROBABILITY = "captured_p_"  # and the class
# Where a canary runs, what the version that did not answer would have said.
OTHER, OTHER_VERSION, OTHER_PROBABILITY = "captured_other", "captured_other_version", "captured_other_p_"


class Capture(BaseModel):
    """Which answers each serving worker keeps, and what it does when it cannot write them as fast as they come.

    A change takes effect with the next version, or when serving starts again.

    Attributes:
        share: Of the requests, chosen by their id; 0 keeps nothing.
        flush: The longest time that an answer waits in memory, which is the most that a killed worker loses.
        buffer_bytes: Of all bodies whose rows wait in the memory of one worker.
        when_full: What becomes of an answer for which the buffer has no room, as when the disk is full: `drop` gives
            and counts it, `push_back` gives 503 instead.
        keep: How long captured rows stay in the table; null for ever. Whole hours that are older are dropped when
            another hour is over; their files are removed a week later.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    share: float = Field(default=1, ge=0, le=1)
    flush: Annotated[Duration, AfterValidator(some_time)] = Field(default="10 seconds", validate_default=True)
    buffer_bytes: int = Field(default=16_000_000, ge=1)
    when_full: Literal["drop", "push_back"] = "drop"
    keep: Annotated[Duration, AfterValidator(some_time)] | None = None
