"""What monitoring has found over time: drift, performance as labels matured, retrains and what they brought, alerts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from airworthy.alerts.incidents import Incidents, Told
from airworthy.config import Pipeline
from airworthy.drift import Drift
from airworthy.ledger import Entry, Ledger
from airworthy.partitions import Partition, parse_key
from airworthy.profile import Profile
from airworthy.registry import Challenger, Registry
from airworthy.retrains import Decision, Retrains
from airworthy.stages.drift import drift_page
from airworthy.stages.online_performance import online_of
from airworthy.stages.performance import MEASURED, SCORED, Labels, labels_of
from airworthy.store import Store
from airworthy.verdict import Verdict

if TYPE_CHECKING:
    import pandas as pd

LAST = 400  # partitions


class Look(NamedTuple):
    """How good the champion was on the labels that were known when somebody looked; None where they do not tell."""

    version: str
    known: int
    value: float | None


@dataclass(frozen=True)
class Watched:
    """What was found about one partition.

    Attributes:
        drift: None if nobody compared it yet.
        looks: Each time that other labels were known, oldest first.
        labels: What has become of its labels; None if nobody looked yet.
    """

    partition: Partition
    drift: Drift | None
    looks: tuple[Look, ...]
    labels: Labels | None

    @property
    def first(self) -> float | None:
        return self.looks[0].value if self.looks else None

    @property
    def now(self) -> float | None:
        return self.looks[-1].value if self.looks else None


@dataclass(frozen=True)
class Retrained:
    """A retrain that was requested, and what it brought.

    Attributes:
        outcome: What became of the challenger.
        holdout: The metric of the challenger and of the champion on the same holdout, where both were judged.
        after, before: The metric on partitions scored by the new champion, and by the one it replaced: mean over their
            rows, and how many partitions.
    """

    decision: Decision
    outcome: str
    holdout: tuple[float, float | None] | None = None
    after: tuple[float, int] | None = None
    before: tuple[float, int] | None = None


@dataclass(frozen=True)
class Monitoring:
    """A pipeline over time: its newest `LAST` scored partitions in order, and what followed from them.

    Attributes:
        online: As `online_of` returned it.
    """

    pipeline: Pipeline
    partitions: Sequence[Watched]
    champions: Sequence[Entry]
    decisions: Sequence[Decision]
    retrained: Sequence[Retrained]
    alerts: Sequence[Told]
    online: pd.DataFrame


def monitoring(pipeline: Pipeline, profile: Profile) -> Monitoring:
    """Returns what is on record of a pipeline's monitoring.

    Raises:
        ServiceError: MLflow or the ledger does not answer.
    """
    watched = _watched(pipeline, profile)
    ledger = Ledger(profile.ledger_url)
    champions = ledger.standing(pipeline.name)
    decisions = Retrains(profile.ledger_url).decisions(pipeline.name)
    return Monitoring(
        pipeline=pipeline,
        partitions=watched,
        champions=champions,
        decisions=decisions,
        retrained=_retrained(pipeline, decisions, champions, watched, profile),
        alerts=Incidents(profile.ledger_url).told(pipeline.name),
        online=online_of(pipeline, Store(profile.store_uri, pipeline.name)),
    )


def _watched(pipeline: Pipeline, profile: Profile) -> list[Watched]:
    store = Store(profile.store_uri, pipeline.name)
    labels = {one.partition: one for one in labels_of(pipeline, store)}
    looks: dict[str, list[Look]] = {}
    for write in store.history(MEASURED):
        if write.facts:  # what was measured before there were facts is told by the table alone
            value = write.facts["metrics"].get(pipeline.metric)
            looks.setdefault(write.partition, []).append(Look(write.facts["version"], write.facts["known"], value))
    held = _held(pipeline, store)
    found = []
    for key in store.partitions(SCORED)[-LAST:]:
        partition, now = parse_key(pipeline.partition, key), held.get(key)
        before = [one for one in looks.get(key, []) if now and one.version == now.version]
        every = before if before and before[-1] == now else [*before, *([now] if now else [])]
        found.append(Watched(partition, _drift(pipeline, partition, profile), tuple(every), labels.get(key)))
    return found


def _held(pipeline: Pipeline, store: Store) -> dict[str, Look]:
    """Returns what the table `metrics` holds of each partition now."""
    if store.version(MEASURED) is None:
        return {}
    found: dict[str, Look] = {}
    for row in store.read(MEASURED, columns=["partition", "metric", "value", "rows", "version"]).to_dict("records"):
        value = float(row["value"]) if row["metric"] == pipeline.metric else None
        if value is not None or row["partition"] not in found:
            found[row["partition"]] = Look(str(row["version"]), int(row["rows"]), value)
    return found


def _drift(pipeline: Pipeline, partition: Partition, profile: Profile) -> Drift | None:
    file = (profile.reports_dir / drift_page(pipeline, partition)).with_suffix(".json")
    return Drift.model_validate_json(file.read_text()) if file.exists() else None


def _retrained(
    pipeline: Pipeline,
    decisions: Sequence[Decision],
    champions: Sequence[Entry],
    watched: Sequence[Watched],
    profile: Profile,
) -> list[Retrained]:
    requests = [one for one in decisions if one.retrain]
    registry = Registry(profile)
    trainings = {one.as_of: one for one in registry.trainings(pipeline.name)} if requests else {}
    entries = {one.run_id: one for one in champions if one.promotes}
    means, found = _means(watched), []
    for decision in requests:
        challenger = trainings.get(decision.as_of)
        if challenger is None:
            found.append(Retrained(decision, "no training as of then has ended well"))
            continue
        found.append(_brought(pipeline, decision, challenger, entries.get(challenger.run_id), means, registry))
    return found


def _brought(
    pipeline: Pipeline,
    decision: Decision,
    challenger: Challenger,
    entry: Entry | None,
    means: Mapping[str, tuple[float, int]],
    registry: Registry,
) -> Retrained:
    evaluation = registry.load_json(challenger.run_id, "evaluation.json")
    holdout = None
    if evaluation:
        champion = evaluation["champion_metrics"]
        theirs = champion[pipeline.metric] if champion else None
        holdout = evaluation["challenger_metrics"][pipeline.metric], theirs
    if entry is None:
        judged = registry.load_json(challenger.run_id, "verdicts.json")
        verdicts = [Verdict.model_validate(one) for one in judged or ()]
        blocking = [one.gate for one in verdicts if one.blocks]
        outcome = f"refused by {', '.join(blocking)}" if blocking else "not promoted"
        return Retrained(decision, outcome if judged else "not judged", holdout)
    return Retrained(
        decision,
        f"promoted as version {entry.version}",
        holdout,
        means.get(entry.version),
        means.get(entry.expected or ""),
    )


def _means(watched: Sequence[Watched]) -> Mapping[str, tuple[float, int]]:
    """Returns each version's metric on the partitions that it scored: the mean over their rows, and how many."""
    by_version: dict[str, list[Look]] = {}
    for one in watched:
        if one.looks and one.looks[-1].value is not None:
            by_version.setdefault(one.looks[-1].version, []).append(one.looks[-1])
    return {
        version: (sum((look.value or 0) * look.known for look in looks) / sum(one.known for one in looks), len(looks))
        for version, looks in by_version.items()
    }
