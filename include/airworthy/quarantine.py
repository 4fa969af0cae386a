"""What a pipeline file says about quarantine: whom to ask about rows that fail, and what may be done with them."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from airworthy.people import AnswerWithin, Users
from airworthy.user_code import Function

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,49}$")]


class Quarantine(BaseModel):
    """How a person decides about rows in quarantine.

    Attributes:
        ask: Whether the question comes by itself; else `<pipeline>.quarantine` is triggered with a partition.
        repairs: Functions by name. Each takes failing raw rows as a frame, and returns them mended.
        answer_within: No answer by then leaves the rows where they are.
        assigned_users: Ids of the only users who may answer; default: everybody who may edit runs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    ask: bool = False
    repairs: dict[Name, Function] = {}
    answer_within: AnswerWithin = Field(default="7 days", validate_default=True)
    assigned_users: Users = ()

    @property
    def options(self) -> list[str]:
        """What may be decided, the harmless first."""
        return ["drop", *(f"repair: {name}" for name in self.repairs), "release"]
