"""What serving did while a partition lasted: how fast it answered, how often not, and how much of it is captured."""

from __future__ import annotations

import logging
import re
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from pyarrow import dataset as ds

from airworthy.capture import CAPTURED, LOSS, ROW, SECONDS
from airworthy.config import Pipeline
from airworthy.kpis import Coverage, Kpi
from airworthy.partitions import Partition, parse_key, partition_at, partitions_between
from airworthy.profile import Profile
from airworthy.store import Store

LATE = 10  # partitions long: what is looked at later than that is the past, of which the present says nothing
_TIMEOUT = 5  # seconds
_SERVED = "served"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Served:
    """What is known of the answers of one window.

    Attributes:
        coverage: None if nothing was asked that is captured.
        counts: What serving has counted since it started, by kind of answer; empty where that was not looked at.
    """

    kpis: tuple[Kpi, ...] = ()
    coverage: Coverage | None = None
    counts: Mapping[str, int] | None = None


def served(pipeline: Pipeline, partition: Partition, profile: Profile, kept_in: str) -> Served:
    """Returns what serving did while a partition lasted; a process that does not answer leaves out what it knows.

    Args:
        kept_in: The table in whose facts earlier runs have left the counts.
    """
    store = Store(profile.store_uri, pipeline.name)
    share = coverage(partition, store)
    found = list(_answers(partition, store))
    if share is not None:
        found.append(Kpi("coverage", share.share, share.captured + share.lost, "share"))
    age = (datetime.now(UTC) - partition.end).total_seconds()
    if not 0 <= age < LATE * (partition.end - partition.start).total_seconds():
        return Served(tuple(found), share)
    counts = _counts(pipeline, profile)
    if counts is not None:
        found += _errors(counts, _counts_before(partition, store, kept_in))
    return Served(tuple(found), share, counts)


def coverage(partition: Partition, store: Store) -> Coverage | None:
    """Returns how many answers of a partition were captured, as far as is known by now; None if there were none."""
    hours = _hours(partition)
    captured = store.scan(CAPTURED, partitions=hours).count_rows() if store.version(CAPTURED) is not None else 0
    lost = 0
    if store.version(LOSS) is not None:
        lost = int(store.read(LOSS, partitions=hours, columns=["rows"])["rows"].sum())
    return Coverage(captured=captured, lost=lost) if captured + lost else None


def lossy(pipeline: Pipeline, until: Partition, store: Store) -> list[Partition]:
    """Returns the partitions up to one in which answers were not captured, by time."""
    if store.version(LOSS) is None:
        return []
    starts = (parse_key("hour", hour).start for hour in store.partitions(LOSS))
    found = {partition_at(pipeline.partition, start) for start in starts if start < until.end}
    return sorted(found, key=lambda one: one.start)


def _hours(partition: Partition) -> list[str]:
    return [one.key for one in partitions_between("hour", partition.start, partition.end)]


def _answers(partition: Partition, store: Store) -> Iterator[Kpi]:
    if store.version(CAPTURED) is None:
        return
    rows = store.scan(CAPTURED, partitions=_hours(partition))
    seconds = rows.to_table(columns=[SECONDS], filter=ds.field(ROW) == 0)[SECONDS].to_numpy()
    if len(seconds):
        yield Kpi("requests", float(len(seconds)), len(seconds), "amount")
        yield Kpi("latency", float(np.quantile(seconds, 0.99)) * 1_000, len(seconds), "amount")  # milliseconds


def _counts(pipeline: Pipeline, profile: Profile) -> dict[str, int] | None:
    """Returns how many requests serving has answered since it started; None if it does not say."""
    url = f"{profile.serving_url.rstrip('/')}/metrics"
    try:
        asked = urllib.request.Request(url, headers=profile.serving.headers())
        with urllib.request.urlopen(asked, timeout=_TIMEOUT) as answer:
            text = answer.read().decode()
    except (urllib.error.URLError, OSError) as error:
        log.warning("%s does not answer, so its errors are not known: %s", url, error)
        return None
    sample = re.compile(
        rf'^airworthy_requests_total\{{pipeline="{re.escape(pipeline.name)}",status="(\d)\d\d"\}} (\d+)$'
    )
    found = {"requests": 0, "refusals": 0, "failures": 0}
    for line in text.splitlines():
        if match := sample.match(line):
            found["requests"] += int(match[2])
            if kind := {"4": "refusals", "5": "failures"}.get(match[1]):
                found[kind] += int(match[2])
    return found


def _counts_before(partition: Partition, store: Store, table: str) -> Mapping[str, int]:
    """Returns what an earlier partition's run has found counted."""
    for write in reversed(store.history(table)):
        if write.partition < partition.key and write.facts.get(_SERVED):
            return dict(write.facts[_SERVED])
    return {}


def facts_of(found: Served) -> dict[str, Mapping[str, int]]:
    """Returns what `served` looks for in later runs."""
    return {_SERVED: found.counts} if found.counts else {}


def _errors(now: Mapping[str, int], before: Mapping[str, int]) -> Iterator[Kpi]:
    began_anew = any(now[name] < count for name, count in before.items())
    since = {name: count - (0 if began_anew else before.get(name, 0)) for name, count in now.items()}
    if since["requests"]:
        for name in ("refusals", "failures"):
            yield Kpi(name, since[name] / since["requests"], since["requests"], "share")
