"""What every question to people has in common: who may answer, and until when."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

from dateutil.relativedelta import relativedelta
from pydantic import AfterValidator, Field

from airworthy.partitions import Duration

APPROVE, REJECT = "Approve", "Reject"


def some_time(value: relativedelta) -> relativedelta:
    """Returns a span that is longer than nothing.

    Raises:
        ValueError: It is not.
    """
    if not value:
        raise ValueError("must be longer than nothing")
    return value


def _each_once(users: tuple[str, ...]) -> tuple[str, ...]:
    if twice := [user for number, user in enumerate(users) if user in users[:number]]:
        raise ValueError(f"must name each user once, and names {twice[0]!r} again")
    return users


Users = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], AfterValidator(_each_once)]
AnswerWithin = Annotated[Duration, AfterValidator(some_time)]


def until_silence(answer_within: relativedelta) -> timedelta:
    """Returns how long a question asked now stays open."""
    now = datetime.now(UTC)
    return now + answer_within - now
