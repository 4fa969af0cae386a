"""Tells in the table `captured_loss` which answered rows are not in `captured`, so that whoever reads it knows."""

from __future__ import annotations

import logging
from datetime import datetime
from pathlib import Path
from typing import Literal

import pyarrow as pa

from airworthy.capture import CAPTURED, LOSS
from airworthy.columns import TIMESTAMP
from airworthy.partitions import partition_at
from airworthy.serving.count_file import Counts, left_behind
from airworthy.store import Store

log = logging.getLogger(__name__)


def tell_lost(store: Store, folder: Path) -> int:
    """Returns how many rows the workers that live no more have answered and not written; each is told of once.

    Args:
        folder: With their count files, which are removed then.
    """
    total = 0
    for counts in left_behind(folder):
        if (lost := counts.taken - store.appended(CAPTURED, counts.worker)) > 0:
            _tell(store, counts, "lost", lost, lost)
            total += lost
            log.warning("%s: %d answered rows were never captured: their worker was killed", store.uri(CAPTURED), lost)
        tell_dropped(store, counts)
    return total


def tell_dropped(store: Store, counts: Counts) -> None:
    """Leaves nothing untold of what a worker answered and dropped."""
    told = store.appended(LOSS, _writer(counts, "dropped"))
    if counts.dropped > told:
        _tell(store, counts, "dropped", counts.dropped - told, counts.dropped)


def _tell(store: Store, counts: Counts, outcome: Literal["lost", "dropped"], rows: int, total: int) -> None:
    row = {
        "worker": pa.array([counts.worker]),
        "outcome": pa.array([outcome]),
        "rows": pa.array([rows], pa.int64()),
        "since": _moment(counts.since),
        "until": _moment(counts.until),
    }
    key = partition_at("hour", counts.until).key
    store.append(LOSS, key, pa.table(row), once=(_writer(counts, outcome), total))


def _writer(counts: Counts, outcome: str) -> str:
    return f"{counts.worker}/{outcome}"


def _moment(moment: datetime) -> pa.Array:
    return pa.array([moment], TIMESTAMP)
