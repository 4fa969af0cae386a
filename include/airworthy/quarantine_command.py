"""What `airworthy quarantine` prints and does."""

from __future__ import annotations

import getpass
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from airworthy.config import Pipeline
from airworthy.errors import DataError
from airworthy.partitions import parse_key
from airworthy.profile import Profile
from airworthy.stages.decisions import REPAIR, on_record
from airworthy.stages.ingest import RAW
from airworthy.stages.quarantine import DECISION, FAILED, QUARANTINE, WAITING
from airworthy.stages.question import decide, question, sample, split_reasons
from airworthy.store import Store
from airworthy.terminal import lines

_HEAD = ("pipeline", "partition", "rows", "share", "decisions", "reasons")


def listed(pipelines: Iterable[Pipeline], profile: Profile) -> Iterator[str]:
    """Yields a table of the partitions that have rows in quarantine."""
    rows = []
    for pipeline in pipelines:
        store = Store(profile.store_uri, pipeline.name)
        raw = {write.partition: write.rows for write in store.history(RAW)}
        version = store.version(QUARANTINE)  # the log is read once for all partitions
        for key in store.partitions(QUARANTINE, version):
            kept = store.scan(QUARANTINE, partitions=[key], version=version).to_table(columns=[FAILED, DECISION])
            reasons = Counter(reason for failed in kept[FAILED].to_pylist() for reason in split_reasons(failed))
            decided = Counter(decision or "wait" for decision in kept[DECISION].to_pylist())
            share = f"{kept.num_rows / raw[key]:.2%}" if key in raw else ""
            rows.append((pipeline.name, key, str(kept.num_rows), share, _counts(decided), _counts(reasons)))
    yield from lines(_HEAD, rows) if rows else ["No rows are in quarantine."]


def shown(pipeline: Pipeline, key: str, limit: int, profile: Profile) -> Iterator[str]:
    """Yields rows of a partition with what they fail, personal columns masked, and the decisions about them."""
    store = Store(profile.store_uri, pipeline.name)
    partition = parse_key(pipeline.partition, key)
    if not store.has(QUARANTINE, key):
        raise DataError(
            f"{QUARANTINE}[{key}]", "must have rows", hint=f"See `airworthy quarantine list {pipeline.name}`"
        )
    rows = store.scan(QUARANTINE, partitions=[partition.key]).to_table()
    head, *cells = sample(pipeline, rows, limit, columns=None)
    place = head.index(DECISION)
    yield from lines(head, ([*row[:place], row[place] or "waits", *row[place + 1 :]] for row in cells))
    if rows.num_rows > len(cells):
        yield f"... and {rows.num_rows - len(cells)} more"
    for decision in on_record(store, key):
        yield f"{decision.rows} rows: {decision}"
    if waiting := rows[DECISION].to_pylist().count(WAITING):
        yield f"{waiting} rows wait for a decision: trigger {pipeline.name}.quarantine with this partition"


def decided(pipeline: Pipeline, key: str, decision: str, reason: str, profile: Profile) -> Iterator[str]:
    """Yields what is on record now: the decision of whoever is logged in to this machine."""
    store = Store(profile.store_uri, pipeline.name)
    partition = parse_key(pipeline.partition, key)
    asked = question(pipeline, partition, store)
    if asked is None:
        raise DataError(f"{QUARANTINE}[{key}]", "must have rows", hint="There is nothing to decide")
    who, now = getpass.getuser(), datetime.now(UTC)
    option = f"{REPAIR}{name.strip()}" if (name := decision.removeprefix("repair:")) != decision else decision
    made = decide(pipeline, partition, asked, option, store, who=who, at=now, reason=reason)
    yield f"{made.rows} rows: {made}"
    yield f"It counts from the next validation of {key} on: trigger {pipeline.name}.ingest with this partition."


def _counts(counted: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counted.most_common())
