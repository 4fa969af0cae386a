"""Lets the workers of one service agree which ledger entry each pipeline is answered by.

Each worker says which entry it could answer by, next to the one it does answer by. When all that live say the same,
one store of eight bytes in memory that all of them share makes it the one: after a client was answered by the new
entry, no worker takes up a request by the old one. A worker that dies has no say, because the kernel drops its lock.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from airworthy.locks import locked

_SUFFIX = ".worker"


class Agreement:
    """One worker's part in it.

    Args:
        folder: Shared by the workers of one run of the service, and by nobody else.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._offers: dict[str, int] = {}
        self._agreed: dict[str, memoryview] = {}
        self._file = -1

    def join(self) -> None:
        """Leaves this worker with a say: from here on nothing is agreed that it does not offer."""
        with locked(self._folder):
            name = f"{os.getpid()}-{os.urandom(4).hex()}{_SUFFIX}"
            self._file = os.open(self._folder / name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX)
            self._write()

    def agreed(self, pipeline: str) -> int:
        """Returns the sequence of the entry that answers; 0 if there is none."""
        shared = self._agreed.get(pipeline)
        return 0 if shared is None else int(shared[0])

    def offer(self, pipeline: str, sequence: int) -> None:
        """Says that this worker could answer by this entry from now on; 0 says that it answers by none."""
        if self._offers.get(pipeline) == sequence:
            return
        if pipeline not in self._agreed:
            self._agreed[pipeline] = self._shared(pipeline)
        with locked(self._folder):
            self._offers[pipeline] = sequence
            self._write()

    def settle(self, pipeline: str, record: Callable[[], None]) -> bool:
        """Makes what this worker offers the agreed entry if all workers offer it; returns whether it is.

        Args:
            pipeline: Of the entry.
            record: Called before anybody answers by it; nothing is agreed if it raises.
        """
        mine = self._offers.get(pipeline, 0)
        if self.agreed(pipeline) == mine:
            return True
        with locked(self._folder):
            if any(offers.get(pipeline) != mine for offers in self._living()):
                return False
            record()
            self._agreed[pipeline][0] = mine
        return True

    def _shared(self, pipeline: str) -> memoryview:
        file = os.open(self._folder / f"{pipeline}.agreed", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.ftruncate(file, 8)
            return memoryview(mmap.mmap(file, 8)).cast("Q")
        finally:
            os.close(file)

    def _write(self) -> None:
        content = json.dumps(self._offers).encode()
        os.pwrite(self._file, content, 0)
        os.ftruncate(self._file, len(content))

    def _living(self) -> Iterator[dict[str, int]]:
        for path in self._folder.glob(f"*{_SUFFIX}"):
            file = os.open(path, os.O_RDONLY)
            try:
                with suppress(BlockingIOError):  # its worker lives and holds the lock
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()
                    continue
                yield json.loads(path.read_bytes())
            finally:
                os.close(file)
