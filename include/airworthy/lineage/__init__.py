"""From a model to the exact data it was made of, and back; and which models the data has left behind.

Nothing of this is kept anywhere: it follows from the tables' logs, which say what every partition was made of
at every version, and from the version and the intervals that every training run has on record. So no crash can
lose it, and what is marked elsewhere can be compared with it at any time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime
from fnmatch import fnmatchcase
from itertools import zip_longest
from typing import Any, Literal

from airworthy.config import Pipeline, Strict
from airworthy.errors import ModelError
from airworthy.ledger import Entry, Ledger
from airworthy.partitions import Grain, parse_key
from airworthy.profile import Profile
from airworthy.store import Store, Write
from airworthy.training_runs import TrainingRun, TrainingRuns

State = Literal["same", "changed", "added later"]

RAW, FEATURES = "raw", "features"


class Read(Strict):
    """One partition as a training run read it.

    Attributes:
        features: The write whose rows the run read; None if the partition was not there yet.
        raw: The write of `raw` that these features were made from; None if that is not on record.
        now: The newest write, if it left other rows than the run read.
        part: `window`, `holdout`, or both: what of the run it overlaps.
    """

    partition: str
    features: Write | None
    raw: Write | None
    now: Write | None
    part: str

    @property
    def state(self) -> State:
        if self.now is None:
            return "same"
        return "changed" if self.features else "added later"


class Period(Strict):
    """A time in which a version was champion; `end` is None while it is."""

    version: str
    start: datetime
    end: datetime | None
    actor: str


class Lineage(Strict):
    """A training run with everything it read, and when what came of it was champion."""

    pipeline: str
    run: TrainingRun
    reads: tuple[Read, ...]
    champion: tuple[Period, ...] = ()

    @property
    def stale(self) -> tuple[Read, ...]:
        """The partitions that hold other rows now."""
        return tuple(read for read in self.reads if read.now)


class Use(Strict):
    """One write of `raw` with what was made from it."""

    raw: Write
    features: tuple[Write, ...]
    lineages: tuple[Lineage, ...]


def lineages(pipeline: Pipeline, profile: Profile, *, champions: bool = True) -> list[Lineage]:
    """Returns the lineage of every finished training run of a pipeline, by `as_of`.

    Args:
        pipeline: Whose runs.
        profile: Where the tables, MLflow and the ledger are.
        champions: Whether to ask the ledger for the times as champion.

    Raises:
        ServiceError: MLflow or the ledger does not answer.
    """
    runs = TrainingRuns(profile).of(pipeline.name)
    if not runs:
        return []
    store = Store(profile.store_uri, pipeline.name)
    features, raw = Log(store.history(FEATURES)), Log(store.history(RAW))
    periods = _periods(Ledger(profile.ledger_url).entries(pipeline.name)) if champions else []
    return [
        Lineage(
            pipeline=pipeline.name,
            run=run,
            reads=tuple(_reads(pipeline.partition, run, features, raw)),
            champion=tuple(period for period in periods if period.version in run.versions),
        )
        for run in runs
    ]


def of_version(found: Sequence[Lineage], version: str) -> Lineage:
    """Returns the lineage of a model version.

    Raises:
        ModelError: There is no such version.
    """
    known = [name for lineage in found for name in lineage.run.versions]
    return _only(found, lambda lineage: version in lineage.run.versions, f"version {version}", known)


def of_run(found: Sequence[Lineage], run_id: str) -> Lineage:
    """Returns the lineage of an MLflow run, which the first characters of its id may name.

    Raises:
        ModelError: There is no such run, or there are several.
    """
    known = [lineage.run.run_id for lineage in found]
    return _only(found, lambda lineage: lineage.run.run_id.startswith(run_id), f"run {run_id}", known)


def uses(
    pipeline: Pipeline, profile: Profile, found: Sequence[Lineage], *, partition: str = "", origin: str = ""
) -> list[Use]:
    """Returns the writes of `raw` of a partition, or from an origin, with the features and models made from each.

    Args:
        pipeline: Whose tables.
        profile: Where they are.
        found: What `lineages` returned.
        partition: Only this partition.
        origin: Only what came from a file, table or query with this name; it may have wildcards, or be the name's end.
    """
    store = Store(profile.store_uri, pipeline.name)
    raw, made = Log(store.history(RAW)), defaultdict(list)
    for write in store.history(FEATURES):
        if source := raw.source(write):
            made[source.version].append(write)
    result = []
    for write in raw.writes:
        names = [str(one["name"]) for one in write.facts.get("origins", ())]
        if (partition and write.partition != partition) or (origin and not any(_named(origin, one) for one in names)):
            continue
        versions = {one.version for one in made[write.version]}
        readers = tuple(
            lineage
            for lineage in found
            if any(read.features and read.features.version in versions for read in lineage.reads)
        )
        result.append(Use(raw=write, features=tuple(made[write.version]), lineages=readers))
    return result


class Log:
    """The writes of one table, and which of them was in force when."""

    def __init__(self, writes: Sequence[Write]) -> None:
        self.writes = writes
        self.of = defaultdict[str, list[Write]](list)
        for write in writes:
            self.of[write.partition].append(write)

    def at(self, partition: str, version: int) -> Write | None:
        """Returns the write that gave a partition the rows it had at a version."""
        return next((write for write in reversed(self.of[partition]) if write.version <= version), None)

    def source(self, features: Write) -> Write | None:
        """Returns the write of this table that features were made from."""
        version = features.facts.get("raw")
        return None if version is None else self.at(features.partition, version)


def _reads(grain: Grain, run: TrainingRun, features: Log, raw: Log) -> list[Read]:
    found: list[Read] = []
    if run.features_version is None:
        return found
    for key in sorted(features.of):
        partition = parse_key(grain, key)
        spans = {"window": run.window, "holdout": run.holdout}
        parts = [name for name, (start, end) in spans.items() if partition.start < end and start < partition.end]
        read, newest = features.at(key, run.features_version), features.of[key][-1]
        if not parts or (read is None and not newest.rows):
            continue
        found.append(
            Read(
                partition=key,
                features=read,
                raw=raw.source(read) if read else None,
                now=None if read and read.digest == newest.digest else newest,
                part=", ".join(parts),
            )
        )
    return found


def _periods(every: Sequence[Entry]) -> list[Period]:
    entries = [entry for entry in every if entry.crowns]
    return [
        Period(version=entry.version, start=entry.at, end=after.at if after else None, actor=entry.actor)
        for entry, after in zip_longest(entries, entries[1:])
        if entry.version
    ]


def _only(found: Sequence[Lineage], wanted: Callable[[Lineage], Any], name: str, known: Sequence[str]) -> Lineage:
    chosen = [lineage for lineage in found if wanted(lineage)]
    if len(chosen) != 1:
        hint = f"There are: {', '.join(known[-20:]) or 'none'}"
        raise ModelError(name, "must name exactly one training run", f"{len(chosen)} of them", hint)
    return chosen[0]


def _named(wanted: str, name: str) -> bool:
    return fnmatchcase(name, wanted) or name.endswith(f"/{wanted.lstrip('/')}")
