"""The decisions of people about rows in quarantine: a table that only grows."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
from pydantic import AwareDatetime

from airworthy.columns import from_frame, normal
from airworthy.config import Strict
from airworthy.partitions import Partition
from airworthy.store import Store

DECISIONS = "decisions"
DROP = "drop"
RELEASE = "release"
REPAIR = "repair: "


class Decision(Strict):
    """What one person decided about certain rows of one partition.

    Attributes:
        digest: Of these rows and of what they fail; it covers no others.
        raw_version: The version of the table `raw` in which they were looked at.
        decision: `drop`, `release` or `repair: <name>`.
        function: What the repair's name stood for, and the digest of its module; else empty.
        run: The Airflow run in which it was decided; empty when it was on the command line.
    """

    partition: str
    digest: str
    raw_version: int
    rows: int
    decision: str
    function: str = ""
    function_digest: str = ""
    who: str
    at: AwareDatetime
    reason: str = ""
    run: str = ""

    def __str__(self) -> str:
        why = f": {self.reason}" if self.reason else ""
        return f"{self.decision}, decided by {self.who} on {self.at:%Y-%m-%d %H:%M} UTC{why}"


def on_record(store: Store, *partitions: str) -> Iterator[Decision]:
    """Yields the decisions about these partitions, or about all of them, oldest first."""
    if store.version(DECISIONS) is None:
        return
    columns = list(Decision.model_fields)
    found = store.read(DECISIONS, partitions=partitions or None, columns=columns)
    for row in found.sort_values("at", kind="stable").to_dict("records"):
        yield Decision.model_validate(row)


def record(store: Store, partition: Partition, decision: Decision) -> None:
    """Leaves the decision on record, once."""
    if decision in on_record(store, partition.key):
        return
    row = pd.DataFrame([decision.model_dump(exclude={"partition"})])
    store.append(DECISIONS, partition.key, normal(DECISIONS, from_frame(DECISIONS, row)))
