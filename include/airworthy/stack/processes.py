"""Finds and ends what belongs to one stack, whatever became of its process manager."""

from __future__ import annotations

import os
import signal

import psutil

from airworthy.errors import ServiceError
from airworthy.stack.environment import MARKER
from airworthy.stack.postgres import serves
from airworthy.stack.state import State


def of_stack(state: State) -> list[psutil.Process]:
    """Returns the live processes that carry this stack's marker, except the caller and its ancestors."""
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid not in own and _belongs(process, state):
                found.append(process)
        except (psutil.Error, OSError):
            continue  # gone, or another user's and so not ours
    return found


def _belongs(process: psutil.Process, state: State) -> bool:
    # PostgreSQL runs as another account when this is root, whose environment a container may hide.
    # A zombie's environment is empty, so what has ended does not belong.
    return serves(process, state.postgres) or process.environ().get(MARKER) == str(state.home)


def end_all(state: State) -> int:
    """Leaves no process of this stack; returns how many had to be ended.

    Raises:
        ServiceError: One outlived SIGKILL.
    """
    ended = 0
    for _ in range(5):  # what is ending may still fork
        found = of_stack(state)
        if not found:
            return ended
        ended += len(found)
        servers = [process for process in found if _name(process) == "postgres"]
        _end([process for process in found if process not in servers], signal.SIGTERM, grace=3)
        _end(servers, signal.SIGINT, grace=10)
    left = ", ".join(f"{process.pid} ({_name(process)})" for process in of_stack(state))
    raise ServiceError("stack", "must leave no process behind", left, "End them by hand")


def _end(processes: list[psutil.Process], first: signal.Signals, grace: float) -> None:
    for sent, wait in ((first, grace), (signal.SIGKILL, 5.0)):
        for process in processes:
            try:
                process.send_signal(sent)
            except psutil.NoSuchProcess:
                continue
        _, processes = psutil.wait_procs(processes, timeout=wait)


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.Error:
        return ""
