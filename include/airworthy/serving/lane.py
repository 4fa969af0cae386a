"""Where a canary's challenger scores: a thread of its own, with few requests waiting, that nobody has to wait for."""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import SimpleQueue

import numpy as np

from airworthy.canary import DROPPED, FAILED, LATE, SCORED, Canary
from airworthy.errors import ModelError
from airworthy.serving.champion import Champion
from airworthy.serving.counters import Counters
from airworthy.serving.rows import read_rows
from airworthy.serving.scoring import columns_of, some_of

OUTCOMES, TIMES = "airworthy_challenger_requests", "airworthy_scoring_seconds"

_WAITING, _HELD = 64, 16_000_000  # requests, and bytes of their bodies

log = logging.getLogger(__name__)


@dataclass
class Asked:
    """What the challenger is to score.

    Attributes:
        chosen: The rows.
        champion: The seconds that the champion took for the request.
        done: Is given the predictions, shape (chosen,) or (chosen, classes), or None if there are none.
        late: Whether nobody waits for it any more.
    """

    body: bytes
    content_type: str
    chosen: Sequence[int]
    champion: float
    done: Callable[[np.ndarray | None], None]
    late: bool = False


class Lane:
    """A challenger's own thread, and what has become of what it was asked.

    What it does not come to is dropped and counted. Once it fails or is late too often it is asked no more.

    Attributes:
        alarm: Why it is asked no more; "" as long as it is.
    """

    def __init__(self, challenger: Champion, champion: str, policy: Canary, began: int, counters: Counters) -> None:
        self.alarm = ""
        self._challenger, self._policy, self._counters = challenger, policy, counters
        self._of = {"pipeline": challenger.entry.pipeline, "version": challenger.entry.version, "began": str(began)}
        self._compared = {"pipeline": challenger.entry.pipeline, "version": champion, "began": str(began)}
        self._lock = threading.Lock()
        self._queue: SimpleQueue[Asked | None] = SimpleQueue()
        self._waiting = self._size = 0
        self._since: float | None = None  # when the thread took up what it is at
        self._counts: defaultdict[str, int] = defaultdict(int)
        self._seconds = [0.0, 0.0]
        threading.Thread(target=self._run, name="challenger", daemon=True).start()

    def ask(self, asked: Asked) -> bool:
        """Returns whether the challenger will come to it; `done` is not called otherwise."""
        with self._lock:
            if room := self._waiting < _WAITING and self._size + len(asked.body) <= _HELD:
                self._waiting += 1
                self._size += len(asked.body)
            stuck = self._since is not None and time.monotonic() - self._since > self._policy.timeout
        if room:
            self._queue.put(asked)
        else:
            self.count(LATE if stuck else DROPPED)
        return room

    def give_up(self, asked: Asked) -> None:
        """Counts what nobody waits for any more as late."""
        asked.late = True
        self.count(LATE)

    def count(self, outcome: str) -> None:
        """Takes note of what became of a request."""
        self._counters.add(OUTCOMES, 1, **self._of, outcome=outcome)
        with self._lock:
            self._counts[outcome] += 1
            scored = max(self._counts[SCORED], 1)
            average = (self._seconds[0] / scored, self._seconds[1] / scored)
            alarm = "" if self.alarm else self._policy.alarm(self._counts, average)
            self.alarm = self.alarm or alarm
        if alarm:
            log.warning("%s: version %s is asked no more: %s", self._of["pipeline"], self._of["version"], alarm)

    def told(self) -> tuple[dict[str, float], tuple[float, float]]:
        """Returns requests by outcome, and the average seconds of champion and challenger, of all workers."""
        of = {name: value for name, value in self._of.items() if name != "version"}
        counts = self._counters.by("outcome", OUTCOMES, **self._of)
        total = self._counters.by("version", f"{TIMES}_sum", **of)
        scored = max(counts.get(SCORED, 0), 1)
        average = [total.get(one["version"], 0) / scored for one in (self._compared, self._of)]
        return counts, (average[0], average[1])

    def close(self) -> None:
        """Ends the thread after what it is at, and lets go of the model."""
        self._queue.put(None)

    def _run(self) -> None:
        while asked := self._queue.get():
            with self._lock:
                self._since = time.monotonic()
            if not asked.late:
                asked.done(self._scored(asked))
            with self._lock:
                self._since = None
                self._waiting -= 1
                self._size -= len(asked.body)

    def _scored(self, asked: Asked) -> np.ndarray | None:
        started = time.perf_counter()
        try:
            prediction = self._predicted(asked)
        except Exception as error:  # whatever a challenger does, the champion has answered or will
            if not self._counts[FAILED]:
                log.warning("%(pipeline)s: version %(version)s failed as challenger", self._of, exc_info=error)
            if not asked.late:
                self.count(FAILED)
            return None
        took = time.perf_counter() - started
        if asked.late:
            return None
        if took > self._policy.timeout:
            self.count(LATE)
            return prediction
        for seconds, labels in ((asked.champion, self._compared), (took, self._of)):
            self._counters.observe(TIMES, seconds, **labels)
        with self._lock:
            self._seconds[0] += asked.champion
            self._seconds[1] += took
        self.count(SCORED)
        return prediction

    def _predicted(self, asked: Asked) -> np.ndarray:
        challenger = self._challenger
        rows = some_of(read_rows(asked.body, asked.content_type), asked.chosen)
        prediction = challenger.model.predict_columns(columns_of(challenger, rows, self._counters), rows.count)
        if not np.isfinite(prediction).all():
            raise ModelError(f"{self._of['pipeline']}: version {self._of['version']}", "must predict finite numbers")
        return prediction
