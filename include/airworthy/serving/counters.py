"""What `/metrics` says: counters in the OpenMetrics text format.

Source: the OpenMetrics 1.0 specification. A handful of counters does not warrant a client library.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Mapping

CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"

_COUNTERS = {
    "airworthy_lookups": "Rows for which a view was looked up, by outcome.",
    "airworthy_requests": "Requests answered, by HTTP status.",
    "airworthy_rows": "Rows scored.",
    "airworthy_seconds": "Seconds spent on reading, scoring and writing.",
}

Labels = tuple[tuple[str, str], ...]


class Counters:
    """Counts that many threads add to."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._totals: defaultdict[tuple[str, Labels], float] = defaultdict(float)

    def add(self, name: str, amount: float = 1, **labels: str) -> None:
        with self._lock:
            self._totals[name, tuple(labels.items())] += amount

    def text(self, champions: Mapping[str, str]) -> str:
        """Returns everything counted, and the version that answers per pipeline."""
        with self._lock:
            totals = sorted(self._totals.items())
        lines = []
        for name, meaning in _COUNTERS.items():
            lines += [f"# TYPE {name} counter", f"# HELP {name} {meaning}"]
            lines += [f"{name}_total{_labels(labels)} {total:g}" for (found, labels), total in totals if found == name]
        lines += ["# TYPE airworthy_champion info", "# HELP airworthy_champion The version that answers."]
        for pipeline, version in sorted(champions.items()):
            lines.append(f"airworthy_champion_info{_labels((('pipeline', pipeline), ('version', version)))} 1")
        return "\n".join([*lines, "# EOF", ""])


def _labels(labels: Labels) -> str:
    def escaped(value: str) -> str:
        return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

    return "{" + ",".join(f'{name}="{escaped(value)}"' for name, value in labels) + "}"
