"""Ports for the servers that tests start."""

from __future__ import annotations

import os
import random
import socket
from itertools import count

_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_next = count(20_000 + 1_000 * _WORKER + random.randrange(500))  # another run of the tests begins elsewhere


def free_port() -> int:
    """Returns a port that nobody else is given: below those that the kernel hands out, and in each worker others."""
    return next(filter(_is_free, _next))


def _is_free(port: int) -> bool:
    with socket.socket() as listener:
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:  # somebody has it already
            return False
    return True
