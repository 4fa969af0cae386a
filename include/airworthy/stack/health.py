"""Starts components in the order they need, and waits until each one answers."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from airworthy.errors import ServiceError
from airworthy.stack.manager import Manager, Seen
from airworthy.stack.programs import Program
from airworthy.stack.state import State

PATIENCE = 180.0  # seconds for all components together; a crash is seen at once, so this is for slow machines
_LOG_LINES = 15


def bring_up(manager: Manager, programs: Sequence[Program], state: State, say: Callable[[str], None]) -> None:
    """Returns once every component is healthy; says so of each as it happens.

    Raises:
        ServiceError: A component failed or stayed silent; the end of its log is in the message.
    """
    began = time.monotonic()
    waiting = {program.name: program for program in programs}
    asked: set[str] = set()
    while waiting:
        seen = manager.seen()
        for name, program in list(waiting.items()):
            if name not in asked and not waiting.keys() & set(program.after):
                if not seen[name].lives:
                    manager.start(name)
                asked.add(name)
            elif name in asked and _ready(program, seen[name], state):
                del waiting[name]
                what = "done" if program.health is None else "healthy"
                say(f"  {name:<16} {what:<8} {time.monotonic() - began:5.1f} s")
        if waiting and time.monotonic() - began > PATIENCE:
            raise _silent(next(iter(waiting)), state)
        time.sleep(0.1)


def _ready(program: Program, seen: Seen, state: State) -> bool:
    if seen.failed:
        raise ServiceError(
            program.name,
            "must start",
            f"{seen.state.lower()}, exit code {seen.exit_code}",
            f"The end of {state.log(program.name)}:\n{last_lines(state.log(program.name))}",
        )
    if program.health is None:
        return seen.done
    return seen.state in {"STARTING", "RUNNING"} and program.health(seen.started)


def _silent(name: str, state: State) -> ServiceError:
    hint = f"The end of {state.log(name)}:\n{last_lines(state.log(name))}"
    return ServiceError(name, f"must be healthy within {PATIENCE:.0f} s", "no healthy answer", hint)


def last_lines(log: Path, count: int = _LOG_LINES) -> str:
    """Returns the end of a log, or a word about there being none."""
    if not log.exists():
        return "  (no log)"
    with log.open(encoding="utf-8", errors="replace") as lines:
        return "".join(f"  {line}" for line in deque(lines, maxlen=count)).rstrip()
