"""`latency: {p99_ms: 50, against_champion: 1.5}`: a single request is answered fast enough."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import Field, model_validator

from airworthy.evidence import Evidence
from airworthy.gates import Gate
from airworthy.verdict import Verdict

if TYPE_CHECKING:
    from airworthy.case import Case


class Latency(Gate):
    """Passes a challenger that answers single requests within the limits.

    A fresh process that loaded the saved files answers the recorded requests one by one, from raw row to
    prediction, in several rounds; a request's latency is the median of its rounds. Waiting for a processor that
    other programs use is left out. HTTP and lookups of views come on top and are not measured.

    Attributes:
        p50_ms: Half of the requests must be answered within so many milliseconds.
        p99_ms: The same for 99 of 100.
        load_seconds: The model must be loaded within so many seconds.
        against_champion: How many times the champion's p50 the challenger's may be, measured in the same way.
    """

    timed: ClassVar[bool] = True

    p50_ms: float | None = Field(default=None, gt=0)
    p99_ms: float | None = Field(default=None, gt=0)
    load_seconds: float | None = Field(default=None, gt=0)
    against_champion: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _limited(self) -> Self:
        if not any((self.p50_ms, self.p99_ms, self.load_seconds, self.against_champion)):
            raise ValueError("must have a limit: p50_ms, p99_ms, load_seconds or against_champion")
        return self

    def gather(self, case: Case) -> Mapping[str, Any]:
        theirs = case.measured_champion() if self.against_champion else None
        return {"challenger": asdict(case.measured()), "champion": None if theirs is None else asdict(theirs)}

    def judge(self, evidence: Evidence) -> Verdict:
        found = evidence.of(self)
        mine, theirs = found["challenger"], found["champion"]
        numbers = {"challenger": mine, "champion": theirs}
        if mine["error"] or not mine["timed"]:
            why = mine["error"] or "there are no recorded requests"
            return self.verdict(False, f"a fresh process could not answer: {why}", **numbers)
        limits = {"p50_ms": self.p50_ms, "p99_ms": self.p99_ms, "load_seconds": self.load_seconds}
        over = [
            f"{name} is {mine[name]:.3g}, allowed is {limit:g}"
            for name, limit in limits.items()
            if limit is not None and not mine[name] <= limit
        ]
        if self.against_champion and evidence.has_champion:
            if theirs is None or theirs["error"] or not theirs["timed"]:
                return self.verdict(False, "the champion could not be timed in a fresh process", **numbers)
            if not mine["p50_ms"] <= self.against_champion * theirs["p50_ms"]:
                limit = f"{self.against_champion:g} times the champion's {theirs['p50_ms']:.3g}"
                over.append(f"p50_ms is {mine['p50_ms']:.3g}, allowed is {limit}")
        counted = f"{mine['timed']} answers in {mine['rounds']} rounds"
        reason = "; ".join(over) or f"p50 {mine['p50_ms']:.3g} ms, p99 {mine['p99_ms']:.3g} ms"
        return self.verdict(not over, f"{reason} ({counted})", **numbers)
