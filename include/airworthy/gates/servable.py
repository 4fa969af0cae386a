"""`servable: {tolerance: 0.000001}`: the saved files answer, in a fresh process, as the trained model did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from airworthy.evidence import Evidence
from airworthy.gates import Gate
from airworthy.verdict import Verdict

if TYPE_CHECKING:
    from airworthy.case import Case


class Servable(Gate):
    """Passes a challenger whose saved files, loaded by a fresh process, gave the recorded answers.

    The recorded answers come from the features table, the fresh ones from raw rows, so a feature that
    is computed differently for a single request than for a whole partition is found here.
    """

    compares: ClassVar[bool] = False

    tolerance: float = Field(default=1e-6, ge=0)

    def gather(self, case: Case) -> Mapping[str, Any]:
        return asdict(case.measured())

    def judge(self, evidence: Evidence) -> Verdict:
        found = evidence.of(self)
        if found["error"]:
            return self.verdict(False, f"a fresh process could not answer: {found['error']}")
        requests, difference = found["requests"], found["largest_difference"]
        passed = requests > 0 and difference <= self.tolerance
        reason = f"{requests} recorded requests were answered in {found['seconds']:.2f} s, "
        if difference > self.tolerance:
            reason += f"off by up to {difference:.2g} where {self.tolerance:.2g} is allowed"
        else:
            reason += f"at most {difference:.2g} off"
        return self.verdict(passed, reason, requests=requests, largest_difference=difference)
