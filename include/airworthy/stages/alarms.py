"""Alarms: which alerts follow from what was found, and what is done about them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import groupby

from airworthy.alerts import Alert, FallBack, Severity
from airworthy.alerts.incidents import Channel, Incidents, Told
from airworthy.config import Pipeline
from airworthy.drift import Drift
from airworthy.errors import AirworthyError
from airworthy.kpis import KpiFinding
from airworthy.ledger import Ledger
from airworthy.partitions import parse_key
from airworthy.profile import Profile
from airworthy.registry import Challenger
from airworthy.retrains import Decision
from airworthy.stages.performance import overdue
from airworthy.stages.rollback import rollback, withdraw
from airworthy.stages.serving_kpis import coverage, lossy
from airworthy.store import Store
from airworthy.verdict import Verdict

_LOSSES = 10  # partitions, the last ones
_ALERT = "alert: "  # how the actor of a response begins, on the ledger


def of_monitoring(
    pipeline: Pipeline,
    decision: Decision,
    profile: Profile,
    now: datetime | None = None,
    *,
    found: Drift | None = None,
    performance: Sequence[KpiFinding] = (),
) -> Iterator[Alert]:
    """Yields what drift and decay of the champion are, what is unusual, and one alert while labels do not come in time.

    Args:
        decision: What `decide` returned.
        now: When labels count as late; the present by default.
        found: What `drift` returned.
        performance: What `performance_kpis` returned.
    """
    if found is not None:
        yield from _anomalies(found, performance)
        yield from _losses(pipeline, found, profile)
    for cause in ("drift", "decay") if decision.version == decision.champion else ():
        if cause in decision.cause.split(", "):
            yield Alert(
                pipeline=pipeline.name,
                kind=cause,
                severity="critical" if cause == "decay" else "warning",
                subject=f"{pipeline.name}: {cause} of version {decision.version} in {decision.partition}",
                text=decision.reason,
                incident=f"{cause} of version {decision.version}",
                version=decision.version,
            )
    yield from _overdue(pipeline, profile, now)


def _overdue(pipeline: Pipeline, profile: Profile, now: datetime | None) -> Iterator[Alert]:
    """Yields one alert while labels do not come in time."""
    if late := overdue(pipeline, profile, now):
        first = min(late, key=lambda one: one.partition)
        told = [f"{one.partition}: {one.told}, due {one.due:%Y-%m-%d %H:%M}" for one in late[-10:]]
        yield Alert(
            pipeline=pipeline.name,
            kind="labels",
            severity="warning",
            subject=f"{pipeline.name}: labels of {len(late)} partition(s) are overdue since {first.partition}",
            text="\n".join(told),
            incident=f"labels since {first.partition}",
        )


def _anomalies(found: Drift, performance: Sequence[KpiFinding]) -> Iterator[Alert]:
    """Yields one alert for the key figures that became unusual at the same time."""
    alarms = sorted((one for one in (*found.kpis, *performance) if one.alarm), key=lambda one: (one.since, one.kpi))
    for since, group in groupby(alarms, key=lambda one: one.since):
        unusual = list(group)
        told = [f"{one.reason}. {one.remedy}" for one in unusual] + [
            f"{one.reason}. {one.remedy}" for one in found.formats
        ]
        yield Alert(
            pipeline=found.pipeline,
            kind="anomaly",
            severity="warning",
            subject=f"{found.pipeline}: {', '.join(one.kpi for one in unusual)} unusual in {found.partition}",
            text="\n".join(told),
            incident=f"anomaly since {since}",
            version=found.version,
        )


def _losses(pipeline: Pipeline, found: Drift, profile: Profile) -> Iterator[Alert]:
    """Yields an alert for each of the last partitions with lost predictions; serving may know of them late."""
    store, partition = Store(profile.store_uri, pipeline.name), parse_key(pipeline.partition, found.partition)
    for one in lossy(pipeline, partition, store)[-_LOSSES:]:
        if (known := coverage(one, store)) is not None:
            yield Alert(
                pipeline=pipeline.name,
                kind="anomaly",
                severity="warning",
                subject=f"{pipeline.name}: {known.lost} predictions of {one.key} were not captured",
                text=f"{known.told}. See why in the log of serving: a full disk, a store that was down, a kill",
                incident=f"predictions lost in {one.key}",
            )


def of_gates(challenger: Challenger, verdicts: Sequence[Verdict]) -> Iterator[Alert]:
    """Yields an alert if a gate keeps a challenger from being promoted."""
    blocking = [verdict for verdict in verdicts if verdict.blocks]
    if not blocking:
        return
    severity: Severity = "critical" if any(one.status == "error" for one in blocking) else "warning"
    yield Alert(
        pipeline=challenger.pipeline,
        kind="gates",
        severity=severity,
        subject=f"{challenger.pipeline}: {', '.join(one.gate for one in blocking)} stopped the challenger as of "
        f"{challenger.as_of:%Y-%m-%d}",
        text="\n".join(f"{one.gate} {one.status}: {one.reason}" for one in blocking),
        incident=f"gates on run {challenger.run_id}",
    )


def tell(pipeline: Pipeline, alert: Alert, profile: Profile, channels: Mapping[str, Channel]) -> Sequence[Told]:
    """Returns on which channels an alert was told now, and what was done about it: each once for its incident.

    Nobody is told if the pipeline's `alerts` do not name its kind.

    Raises:
        ServiceError: The database does not answer.
    """
    declared = pipeline.alerts
    if declared is None or alert.kind not in declared.on:
        return ()
    if alert.kind in declared.respond and alert.severity != "info":  # nothing is wrong yet that could be mended
        channels = {**channels, "response": lambda alert: respond(pipeline, alert, profile)}
    return Incidents(profile.ledger_url).tell(alert, channels)


def respond(pipeline: Pipeline, alert: Alert, profile: Profile) -> str:
    """Returns what was done about an alert, as the pipeline's file has it.

    An alert about a version that is not champion any more takes nothing back, and of several alerts only the first
    goes back to the version before: what is wrong with each version is hardly the version. Retraining is left to
    the record of retrains, which a drift or decay that is to be responded to so asks in any case.

    Raises:
        AirworthyError: What is to be done cannot be, or the ledger or the target does not answer.
    """
    response = pipeline.alerts.respond.get(alert.kind) if pipeline.alerts else None
    if response is None or response == "retrain":
        return f"left to the record of retrains: airworthy retrains {pipeline.name}" if response else "nothing"
    champion = Ledger(profile.ledger_url).champion(pipeline.name)
    if champion is None:
        return "nothing, as there is no champion"
    if alert.version and champion.version != alert.version:
        return f"nothing, as version {champion.version} is champion by now"
    actor = f"{_ALERT}{alert.incident}"
    if response == "stop_serving":
        withdraw(pipeline, profile, actor, reason=alert.subject, version=champion.version)
        return f"version {champion.version} is withdrawn; no model answers"
    went_back = champion.actor.startswith(_ALERT) and champion.expected != champion.version  # or ended a canary only
    if response == "roll_back" and went_back and champion.actor != actor:
        return f"nothing, as an alert went back to version {champion.version} already; people decide on going further"
    to = response.fall_back if isinstance(response, FallBack) else ""
    of = champion.version
    done = rollback(pipeline, profile, actor, to=to, reason=alert.subject, once=True, instead_of=of)
    return f"version {done.version} is champion" + (f" instead of {done.replaced}" if done.changed else " already")


def of_question(pipeline: Pipeline, subject: str, asked: str, users: Sequence[str], page: str, within: str) -> Alert:
    """Returns the alert for people who are asked to approve, so that they need not come across it.

    Args:
        subject: The question.
        asked: Names the task and its run.
        users: Who may answer; whoever may edit runs if it is empty.
        page: Where.
        within: What silence after this means no.
    """
    return Alert(
        pipeline=pipeline.name,
        kind="approval",
        severity="info",
        subject=subject,
        text=f"{' or '.join(users) or 'Who may edit its runs'} can answer within {within}, silence means no: {page}",
        incident=f"asked by {asked}",
    )


def of_failure(pipeline: Pipeline, kind: str, about: str, error: BaseException | str | None) -> Alert:
    """Returns the alert for a task that failed for good.

    Args:
        kind: `data`, `train`, `deploy` or `approval`.
        about: The partition or the run.
    """
    told = str(error) if isinstance(error, AirworthyError | str) else f"{type(error).__name__}: {error}"
    told = told if error else "The task's log says why"
    subjects = {
        "data": "data is missing or bad",
        "train": "a training failed",
        "deploy": "a deployment failed",
        "approval": "nobody approved",
    }
    return Alert.model_validate(
        {
            "pipeline": pipeline.name,
            "kind": kind,
            "severity": "critical" if kind == "deploy" else "warning",
            "subject": f"{pipeline.name}: {subjects[kind]}: {about}",
            "text": told,
            "incident": f"{kind} of {about}",
        }
    )
