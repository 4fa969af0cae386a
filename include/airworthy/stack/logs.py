"""`airworthy logs`: the end of the components' logs."""

from __future__ import annotations

import subprocess

from airworthy import profile
from airworthy.errors import ServiceError
from airworthy.stack.state import State


def show(component: str | None, *, follow: bool = False) -> int:
    """Prints the last lines of one log or all of them; returns the exit code of `tail`.

    Raises:
        ServiceError: There is no such log.
    """
    state = State(profile.home())
    known = sorted(file.stem for file in state.logs.glob("*.log"))
    if not known or (component is not None and component not in known):
        hint = f"There are: {', '.join(known)}" if known else "Start the stack with `make up`"
        raise ServiceError(str(state.logs), "must hold a log", component, hint)
    files = [str(state.log(name)) for name in ([component] if component else known)]
    return subprocess.run(["tail", "-n", "50", *(["-F"] if follow else []), *files]).returncode
