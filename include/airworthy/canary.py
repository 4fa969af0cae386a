"""`canary:` of a pipeline file: how a challenger that passed its gates proves itself beside the champion first."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from airworthy.explain import problem
from airworthy.partitions import Duration
from airworthy.people import some_time

_FEWEST_FAILURES, _FEWEST_TIMED = 20, 100
_NOTICEABLE = 0.005  # seconds that an answer may take, whatever the champion takes

# What became of a row, or of a request, that the challenger was to score.
SCORED, FAILED, LATE, DROPPED = "scored", "failed", "late", "dropped"


class Canary(BaseModel):
    """How a challenger is tried on live requests before it becomes champion, and what ends that.

    Attributes:
        key: The column of a request by which its rows are split; by default all columns of the pipeline's key. A
            row without a value there is always the champion's.
        shares: Of the keys, one step after the other, that the challenger answers; after the last it is champion.
        shadow: Whether the champion answers all, and the challenger is only compared.
        error_rate: The chance that a challenger that is no better is promoted, and that one that is no worse is taken
            back for its predictions, however often one looks.
        tolerance: How much worse the challenger may be, in the loss of a row: of probabilities the Brier score, from 0
            to 1; of numbers 1 where it is further from the label than the champion, and -1 where it is nearer.
        within: After so long without a decision it is taken back.
        failures: The share of its answers that may fail or be late.
        slower: How many times the champion's average time it may take.
        timeout: Seconds it has; then the champion's answer is given.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: Annotated[str, Field(min_length=1)] | None = None
    shares: Annotated[tuple[Annotated[float, Field(gt=0, lt=1)], ...], Field(min_length=1)] = (0.1, 0.5)
    shadow: bool = False
    error_rate: float = Field(default=0.05, gt=0, lt=1)
    tolerance: float = Field(default=0, ge=0, lt=1)
    within: Annotated[Duration, AfterValidator(some_time)] = Field(default="60 days", validate_default=True)
    failures: float = Field(default=0.01, ge=0, lt=1)
    slower: float = Field(default=5, gt=1)
    timeout: float = Field(default=0.5, gt=0)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if list(self.shares) != sorted(set(self.shares)):
            raise problem("must grow from step to step", list(self.shares), loc=("shares",))
        if self.shadow and self.model_fields_set & {"shares", "key"}:
            raise problem(
                "must be false where key or shares are declared: in the shadow the champion answers all", True
            )
        return self

    @property
    def first_step(self) -> Step:
        """What a challenger begins with."""
        return Step(share=0 if self.shadow else self.shares[0], shadow=self.shadow)

    def alarm(self, counts: Mapping[str, float], seconds: tuple[float, float]) -> str:
        """Returns what is wrong with a challenger in serving; "" if nothing is.

        Args:
            counts: Requests by what became of them.
            seconds: The average time that the champion and the challenger took for the same requests.
        """
        bad = counts.get(FAILED, 0) + counts.get(LATE, 0)
        asked = bad + counts.get(SCORED, 0)
        if bad >= _FEWEST_FAILURES and bad > self.failures * asked:
            allowed = f"allowed is {self.failures:.1%}"
            return f"{bad:.0f} of {asked:.0f} requests failed or were late in the challenger, {allowed}"
        champion, challenger = seconds
        if asked >= _FEWEST_TIMED and challenger > max(self.slower * champion, _NOTICEABLE):
            took = f"{challenger * 1000:.1f} ms against the champion's {champion * 1000:.1f} ms"
            return f"the challenger takes {took}, allowed is {self.slower:g} times as long"
        return ""


class Step(BaseModel):
    """What one step of a canary rests on: a part of its ledger entry.

    Attributes:
        began: The sequence of the canary's first entry, 0 in that entry itself.
        share: Of the keys that the challenger answers from here on.
        shadow: Whether it answers none, and is compared on all.
        days: With labels that were compared by then, and how many rows they had.
        gain: By how much its average loss was smaller than the champion's.
        better: The e-value for its being better, and `worse` for its being worse.
        counts: Requests in serving, by what became of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    began: int = 0
    share: float
    shadow: bool
    days: int = 0
    rows: int = 0
    gain: float = 0.0
    better: float = 1.0
    worse: float = 1.0
    counts: dict[str, float] = {}


def part_of(salt: str, key: Sequence[Any]) -> float | None:
    """Returns where in [0, 1) a key is, the same in every process and for ever; None if it lacks a value.

    Args:
        salt: Names the challenger, so that it is not always the same keys that meet a new one first.
        key: Its values, as JSON or a table has them: 7 and 7.0 are the same.
    """
    if any(value is None or value != value for value in key):  # NaN is not itself
        return None
    text = "\x1f".join([salt, *map(_written, key)])
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest()) / 2**64


def _written(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value.isoformat() if isinstance(value, datetime) else str(value)
