"""A lock that keeps the other processes of this machine out of a folder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """Makes the folder, and lets one process after the other in; the folder itself is the lock, so no file is left.

    Raises:
        OSError: The folder cannot be made or opened.
        BlockingIOError: Another process is in, and it is not to be waited for.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(handle)
