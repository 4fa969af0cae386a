"""What a gate says about a challenger."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Status = Literal["passed", "failed", "error"]
OnFail = Literal["block", "warn", "ask"]


class Verdict(BaseModel):
    """One gate's judgement, with the numbers it rests on.

    `error` means the gate itself could not judge; it never counts as passed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    gate: str
    status: Status
    reason: str
    on_fail: OnFail = "block"
    evidence: dict[str, Any] = Field(default_factory=dict)

    @property
    def passed(self) -> bool:
        return self.status == "passed"

    @property
    def blocks(self) -> bool:
        """True if the challenger must not be promoted; an error blocks whatever `on_fail` says."""
        return self.status == "error" or (self.status == "failed" and self.on_fail == "block")

    @property
    def asks(self) -> bool:
        """True if the challenger may be promoted only when people have approved of it."""
        return self.status == "failed" and self.on_fail == "ask"
