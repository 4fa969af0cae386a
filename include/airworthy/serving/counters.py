"""What `/metrics` says: counters in the OpenMetrics text format.

Source: the OpenMetrics 1.0 specification. A handful of counters does not warrant a client library.
"""

from __future__ import annotations

import json
import math
import os
import threading
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from airworthy.pages import write_whole

CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"

_COUNTERS = {
    "airworthy_captured_rows": "Answered rows of the share that is captured, by what became of them.",
    "airworthy_lookups": "Rows for which a view was looked up, by outcome.",
    "airworthy_challenger_requests": "Requests with rows for a canary's challenger, by what became of them there.",
    "airworthy_requests": "Requests answered, by HTTP status.",
    "airworthy_rows": "Rows answered.",
    "airworthy_cpu_seconds": "Processor time of all workers, those that have ended included.",
}

_HISTOGRAMS = {
    "airworthy_request_seconds": "From the arrival of a request to its answer, by HTTP status.",
    "airworthy_scoring_seconds": "While a canary runs: what champion and challenger take for the same requests.",
}

_LEVELS = {
    "airworthy_workers": "Processes that answer.",
    "airworthy_in_flight": "Requests that are read or scored at the moment.",
    "airworthy_held_bytes": "Bytes of the requests that are read or scored at the moment.",
    "airworthy_resident_bytes": "Memory of all workers; what they share counts for each.",
}

_GAUGES = {
    "airworthy_down_seconds": ("gauge", "For how long a service that serving follows has not answered; 0 if it does."),
    "airworthy_up": ("gauge", "Whether a service that serving follows answers: the ledger, the registry."),
    "airworthy_refused": ("gauge", "Whether the ledger's champion was refused, so that an older one answers."),
    "airworthy_champion_since_timestamp_seconds": ("gauge", "When the version that answers began to."),
    "airworthy_champion_as_of_timestamp_seconds": ("gauge", "Up to when the version that answers knew its data."),
    "airworthy_build": ("info", "The version of Airworthy."),
    "airworthy_champion": ("info", "The version that answers."),
    "airworthy_canary_share": ("gauge", "Of the keys that a canary's challenger answers; 0 in the shadow."),
}

_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, math.inf)

_SUFFIX = ".counters"

Labels = tuple[tuple[str, str], ...]


class Gauge(NamedTuple):
    """What is now, by one of the names in `_GAUGES`."""

    name: str
    labels: Labels
    value: float


class Counters:
    """Counts that many threads add to, and that the workers of one service tell each other.

    Args:
        folder: Shared by the workers; None if there is only one.

    Attributes:
        look: Returns what of `_COUNTERS` and `_LEVELS` this worker need not count, because it can be looked up.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.look: Callable[[], Mapping[str, float]] = dict
        self._lock = threading.Lock()
        self._totals: defaultdict[tuple[str, Labels], float] = defaultdict(float)
        self._file = folder and folder / f"{os.getpid()}{_SUFFIX}"

    def add(self, name: str, amount: float = 1, **labels: str) -> None:
        with self._lock:
            self._totals[name, tuple(labels.items())] += amount

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Adds one observation to a histogram."""
        given = tuple(labels.items())
        bucket = (f"{name}_bucket", (*given, ("le", _edge(_BUCKETS[bisect_left(_BUCKETS, value)]))))
        with self._lock:
            self._totals[bucket] += 1
            self._totals[f"{name}_sum", given] += value

    def publish(self) -> None:
        """Leaves the counts where the other workers find them, also after this one has ended."""
        if self._file:
            write_whole(
                self._file, json.dumps([[name, labels, total] for (name, labels), total in self._own().items()])
            )

    def _own(self) -> dict[tuple[str, Labels], float]:
        seen: dict[tuple[str, Labels], float] = {(name, ()): value for name, value in self.look().items()}
        with self._lock:
            return {**self._totals, **seen}

    def _of_all_workers(self) -> dict[tuple[str, Labels], float]:
        found = Counter(self._own())
        for file in self._file.parent.glob(f"*{_SUFFIX}") if self._file else ():
            if file != self._file:
                lives = Path("/proc", file.stem).exists()
                for name, labels, total in json.loads(file.read_bytes()):
                    if lives or name not in _LEVELS:
                        found[name, tuple(map(tuple, labels))] += total
        return dict(found)

    def by(self, label: str, name: str, **labels: str) -> dict[str, float]:
        """Returns what all workers have counted under a name, by a label's value, where the others are these."""
        found: dict[str, float] = {}
        for (counted, given), total in self._of_all_workers().items():
            values = dict(given)
            if counted == name and label in values and labels.items() <= values.items():
                found[values[label]] = found.get(values[label], 0) + total
        return found

    def text(self, gauges: Sequence[Gauge] = ()) -> str:
        """Returns everything counted, and the gauges."""
        totals = sorted(self._of_all_workers().items())
        lines = []
        for name, meaning in _COUNTERS.items():
            lines += [f"# TYPE {name} counter", f"# HELP {name} {meaning}"]
            lines += [_line(f"{name}_total", labels, total) for (found, labels), total in totals if found == name]
        for name, meaning in _HISTOGRAMS.items():
            lines += [f"# TYPE {name} histogram", f"# HELP {name} {meaning}", *_histogram(name, dict(totals))]
        for name, meaning in _LEVELS.items():
            lines += [f"# TYPE {name} gauge", f"# HELP {name} {meaning}"]
            lines += [_line(name, labels, total) for (found, labels), total in totals if found == name]
        for name, (kind, meaning) in _GAUGES.items():
            suffix = "_info" if kind == "info" else ""
            lines += [f"# TYPE {name} {kind}", f"# HELP {name} {meaning}"]
            lines += [_line(f"{name}{suffix}", labels, value) for found, labels, value in gauges if found == name]
        return "\n".join([*lines, "# EOF", ""])


def _histogram(name: str, totals: Mapping[tuple[str, Labels], float]) -> list[str]:
    """Returns its samples: how many were at most so long, for every edge, their number, and their sum."""
    lines = []
    for labels, total in ((labels, total) for (found, labels), total in totals.items() if found == f"{name}_sum"):
        count = 0.0
        for edge in map(_edge, _BUCKETS):
            le = ("le", edge)
            count += totals.get((f"{name}_bucket", (*labels, le)), 0)
            lines.append(_line(f"{name}_bucket", (*labels, le), count))
        lines += [_line(f"{name}_count", labels, count), _line(f"{name}_sum", labels, total)]
    return lines


def _edge(bucket: float) -> str:
    return "+Inf" if math.isinf(bucket) else str(bucket)


def _line(name: str, labels: Labels, value: float) -> str:
    return f"{name}{_labels(labels) if labels else ''} {int(value) if value == int(value) else value!r}"


def _labels(labels: Labels) -> str:
    def escaped(value: str) -> str:
        return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

    return "{" + ",".join(f'{name}="{escaped(value)}"' for name, value in labels) + "}"
