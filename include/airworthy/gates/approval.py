"""`approval: {assigned_users: [alice, bob], people: 2}`: people must approve of the challenger."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from airworthy.evidence import Evidence
from airworthy.explain import problem
from airworthy.gates import Gate
from airworthy.people import AnswerWithin, Users
from airworthy.verdict import Verdict


class Approval(Gate):
    """Asks people about every challenger, and says whom also where another gate fails with `on_fail: ask`.

    Attributes:
        assigned_users: Ids of the only users who may answer; default: everybody who may edit runs.
        people: How many different people must approve. One of them may have asked for the training, not all.
        answer_within: How long each of them is waited for. No answer by then means no.
        always: False asks only where another gate does.
    """

    compares: ClassVar[bool] = False

    on_fail: Literal["ask"] = "ask"
    assigned_users: Users = ()
    people: int = Field(default=1, ge=1, le=9)
    answer_within: AnswerWithin = Field(default="2 days", validate_default=True)
    always: bool = True

    @model_validator(mode="after")
    def _enough_users(self) -> Self:
        if self.assigned_users and self.people > len(self.assigned_users):
            rule = f"must be at most {len(self.assigned_users)}, the number of assigned_users"
            raise problem(rule, self.people, loc=("people",))
        return self

    def judge(self, evidence: Evidence) -> Verdict:
        if not self.always:
            return self.verdict(True, "people are asked where another gate wants it")
        among = f" of {', '.join(self.assigned_users)}" if self.assigned_users else ""
        asked = "1 person" if self.people == 1 else f"{self.people} people"
        return self.verdict(False, f"{asked}{among} must approve")


def approval_of(gates: Sequence[Gate]) -> Approval | None:
    """Returns who is asked about a pipeline's challengers; None if no gate ever asks.

    Where gates ask and `approval` is not declared, its defaults hold.
    """
    declared = next((gate for gate in gates if isinstance(gate, Approval)), None)
    return declared or (Approval() if any(gate.on_fail == "ask" for gate in gates) else None)
