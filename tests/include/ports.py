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
    for port in _next:
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:  # somebody has it already
                continue
        return port
    raise AssertionError("a count has no end")
