"""`airworthy status`: what runs, for how long, with how much memory, and where."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import psutil

from airworthy import profile
from airworthy.stack import processes
from airworthy.stack.lifecycle import Say
from airworthy.stack.manager import Manager, Seen
from airworthy.stack.programs import Program, programs
from airworthy.stack.state import State

_COLUMNS = "{:<14} {:<10} {:>8} {:>10} {:>9}  {}"


def show(say: Say) -> bool:
    """Prints one line per component; returns whether every one of them is healthy."""
    state = State(profile.home())
    running = state.running
    if running is None or not (manager := Manager(running.socket)).alive():
        left = len(processes.of_stack(state))
        hint = f"; {left} processes of it are left over, which `make down` ends" if left else ""
        say(f"The stack in {state.home} is not running{hint}.")
        return False
    seen = manager.seen()
    say(_COLUMNS.format("component", "state", "pid", "uptime", "memory", "address"))
    healthy = True
    for program in programs(state, running.ports):
        word = _state(program, seen[program.name])
        healthy = healthy and word == "healthy"
        say(_line(program, seen[program.name], word))
    return healthy


def _state(program: Program, seen: Seen) -> str:
    if not seen.lives:
        return seen.state.lower()
    return "healthy" if program.health is not None and program.health(seen.started) else "starting"


def _line(program: Program, seen: Seen, word: str) -> str:
    if not seen.lives:
        return _COLUMNS.format(program.name, word, "-", "-", "-", program.url)
    uptime = timedelta(seconds=int((datetime.now(UTC) - seen.started).total_seconds()))
    return _COLUMNS.format(program.name, word, seen.pid, str(uptime), _memory(seen.pid), program.url)


def _memory(pid: int) -> str:
    """Returns the memory of a process and its children; what forks share is counted once where the system tells."""
    try:
        parent = psutil.Process(pid)
        family = [parent, *parent.children(recursive=True)]
    except psutil.Error:
        return "-"
    return f"{sum(map(_own_memory, family)) / 2**20:.0f} MB"


def _own_memory(process: psutil.Process) -> int:
    try:
        full = process.memory_full_info()
        return int(getattr(full, "pss", full.rss))
    except psutil.AccessDenied:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0  # it has ended since
