"""Plays the faults, one after the other, and says what became of them."""

from __future__ import annotations

import logging
import time

from airworthy.errors import AirworthyError, ConfigError
from airworthy.gameday import Outcome, Signal, fault
from airworthy.gameday.copies import Copy

log = logging.getLogger(__name__)


def play(name: str, copy: Copy) -> Outcome:
    """Returns what became of a fault; the copy's champion is the one before it afterwards.

    Whatever goes wrong while it is put in or looked at leaves alarms unheard, and is never taken for one that fired.
    """
    chosen, signals, trouble = fault(name), list[Signal](), ""
    started = time.perf_counter()
    with copy.here():
        champion = copy.champion
        try:
            if champion is None:
                raise ConfigError(copy.name, "must have a champion")
            copy.forget_alerts()
            for signal in chosen.inject(copy):
                signals.append(signal)
                log.info("%s %s: %s", signal.alarm, "fired" if signal.fired else "DID NOT FIRE", signal.told)
        except Exception as error:  # whatever it is, the report has to say it
            log.exception("%s", name)
            trouble = str(error) if isinstance(error, AirworthyError) else f"{type(error).__name__}: {error}"
        if champion is not None:
            copy.restore(champion)
    return Outcome(
        fault=name,
        injected=chosen.injects,
        must=chosen.must,
        signals=tuple(signals),
        trouble=trouble,
        seconds=time.perf_counter() - started,
    )
