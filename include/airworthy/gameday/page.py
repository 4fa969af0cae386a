"""The report of a game day: a page, and the same as JSON beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from airworthy.errors import AirworthyError
from airworthy.gameday import Outcome, fault
from airworthy.pages import Section, write_page, write_whole


class GameDay(BaseModel):
    """One game day of a pipeline.

    Attributes:
        at: When it began.
        lent: What the copy had that the pipeline does not declare, and what was left out.
    """

    model_config = ConfigDict(frozen=True)

    pipeline: str
    at: datetime
    lent: tuple[str, ...]
    outcomes: tuple[Outcome, ...]

    @property
    def page(self) -> str:
        """Where the page is, below `reports_dir`."""
        return f"{self.pipeline}/game_day/{self.at:%Y-%m-%dT%H%M%S}.html"

    @property
    def failed(self) -> list[Outcome]:
        return [one for one in self.outcomes if one.status != "passed"]


def publish(day: GameDay, reports_dir: Path) -> Path:
    """Returns the page once it is written."""
    file = reports_dir / day.page
    write_whole(file.with_suffix(".json"), day.model_dump_json(indent=1))
    write_page(file, f"{day.pipeline}: game day of {day.at:%Y-%m-%d %H:%M} UTC", [*_sections(day)])
    return file


def require_all(day: GameDay) -> None:
    """Returns if every alarm fired.

    Raises:
        AirworthyError: One did not; all of them are named.
    """
    if day.failed or not day.outcomes:
        told = "; ".join(one.told for one in day.failed) or "no fault was played"
        raise AirworthyError(f"game day of {day.pipeline}", "every alarm must fire", told)


def in_order(names: Sequence[str], outcomes: Sequence[Outcome]) -> tuple[Outcome, ...]:
    """Returns one outcome for each fault; of one that left none, that nothing was heard."""
    found = {one.fault: one for one in outcomes}
    return tuple(found.get(name) or _unheard(name) for name in names)


def _unheard(name: str) -> Outcome:
    chosen = fault(name)
    return Outcome(fault=name, injected=chosen.injects, must=chosen.must, trouble="it left no result; its log says why")


def _sections(day: GameDay) -> Iterator[Section]:
    ordered = sorted(day.outcomes, key=lambda one: one.status == "passed")  # what went wrong comes first
    alarms = sum(len(one.must) for one in day.outcomes)
    silent = sum(len(one.silent) for one in day.outcomes)
    verdict = f"All {alarms} alarms fired." if not day.failed else f"{silent} of {alarms} alarms did not fire."
    took = sum(one.seconds for one in day.outcomes)
    text = (
        f"{len(day.outcomes)} faults were put into a copy of {day.pipeline}, one after the other, in {took:.0f} s. "
        f"{verdict} The copy had tables, a ledger, a registered model and a serving process of its own."
    )
    rows = [
        (
            one.fault.replace("_", " "),
            one.status,
            f"{len(one.must) - len(one.silent)} of {len(one.must)}",
            one.injected,
            ", ".join(one.silent),
            f"{one.seconds:.1f}",
        )
        for one in ordered
    ]
    heading = ("fault", "result", "fired", "what was done", "silent", "seconds")
    yield Section("What was played", text=text, table=(heading, rows))
    if day.lent:
        lent = [(f"warning: {one}",) for one in day.lent]
        yield Section("Where the copy was not like the pipeline", table=(("what, and why",), lent))
    for one in ordered:
        yield _section(one)


def _section(one: Outcome) -> Section:
    said = {signal.alarm: signal for signal in one.signals}
    rows = []
    for alarm in one.must:
        signal = said.get(alarm)
        told = signal.told if signal else "nobody got as far as looking"
        rows.append((alarm, "silent" if alarm in one.silent else "fired", told))
    text = one.injected + (f"\n\nIt could not be looked at to the end: {one.trouble}" if one.trouble else "")
    return Section(
        one.fault.replace("_", " ").capitalize(), text=text, table=(("must fire", "did", "what it said"), rows)
    )
