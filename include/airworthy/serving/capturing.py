"""Keeps what this worker answers: in memory at once, and in the background in a table of the pipeline's store."""

from __future__ import annotations

import threading
import time
import zlib
from pathlib import Path
from typing import Any

from airworthy.profile import Profile
from airworthy.serving.buffer import COUNTER, Buffer
from airworthy.serving.champion import Champion
from airworthy.serving.counters import Counters
from airworthy.serving.losses import tell_lost
from airworthy.serving.trouble import Watched
from airworthy.store import Store

_LOOK, _SEARCH = 0.2, 5.0  # seconds: between two looks at the buffers, and at what other workers have left


class Capturing:
    """The buffers of all pipelines of one worker, and the thread that writes them.

    Args:
        folder: Where the workers of this machine keep their counts, one folder per pipeline.
    """

    def __init__(self, profile: Profile, folder: Path, counters: Counters) -> None:
        self._store_uri = profile.store_uri
        self._folder = folder
        self._counters = counters
        self._buffers: dict[str, Buffer] = {}
        self._losses = Watched("captured_loss")
        self._searched = -_SEARCH
        self._wake, self._stopped = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="write-captured", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Returns once all that was kept is written, or has failed to be."""
        self._stopped.set()
        self._wake.set()
        self._thread.join()
        for buffer in self._buffers.values():
            buffer.close()

    def buffer(self, champion: Champion, request: str) -> Buffer | None:
        """Returns where the answer to a request is to be kept; None if it is not among the share that is."""
        policy, name = champion.pipeline.capture, champion.entry.pipeline
        if policy.share < 1 and zlib.crc32(request.encode()) >= policy.share * 2**32:
            return None
        if name not in self._buffers:
            store = Store(self._store_uri, name)
            self._buffers[name] = Buffer(name, store, self._folder / name, policy, self._counters, self._wake)
        found = self._buffers[name]
        found.policy = policy
        return found

    def brief(self, pipeline: str) -> dict[str, Any]:
        """Returns what has become of a pipeline's answers: rows by outcome, of all workers, and trouble of this one."""
        buffer = self._buffers.get(pipeline)
        counted = self._counters.by("outcome", COUNTER, pipeline=pipeline)
        rows = {outcome: int(counted.get(outcome, 0)) for outcome in ("written", "dropped", "lost")}
        trouble = self._losses.trouble or (buffer.table.trouble if buffer else "")
        return {**rows, **({"trouble": trouble} if trouble else {})}

    def _run(self) -> None:
        while not self._stopped.is_set():
            if time.monotonic() - self._searched > _SEARCH:
                self._search()
                self._searched = time.monotonic()
            for buffer in list(self._buffers.values()):
                buffer.write()
            self._wake.wait(_LOOK)
            self._wake.clear()

    def _search(self) -> None:
        """Tells what workers that were killed have lost; what cannot be told now is found again."""
        try:
            for folder in self._folder.iterdir() if self._folder.exists() else ():
                if lost := tell_lost(Store(self._store_uri, folder.name), folder):
                    self._counters.add(COUNTER, lost, pipeline=folder.name, outcome="lost")
        except Exception as error:  # a full disk, a store that does not answer: whatever it is, it may pass
            self._losses.saw(f"{type(error).__name__}: {error}")
        else:
            self._losses.saw()
