"""Gates: pure judgements of a challenger. One file per kind; a gate never imports another."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from airworthy.evidence import Evidence
from airworthy.kinds import Kind
from airworthy.verdict import OnFail, Verdict


class Gate(Kind):
    """A declared judgement. Its fields are its keys in a pipeline file."""

    on_fail: OnFail = "block"

    @abstractmethod
    def judge(self, evidence: Evidence) -> Verdict:
        """Returns the verdict. Pure: the same evidence gives the same verdict; nothing is written."""

    def verdict(self, passed: bool, reason: str, **numbers: Any) -> Verdict:
        """Returns this gate's verdict with the numbers it rests on."""
        return Verdict(
            gate=self.kind(),
            status="passed" if passed else "failed",
            reason=reason,
            on_fail=self.on_fail,
            evidence=numbers,
        )


def judge_all(gates: tuple[Gate, ...], evidence: Evidence) -> list[Verdict]:
    """Returns one verdict per gate, in order; a gate that crashes gives an ERROR verdict, never a pass."""
    verdicts = []
    for gate in gates:
        try:
            verdicts.append(gate.judge(evidence))
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            verdicts.append(Verdict(gate=gate.kind(), status="error", reason=reason, on_fail=gate.on_fail))
    return verdicts
