"""What one worker knows of its captured answers, in memory that the kernel keeps when the worker is killed."""

from __future__ import annotations

import fcntl
import logging
import mmap
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

_SUFFIX = ".counts"
_TAKEN, _DROPPED, _GIVEN_UP, _SINCE, _UNTIL = range(5)
_SIZE = 8 * 5

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Counts:
    """What one worker had counted at one moment.

    Attributes:
        worker: Names its run.
        taken: Rows of answers that are written, or are to be.
        dropped: Rows of answers that are not, because there was no room or they fitted no table.
        since: When all until then were written or told of.
        until: When the last answer was given.
    """

    worker: str
    taken: int
    dropped: int
    since: datetime
    until: datetime


class CountFile:
    """Counts rows by one store to shared memory each; the file is locked for as long as its worker lives.

    When the machine itself is lost, so may be the newest counts, because nothing waits for the disk.
    """

    def __init__(self, folder: Path) -> None:
        self.worker = f"{os.getpid()}-{os.urandom(8).hex()}"
        self._path = folder / f"{self.worker}{_SUFFIX}"
        self._file = -1
        try:
            self._file = _locked_file(self._path)
            shared = mmap.mmap(self._file, _SIZE)
        except OSError as error:
            log.warning("%s: what this worker loses if it is killed will not be known: %s", self._path, error)
            shared = mmap.mmap(-1, _SIZE)
        self._counts = memoryview(shared).cast("Q")
        self.wrote()

    def take(self, rows: int) -> None:
        """Counts rows that are to be written; called before their answer is sent, so that none is missed."""
        self._counts[_TAKEN] += rows
        self._counts[_UNTIL] = time.time_ns()

    def drop(self, rows: int) -> None:
        """Counts rows that were not taken."""
        self._counts[_DROPPED] += rows
        self._counts[_UNTIL] = time.time_ns()

    def give_up(self, rows: int) -> None:
        """Counts rows that were taken and fit no table."""
        self._counts[_GIVEN_UP] += rows

    def wrote(self) -> None:
        """Takes note that all rows until now are written or told of."""
        self._counts[_SINCE] = time.time_ns()

    def counts(self) -> Counts:
        return _read(self.worker, self._counts)

    def close(self, *, told: bool) -> None:
        """Leaves the file to the next start, or none if there is nothing to tell."""
        if told:
            self._path.unlink(missing_ok=True)
        if self._file >= 0:
            fcntl.flock(self._file, fcntl.LOCK_UN)  # else the shared memory would hold it
            os.close(self._file)


def left_behind(folder: Path) -> Iterator[Counts]:
    """Yields what workers that live no more have counted, to one caller at a time; then their file is removed."""
    for path in sorted(folder.glob(f"*{_SUFFIX}")):
        with suppress(FileNotFoundError):  # somebody else has dealt with it
            file = os.open(path, os.O_RDONLY)
            try:
                with suppress(BlockingIOError):  # its worker lives, or somebody else is dealing with it
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if os.fstat(file).st_nlink:
                        yield _read(path.stem, memoryview(os.read(file, _SIZE)).cast("Q"))
                        path.unlink()
            finally:
                os.close(file)


def _locked_file(path: Path) -> int:
    """Returns the new file, which nobody sees before it is whole and locked."""
    path.parent.mkdir(parents=True, exist_ok=True)
    hidden = path.with_suffix(".new")
    file = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        os.posix_fallocate(file, 0, _SIZE)  # a store to a page that the disk has no room for would kill the process
        hidden.rename(path)
    except OSError:
        os.close(file)
        hidden.unlink(missing_ok=True)
        raise
    return file


def _read(worker: str, counts: memoryview) -> Counts:
    taken, dropped, given_up, since, until = counts
    return Counts(worker, taken - given_up, dropped + given_up, _moment(since), _moment(max(since, until)))


def _moment(nanoseconds: int) -> datetime:
    return datetime.fromtimestamp(nanoseconds // 1000 / 1e6, UTC)
