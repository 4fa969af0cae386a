"""Bad champion: what answers has decayed, and has to be replaced without asking anybody."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from airworthy.alerts import Alert
from airworthy.gameday import Fault, Signal
from airworthy.gameday.copies import Copy, promote
from airworthy.gameday.served import Answer, Served, served
from airworthy.ledger import Entry


class BadChampion(Fault):
    """Another version becomes champion and is told to have decayed, with each response in turn.

    The copy declares each of the responses that replace a champion, whether or not its pipeline does.
    """

    injects = "Another version becomes champion and decays, once for each response that replaces a champion."
    must = ("response roll_back", "response fall_back", "response stop_serving")

    def inject(self, copy: Copy) -> Iterator[Signal]:
        good = copy.champion
        assert good is not None
        with served(copy) as process:
            bad = promote(copy, seed=3 + good.sequence)  # what an alert took back once comes back by a person only
            yield _responded(process, "roll_back", "roll_back", bad, good.version)
            yield _responded(process, "fall_back", {"fall_back": good.version}, bad, good.version)
            yield _responded(process, "stop_serving", "stop_serving", bad, "")


def _responded(process: Served, name: str, response: Any, bad: Entry, version: str) -> Signal:
    """Returns whether a response to the decay of `bad` leaves `version` answering; "" if nothing may answer."""
    process.copy.restore(bad)
    process.wait(f"answer by version {bad.version}", lambda: _answers(process, bad.version))
    incident = f"decay of version {bad.version}, to be answered by {name}"
    with process.copy.declared(alerts={"on": ["decay"], "respond": {"decay": response}}) as pipeline:
        copy = replace(process.copy, pipeline=pipeline, profile=process.profile)
        alert = Alert(
            pipeline=copy.name,
            kind="decay",
            severity="critical",
            subject=f"{copy.name}: decay of version {bad.version}",
            text="It was said to have decayed.",
            incident=incident,
            version=bad.version,
        )
        copy.tell(alert)
        said = copy.alert("decay", incident)
        answer = process.wait("follow the ledger", lambda: _answers(process, version)) if said.fired else None
    found = f"; serving answers {answer.status} by {answer.version or 'none'}" if answer else ""
    return Signal(alarm=f"response {name}", fired=said.fired, told=said.told + found)


def _answers(process: Served, version: str) -> Answer | None:
    """Returns the answer to a request once it is by a version, or refused where that is ""."""
    answer = process.predict()
    return answer if (answer.status, answer.version) == (200 if version else 503, version) else None
