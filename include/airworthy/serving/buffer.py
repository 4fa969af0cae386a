"""The answers of one pipeline that wait to be written, and what becomes of those that cannot be."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from contextlib import suppress
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError

from airworthy.capture import CAPTURED, Capture
from airworthy.content import PARTITION
from airworthy.errors import Problems
from airworthy.partitions import partition_at
from airworthy.people import until_silence
from airworthy.serving.admission import Refused
from airworthy.serving.captured_rows import Answered, table_of
from airworthy.serving.count_file import CountFile
from airworthy.serving.counters import Counters
from airworthy.serving.losses import tell_dropped
from airworthy.serving.trouble import Watched
from airworthy.store import Store

COUNTER = "airworthy_captured_rows"

log = logging.getLogger(__name__)


class Buffer:
    """What one worker has answered for one pipeline and not written yet.

    The event loop adds to it, and one thread writes; neither waits for the other. What could not be written stays, and
    is tried again, until there is no room for more.

    Args:
        folder: Where the workers of this machine keep their counts for this pipeline.
        wake: Set when it should be written before its time.

    Attributes:
        policy: As the newest champion's pipeline file has it.
        table: Whether the table can be written.
    """

    def __init__(
        self, pipeline: str, store: Store, folder: Path, policy: Capture, counters: Counters, wake: threading.Event
    ) -> None:
        self.policy = policy
        self.table = Watched(f"{pipeline}: {CAPTURED}")
        self._pipeline, self._store, self._counters, self._wake = pipeline, store, counters, wake
        self._count = CountFile(folder)
        self._waiting: deque[Answered] = deque()
        self._unwritten: list[Answered] = []
        self._taken = self._gone = 0  # bytes; the event loop changes the one, the thread the other
        self._written = self._told = 0  # rows
        self._due = time.monotonic() + self._pause()
        self._hour = _this_hour()

    def require_room(self) -> None:
        """Returns if an answer may be given.

        Raises:
            Refused: It could not be kept, and the pipeline wants no such answer.
        """
        if self.policy.when_full == "push_back" and self._held >= self.policy.buffer_bytes:
            raise self._refusal()

    def take(self, answered: Answered) -> None:
        """Counts an answer that is about to be given, and keeps it if there is room.

        Raises:
            Refused: There is none, and the pipeline wants no such answer.
        """
        held = self._held + answered.size
        if self._held and held > self.policy.buffer_bytes:
            if self.policy.when_full == "push_back":
                raise self._refusal()
            self._count.drop(answered.rows)
            self._counters.add(COUNTER, answered.rows, pipeline=self._pipeline, outcome="dropped")
            return
        self._count.take(answered.rows)
        self._waiting.append(answered)
        self._taken += answered.size
        if self._is_half_full:
            self._wake.set()

    def write(self, *, now: bool = False) -> None:
        """Leaves all that waits in the table if its time has come, or half of the room is taken."""
        if not (now or self._is_half_full or time.monotonic() >= self._due):
            return
        try:
            self._write(all_of_it=now)
        except Exception as error:  # a full disk, a store that does not answer: whatever it is, it may pass
            self.table.saw(f"{type(error).__name__}: {error}")
        else:
            self.table.saw()
        self._due = time.monotonic() + self._pause()

    def close(self) -> None:
        """Writes what waits; what cannot be written is told by the next start."""
        self.write(now=True)
        self._count.close(told=not self.table.trouble)

    @property
    def _held(self) -> int:
        return self._taken - self._gone

    @property
    def _is_half_full(self) -> bool:
        """Whether there is reason to write now; a table that cannot be written is tried when its time comes."""
        return self._held > self.policy.buffer_bytes / 2 and not self.table.trouble

    def _pause(self) -> float:
        return until_silence(self.policy.flush).total_seconds()

    def _refusal(self) -> Refused:
        rule = f"{self._pipeline}: capture: buffer_bytes: must have room for the answer, which is to be captured"
        return Refused(503, f"{rule}. Got {self._held} of {self.policy.buffer_bytes} taken. Retry later.")

    def _write(self, *, all_of_it: bool) -> None:
        if self.table.trouble:
            self._forget_what_is_there()
        while self._waiting and (all_of_it or not self._waiting[0].pending):
            self._unwritten.append(self._waiting.popleft())
        for _, answers in groupby([*self._unwritten], key=lambda one: id(one.champion)):
            self._write_those([*answers])
        counts = self._count.counts()
        if counts.dropped > self._told:
            tell_dropped(self._store, counts)
            self._told = counts.dropped
        self._count.wrote()
        if self._written and self._hour != _this_hour():
            drop_older(self._store, self.policy, datetime.now(UTC))
            compact(self._store, self._hour)
            self._hour = _this_hour()

    def _forget_what_is_there(self) -> None:
        """Counts what a write has left in the table before it failed: the store may say so after the commit."""
        there = self._store.appended(CAPTURED, self._count.worker)
        while self._written < there:
            self._written += self._unwritten[0].rows
            self._done(self._unwritten[:1], "written")

    def _write_those(self, answers: list[Answered]) -> None:
        """Leaves answers of one champion in the table; those that cannot ever be are counted as dropped."""
        rows, outcome = sum(answer.rows for answer in answers), "written"
        try:
            keys, table = table_of(answers)
            self._store.append(CAPTURED, keys, table, once=(self._count.worker, self._written + rows))
            self._written += rows
        except (Problems, pa.ArrowException) as error:
            log.exception("%s: %d rows fit no table and are not captured: %s", self._pipeline, rows, error)
            self._count.give_up(rows)
            outcome = "dropped"
        self._done(answers, outcome)

    def _done(self, answers: list[Answered], outcome: str) -> None:
        """Lets go of the first of what is unwritten."""
        del self._unwritten[: len(answers)]
        self._gone += sum(answer.size for answer in answers)
        rows = sum(answer.rows for answer in answers)
        self._counters.add(COUNTER, rows, pipeline=self._pipeline, outcome=outcome)


def compact(store: Store, hour: str) -> None:
    """Leaves one file of what many writes have added to an hour; the many are removed when a week has passed."""
    table = DeltaTable(store.uri(CAPTURED))
    with suppress(CommitFailedError):  # another worker does the same
        table.optimize.compact(partition_filters=[(PARTITION, "=", hour)])
        table.vacuum(dry_run=False)


def drop_older(store: Store, policy: Capture, now: datetime) -> None:
    """Leaves no hour in the table that ended longer ago than captured rows are kept."""
    if policy.keep is None:
        return
    last = partition_at("hour", now - policy.keep).key
    table = DeltaTable(store.uri(CAPTURED))
    if any(found[PARTITION] < last for found in table.partitions()):
        with suppress(CommitFailedError):  # another worker does the same
            table.delete(f"{PARTITION} < '{last}'")


def _this_hour() -> str:
    return partition_at("hour", datetime.now(UTC)).key
