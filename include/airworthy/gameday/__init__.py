"""The game day: faults put into a copy of a pipeline, to see that every alarm, gate and response fires."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from airworthy import kinds
from airworthy.kinds import Family, Kind

if TYPE_CHECKING:
    from airworthy.gameday.copies import Copy

FAMILY: Family = "gameday.faults"
SUFFIX = "__game_day"


class Signal(BaseModel):
    """Whether one alarm, gate or response fired, and what it said."""

    model_config = ConfigDict(frozen=True)

    alarm: str
    fired: bool
    told: str


class Outcome(BaseModel):
    """What became of one fault.

    Attributes:
        injected: What was done to the copy.
        must: The alarms that had to fire.
        signals: What was seen of them.
        trouble: Why the fault could not be put in or looked at to the end; "" if it was.
    """

    model_config = ConfigDict(frozen=True)

    fault: str
    injected: str
    must: tuple[str, ...]
    signals: tuple[Signal, ...] = ()
    trouble: str = ""
    seconds: float = 0.0

    @property
    def silent(self) -> tuple[str, ...]:
        """The alarms that had to fire and did not; one that nobody looked at is among them."""
        fired = {signal.alarm for signal in self.signals if signal.fired}
        fired -= {signal.alarm for signal in self.signals if not signal.fired}
        return tuple(alarm for alarm in self.must if alarm not in fired)

    @property
    def status(self) -> Literal["passed", "failed", "error"]:
        return "error" if self.trouble else "failed" if self.silent else "passed"

    @property
    def told(self) -> str:
        """What went wrong, as a sentence; "" if nothing did."""
        if self.status == "passed":
            return ""
        silent = f"did not fire: {', '.join(self.silent)}" if self.silent else "all alarms fired"
        return f"{self.fault}: {silent}" + (f" ({self.trouble})" if self.trouble else "")


class Fault(Kind):
    """Something that goes wrong. One file per fault in `airworthy/gameday/faults/`, registered nowhere else.

    Attributes:
        injects: What it does to the copy, for people.
        must: The alarms, gates and responses that have to fire.
    """

    injects: ClassVar[str]
    must: ClassVar[tuple[str, ...]]

    @abstractmethod
    def inject(self, copy: Copy) -> Iterator[Signal]:
        """Puts the fault into the copy, and yields what it sees of each alarm in `must`.

        The copy's champion is brought back afterwards; everything else it changes, it puts right itself.
        """


def faults() -> list[str]:
    """Returns the names of all faults, sorted."""
    return kinds.names(FAMILY)


def fault(name: str) -> Fault:
    """Returns one fault.

    Raises:
        KeyError: There is no such fault.
    """
    found = kinds.find(FAMILY, name)()
    assert isinstance(found, Fault)
    return found
