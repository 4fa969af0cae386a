"""Canary: what a challenger beside the champion has shown by now, and the step that follows from it."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from airworthy import sequential
from airworthy.canary import Canary, Step
from airworthy.config import Pipeline
from airworthy.errors import AirworthyError
from airworthy.ledger import Entry, Ledger
from airworthy.partitions import Partition
from airworthy.profile import Profile
from airworthy.registry import Registry
from airworthy.stages.canary_batch import tried
from airworthy.stages.canary_days import compared_days
from airworthy.stages.deploy import live
from airworthy.stages.reconcile import CHAMPION, reconcile

log = logging.getLogger(__name__)

Action = Literal["wait", "widen", "take_back", "promote"]


class Trial(BaseModel):
    """What a look at a canary found and did.

    Attributes:
        version: The challenger.
        action: `promote`: it is champion and answers. `wait`: nothing is shown yet.
        sequence: Of the ledger entry with the step; the last one if there was no step.
        run_id: The challenger's training run.
        endpoint: Where a promoted version answers.
    """

    model_config = ConfigDict(frozen=True)

    pipeline: str
    version: str
    champion: str
    action: Action
    reason: str
    step: Step
    sequence: int
    run_id: str
    endpoint: str = ""


class Found(NamedTuple):
    """What is to be done, why, and on what numbers."""

    action: Action
    reason: str
    step: Step


def look(
    pipeline: Pipeline,
    profile: Profile,
    actor: str,
    *,
    partition: Partition | None = None,
    now: datetime | None = None,
) -> Trial | None:
    """Returns what the running canary has come to, once the step that follows is taken; None if there is none.

    Before that the challenger scores its rows of `partition`, if that is given, in batch.

    The step is first on the ledger, then done. A promotion that does not answer is rolled back, as in `deploy`.

    Raises:
        ConflictError: The canary has gone on or ended meanwhile.
        ModelError: The challenger was promoted and did not answer; the champion before is champion again.
        ServiceError: MLflow or the ledger does not answer.
    """
    ledger = Ledger(profile.ledger_url)
    running = ledger.canary(pipeline.name)
    if running is None:
        return _finished(pipeline, ledger, profile, actor)
    failed = tried(pipeline, partition, running, profile) if partition and pipeline.canary else ""
    if failed:
        found = _back(failed, running.step.model_copy(update={"began": running.began}))
    else:
        found = judged(pipeline, running, profile, now or datetime.now(UTC))
    log.info("Canary of version %s: %s, %s", running.version, found.action, found.reason)
    if found.action == "wait":
        return _trial(running, found)
    entry = ledger.advance(running, found.action, actor, found.reason, found.step)
    endpoint = live(pipeline, entry, actor, profile) if found.action == "promote" else ""
    reconcile(pipeline.name, profile)
    return _trial(entry, found, endpoint)


def _finished(pipeline: Pipeline, ledger: Ledger, profile: Profile, actor: str) -> Trial | None:
    """Returns the promotion that a look before this one was killed in, once it is live; None if there is none."""
    last = next(iter(ledger.entries(pipeline.name)[-1:]), None)
    if last is None or last.canary is None:
        return None
    if not last.promotes or Registry(profile).alias(pipeline.name, CHAMPION) == last.version:
        reconcile(pipeline.name, profile)
        return None
    endpoint = live(pipeline, last, actor, profile)
    return _trial(last, Found("promote", last.reason or "", last.step), endpoint)


def stop(pipeline: Pipeline, profile: Profile, actor: str, reason: str = "") -> Entry | None:
    """Returns the entry that takes the running canary back; None if none runs.

    Raises:
        ConflictError: The canary has gone on or ended meanwhile.
        ServiceError: MLflow or the ledger does not answer.
    """
    ledger = Ledger(profile.ledger_url)
    running = ledger.canary(pipeline.name)
    if running is None:
        return None
    step = running.step.model_copy(update={"began": running.began, "share": 0.0})
    entry = ledger.advance(running, "take_back", actor, reason or "It was stopped by hand", step)
    reconcile(pipeline.name, profile)
    return entry


def judged(pipeline: Pipeline, running: Entry, profile: Profile, now: datetime) -> Found:
    """Returns what the running canary has come to, before anything is done about it."""
    policy = pipeline.canary
    before = running.step.model_copy(update={"began": running.began})
    if policy is None:
        return _back("the pipeline declares no canary any more", before)
    counts, alarm = _in_serving(pipeline, policy, running, profile)
    before = before.model_copy(update={"counts": counts})
    if alarm:
        return _back(alarm, before)
    entries = Ledger(profile.ledger_url).entries(pipeline.name)
    days = compared_days(pipeline, entries, running, profile, now)
    gains = [gain + policy.tolerance for gain in days["gain"]]
    rows = int(days["rows"].sum())
    step = before.model_copy(
        update={
            "days": len(days),
            "rows": rows,
            "gain": float((days["gain"] * days["rows"]).sum() / rows) if rows else 0.0,
            "better": sequential.wealth(gains),
            "worse": sequential.wealth([-gain for gain in gains]),
        }
    )
    return following(policy, running, step, entries[running.began - 1].at, now)


def following(policy: Canary, running: Entry, step: Step, began: datetime, now: datetime) -> Found:
    """Returns what follows from the numbers of a step; a further one needs days that the last one did not know."""
    wanted = 1 / policy.error_rate
    shares = () if running.step.shadow else policy.shares
    wider = [share for share in shares if share > running.step.share]
    steps = max(len(shares), 1)
    needed = wanted ** ((steps - len(wider)) / steps)
    allowed = f" than {policy.tolerance:g} worse" if policy.tolerance else ""
    told = (
        f"{step.rows} labelled rows of {step.days} days, average gain {step.gain:+.5f}; "
        f"e-value for better{allowed} {step.better:.3g}, for worse {step.worse:.3g}"
    )
    if step.worse >= wanted:
        return _back(f"the challenger is worse: {told}", step)
    if step.better >= needed and step.days > running.step.days:
        if not wider:
            return Found("promote", f"{told} of {wanted:.3g}", step.model_copy(update={"share": 1.0}))
        return Found("widen", f"{told} of {needed:.3g}", step.model_copy(update={"share": wider[0]}))
    if now >= began + policy.within:
        return _back(f"nothing was shown in time: {told}", step)
    return Found("wait", f"{told}; {needed:.3g} goes on, {wanted:.3g} for worse takes back", step)


def _in_serving(pipeline: Pipeline, policy: Canary, running: Entry, profile: Profile) -> tuple[dict[str, float], str]:
    """Returns what became of the challenger's requests, and what is wrong with them; "" if nothing is."""
    try:
        said = pipeline.target.canary(pipeline.name, profile)
    except AirworthyError as error:  # labels tell all the same, and whether serving is up is for others to watch
        log.warning("%s", error)
        return {}, ""
    if said.get("began") != running.began:
        return {}, ""
    refused = said.get("refused") or {}
    if refused.get("final"):
        return {}, f"serving refuses the challenger: {refused['reason']}"
    counts = {name: float(value) for name, value in said.get("counts", {}).items()}
    champion, challenger = said.get("seconds") or (0.0, 0.0)
    return counts, policy.alarm(counts, (champion, challenger))


def _back(reason: str, step: Step) -> Found:
    return Found("take_back", reason, step.model_copy(update={"share": 0.0}))


def _trial(entry: Entry, found: Found, endpoint: str = "") -> Trial:
    return Trial(
        pipeline=entry.pipeline,
        version=entry.version,
        champion=entry.expected or "",
        action=found.action,
        reason=found.reason,
        step=found.step,
        sequence=entry.sequence,
        run_id=entry.run_id,
        endpoint=endpoint,
    )
