"""`freshness: {age: 3 days, partitions: 0.9, labels: 0.9}`: the model learnt from, and was judged on, what there is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from airworthy.evidence import Evidence
from airworthy.gates import Gate
from airworthy.partitions import Duration, Partition, partition_at, partitions_between, utc
from airworthy.verdict import Verdict

if TYPE_CHECKING:
    from airworthy.case import Case
    from airworthy.config import Pipeline

_OFTEN = 4


class Freshness(Gate):
    """Passes a challenger whose rows are recent, and whose window and holdout have no large gaps.

    A partition is expected once it is over and its labels are known; not at a time of the week that has never
    had rows in the window, such as Sundays. Of an imported model the holdout alone is judged, as its
    window is elsewhere.

    Attributes:
        age: How old the newest labelled row may be: of the holdout at `as_of`, of the window where the holdout
            begins. None: as long as labels take, and two partitions.
        partitions: The least share of expected partitions that are there, of the window and of the holdout.
        labels: The least share of the holdout's rows whose label is known.
    """

    compares: ClassVar[bool] = False

    age: Duration | None = None
    partitions: float = Field(default=0.9, ge=0, le=1)
    labels: float = Field(default=0.9, ge=0, le=1)

    def gather(self, case: Case) -> Mapping[str, Any]:
        from airworthy.store import Store

        pipeline, challenger, version = case.pipeline, case.challenger, case.challenger.features.version
        start, end = case.own.contract.window
        # What an imported model learnt from is elsewhere, and so are gaps in it; here is what came before its holdout.
        before = (challenger.holdout[0] - (end - start), challenger.holdout[0]) if case.imported else (start, end)
        store = Store(case.profile.store_uri, pipeline.name)
        label = pipeline.label.column
        asked = store.read("features", between=challenger.holdout, time=pipeline.time, columns=[label], version=version)
        held = set(store.partitions("features", version))
        never = _never(list(partitions_between(pipeline.partition, *before)), held)
        known = float(asked[label].notna().mean()) if len(asked) else 0.0
        found: dict[str, Any] = {"labels": known, "rows": len(asked)}
        parts = [("holdout", case.rows, challenger.holdout, challenger.as_of)]
        if not case.imported:
            parts.append(("window", case.window(), before, challenger.holdout[0]))
        for name, rows, interval, upto in parts:
            every = partitions_between(pipeline.partition, *interval)
            expected = [one.key for one in every if _within(one, interval) and _slot(one) not in never]
            newest = rows[pipeline.time].max().to_pydatetime() if len(rows) else interval[0]
            found[name] = {
                "upto": upto.isoformat(),
                "age": (upto - newest).total_seconds(),
                "usual": (upto - _usual(pipeline, upto)).total_seconds(),
                "expected": len(expected),
                "missing": [key for key in expected if key not in held],
            }
        return found

    def judge(self, evidence: Evidence) -> Verdict:
        found = evidence.of(self)
        broken, numbers = [], {"labels": found["labels"]}
        for name in (name for name in ("window", "holdout") if name in found):
            part = found[name]
            expected, missing = part["expected"], part["missing"]
            there = 1 - len(missing) / expected if expected else 1.0
            numbers |= {f"{name}_age_days": part["age"] / 86_400, f"{name}_partitions": there}
            allowed = self._allowed(part)
            if not part["age"] <= allowed:
                days = f"{part['age'] / 86_400:.3g} days old, allowed are {allowed / 86_400:.3g}"
                broken.append(f"the newest row of the {name} is {days}")
            if not there >= self.partitions:
                named = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
                broken.append(f"{len(missing)} of {expected} partitions of the {name} are missing ({named})")
        if not found["labels"] >= self.labels:
            broken.append(f"{found['labels']:.0%} of the holdout's {found['rows']} labels are known")
        fresh = f"the newest row is {numbers['holdout_age_days']:.3g} days old, {found['labels']:.0%} of labels known"
        return self.verdict(not broken, "; ".join(broken) or fresh, **numbers)

    def _allowed(self, part: Mapping[str, Any]) -> float:
        if self.age is None:
            return float(part["usual"])
        upto = datetime.fromisoformat(part["upto"])
        return (upto - (upto - self.age)).total_seconds()


def _usual(pipeline: Pipeline, upto: datetime) -> datetime:
    """Returns two partitions before the time of the newest row whose label is known."""
    known = utc(upto - pipeline.label.matures_after)
    one = partition_at(pipeline.partition, known)
    return known - 2 * (one.end - one.start)


def _never(window: Sequence[Partition], held: set[str]) -> set[tuple[int, int]]:
    """Returns the times of the week at which a window's partitions have never had rows."""
    of = defaultdict(list)
    for one in window:
        of[_slot(one)].append(one.key in held)
    if not any(map(any, of.values())):
        return set()  # nothing is known of this time
    return {slot for slot, there in of.items() if len(there) >= _OFTEN and not any(there)}


def _within(one: Partition, interval: tuple[datetime, datetime]) -> bool:
    """Returns whether a partition is in an interval whole: of one that began before it, nobody has to bring rows in."""
    return interval[0] <= one.start and one.end <= interval[1]


def _slot(one: Partition) -> tuple[int, int]:
    return one.start.weekday(), one.start.hour
