"""Decide: whether what monitoring found about a partition asks for a retrain, and whether anything holds that back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from airworthy.config import Pipeline
from airworthy.drift import ColumnDrift, Drift
from airworthy.errors import ModelError
from airworthy.evidence import LOWER_IS_BETTER
from airworthy.kpis import KpiFinding
from airworthy.ledger import Ledger
from airworthy.partitions import Partition, partitions_between
from airworthy.profile import Profile
from airworthy.registry import Registry
from airworthy.retrains import Decision, Findings, Retrains
from airworthy.stages.evaluate import EVALUATION
from airworthy.stages.monitor import PREDICTION
from airworthy.stages.performance import FEATURES, Performance
from airworthy.store import Store

Finding = tuple[bool, str]  # whether it asks, and what was looked at


def decide(
    pipeline: Pipeline,
    partition: Partition,
    found: Drift,
    measured: Sequence[Performance],
    profile: Profile,
    actor: str,
    *,
    record: bool = True,
    performance: Sequence[KpiFinding] = (),
) -> Decision:
    """Returns whether a partition asks for a retrain, and what holds that back; on record in the table `retrains`.

    Args:
        found: What `drift` returned.
        measured: What `performance` returned for the partition, and `matured` for earlier ones.
        actor: The run that asks.
        record: False only tells what would be decided, as in a backfill.
        performance: What `performance_kpis` returned.

    Raises:
        ConflictError: Too many others decide at the same moment.
        ModelError: The champion's run does not tell how good it was.
        ServiceError: MLflow or the ledger does not answer.
    """
    found = found.model_copy(update={"kpis": (*found.kpis, *performance)})
    findings = _findings(pipeline, partition, found, measured, profile, actor)
    retrains = Retrains(profile.ledger_url)
    return (retrains.decide if record else retrains.preview)(findings, pipeline.retrain)


def _findings(
    pipeline: Pipeline,
    partition: Partition,
    found: Drift,
    measured: Sequence[Performance],
    profile: Profile,
    actor: str,
) -> Findings:
    champion = Ledger(profile.ledger_url).champion(pipeline.name)
    # Later labels are not known yet, and a model as of the future would keep out every challenger until then.
    as_of = min(partition.end + pipeline.label.matures_after, datetime.now(UTC))
    since = champion.as_of if champion else None
    looked_at = {
        "drift": list(_drift(pipeline, found)),
        "decay": list(_decay(pipeline, found.version, measured, profile)),
        "anomaly": list(_anomaly(pipeline, found)),
        "volume": list(_volume(pipeline, since, as_of, profile)),
    }
    own = next((one for one in measured if one.labels.partition == partition.key), None)
    known = own is not None and pipeline.metric in own.metrics
    if pipeline.retrain.confirm and known and not any(asks for asks, _ in looked_at["decay"]):
        looked_at["drift"] = [(False, f"{told}, which its labels do not confirm") for _, told in looked_at["drift"]]
    asking = {cause: [told for asks, told in findings if asks] for cause, findings in looked_at.items()}
    every = [told for findings in looked_at.values() for _, told in findings]
    return Findings(
        pipeline=pipeline.name,
        partition=partition.key,
        as_of=as_of,
        causes=tuple(cause for cause, told in asking.items() if told),
        reason="; ".join([told for one in asking.values() for told in one] or every) or "nothing has drifted",
        version=found.version,
        champion=champion.version if champion else "",
        champion_as_of=since,
        actor=actor,
    )


def _drift(pipeline: Pipeline, found: Drift) -> Iterator[Finding]:
    asking = set(pipeline.retrain.drift)
    if pipeline.alerts and pipeline.alerts.respond.get("drift") == "retrain":
        asking.add("prediction")
    for column in found.columns:
        kind = "prediction" if column.column == PREDICTION else "columns"
        if kind in asking and (column.drifted or kind == "prediction"):
            yield column.drifted, _told(column)
    if "label" in asking and found.label is not None:
        yield found.label.drifted, _told(found.label)
    if "concept" in asking and found.concept is not None:
        yield found.concept.drifted, found.concept.reason
    for change in found.formats if "format" in asking else ():
        yield True, change.reason


def _anomaly(pipeline: Pipeline, found: Drift) -> Iterator[Finding]:
    for one in found.kpis:
        if one.kpi in pipeline.retrain.kpis:
            yield one.alarm, one.reason


def _told(column: ColumnDrift) -> str:
    distance = "holds no values" if column.score is None else f"is {column.score:.2f} from training"
    return f"{column.column} {column.note or f'{distance}, allowed is less than {column.threshold:g}'}"


def _decay(pipeline: Pipeline, version: str, measured: Sequence[Performance], profile: Profile) -> Iterator[Finding]:
    decay, metric = pipeline.retrain.decay, pipeline.metric
    if decay is None:
        return
    for one in (one for one in measured if one.version == version):  # how others did says nothing about this one
        value = one.metrics.get(metric)
        if value is None:
            yield False, f"{metric} of {one.labels.partition} is not known yet"
            continue
        bounds = [] if decay.floor is None else [(decay.floor, f"the floor {decay.floor:g}")]
        if decay.tolerance is not None:
            expected = _expected(pipeline, one.version, profile)
            share = decay.tolerance if metric in LOWER_IS_BETTER else -decay.tolerance
            bounds.append((expected * (1 + share), f"{decay.tolerance:.0%} of {expected:.3f} on its holdout"))
        for bound, told in bounds:
            worse = value > bound if metric in LOWER_IS_BETTER else value < bound
            yield (
                worse,
                f"{metric} of {one.labels.partition}, {value:.3f}, is {'worse than' if worse else 'within'} {told}",
            )


def _expected(pipeline: Pipeline, version: str, profile: Profile) -> float:
    """Returns the metric on the holdout that a version was judged on; one that was imported was scored there only.

    Raises:
        ModelError: Its run does not tell.
    """
    entries = Ledger(profile.ledger_url).entries(pipeline.name)
    run_id = next(entry.run_id for entry in entries if entry.version == version)
    registry = Registry(profile)
    known = registry.challenger(run_id).metrics or (registry.load_json(run_id, EVALUATION) or {}).get(
        "challenger_metrics", {}
    )
    if pipeline.metric not in known:
        rule = f"must tell its {pipeline.metric} on the holdout, which retrain.decay.tolerance is a share of"
        raise ModelError(f"run {run_id}, version {version}", rule, sorted(known), "Declare retrain.decay.floor instead")
    return float(known[pipeline.metric])


def _volume(pipeline: Pipeline, since: datetime | None, as_of: datetime, profile: Profile) -> Iterator[Finding]:
    volume = pipeline.retrain.volume
    if volume is None or since is None or since >= as_of:
        return
    between = partitions_between(pipeline.partition, since, as_of)
    newer = [one.key for one in between if one.start >= since and one.end <= as_of]
    rows = Store(profile.store_uri, pipeline.name).scan(FEATURES, partitions=newer).count_rows()
    yield rows >= volume, f"{rows} rows are newer than the champion, {volume} ask"
