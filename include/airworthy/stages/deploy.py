"""Deploy: makes a challenger that passed its gates champion, and takes that back if it does not answer."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter

from airworthy.config import Pipeline
from airworthy.errors import AirworthyError, ConflictError, ModelError
from airworthy.ledger import Entry, Ledger
from airworthy.profile import Profile
from airworthy.registry import Challenger, Registry
from airworthy.stages.approvals import Answer, approved, question
from airworthy.stages.evaluate import VERDICTS, Evaluation, evidence_folder, evidence_on_record
from airworthy.stages.evidence_files import EVIDENCE, digest
from airworthy.stages.reconcile import CHAMPION, reconcile
from airworthy.verdict import Verdict

log = logging.getLogger(__name__)


class Release(BaseModel):
    """What a deployment did.

    Attributes:
        version: The champion afterwards; "" if there is none.
        replaced: The version that was champion before a promotion.
        action: `promoted`: the challenger answers. `canary`: it answers a share of the requests, or is compared in the
            shadow. `kept`: it is older than the champion, or is it already. `refused`: a gate blocks it.
        endpoint: Where a promoted version, or a canary, answers.
    """

    model_config = ConfigDict(frozen=True)

    pipeline: str
    version: str
    replaced: str | None = None
    action: Literal["promoted", "canary", "kept", "refused"]
    reason: str
    endpoint: str = ""


def deploy(
    pipeline: Pipeline,
    challenger: Challenger,
    evaluation: Evaluation,
    verdicts: Sequence[Verdict],
    profile: Profile,
    actor: str,
    approvals: Sequence[Answer] = (),
) -> Release:
    """Returns the release once the challenger answers, all or its first share, or why the champion stays.

    A promotion is first on record in the ledger, then live, then under the alias `champion`. Run again after a
    crash anywhere in between, this finishes what is missing, without a second version or entry.

    Args:
        pipeline: Says who must approve if a gate asks.
        challenger: What `train` returned.
        evaluation: What `evaluate` returned.
        verdicts: What `judge` returned.
        profile: Where everything is.
        actor: Who promotes: the Airflow run, which is also the one that has asked.
        approvals: What people have answered; it counts only if it is on record for exactly this evidence.

    Raises:
        ConflictError: The champion is not the one the challenger was judged against, the verdicts or approvals are
            not those on this challenger, or they are from before somebody rolled back from it.
        ModelError: The target did not answer with the new version, and the version before is champion again.
        ServiceError: MLflow or the ledger does not answer, or the target does not with a version it had answered with.
    """
    ledger, registry = Ledger(profile.ledger_url), Registry(profile)
    champion = ledger.champion(pipeline.name)
    if kept := reason_to_keep(challenger, verdicts, champion):
        action, reason = kept
        reconcile(pipeline.name, profile)
        return Release(
            pipeline=pipeline.name, version=champion.version if champion else "", action=action, reason=reason
        )
    completed = False
    if champion and champion.model_id == challenger.model_id:
        entry = champion
        completed = registry.alias(pipeline.name, CHAMPION) == entry.version
    else:
        reconcile(pipeline.name, profile)  # after another deployment that crashed, and never on a ledger that was cut
        promoted = _promoted(pipeline, challenger, evaluation, verdicts, champion, actor, approvals, ledger, registry)
        if isinstance(promoted, Release):
            return promoted
        entry = promoted
        if entry.challenges:
            return _tried(pipeline, entry, actor, profile)
    endpoint = live(pipeline, entry, actor, profile, completed=completed)
    reason = f"version {entry.version} replaced {entry.expected}" if entry.expected else f"version {entry.version}"
    return Release(
        pipeline=pipeline.name,
        version=entry.version,
        replaced=entry.expected,
        action="promoted",
        reason=f"{reason} and answers",
        endpoint=endpoint,
    )


def live(pipeline: Pipeline, entry: Entry, actor: str, profile: Profile, *, completed: bool = False) -> str:
    """Returns where a promoted version answers, once MLflow's alias is on it, too.

    Args:
        completed: Whether it answered before; then the target is down, and the version is not to blame.

    Raises:
        ModelError: The target did not answer with it, and the version before is champion again.
        ServiceError: MLflow or the ledger does not answer, or the target does not with what it had answered with.
    """
    try:
        endpoint = pipeline.target.wait_until_live(entry, profile)
    except Exception as error:  # whatever a target raises, a version that does not answer must not stay champion
        if completed:
            raise
        raise _roll_back(Ledger(profile.ledger_url), entry, actor, error, profile) from error
    reconcile(pipeline.name, profile)
    return endpoint


def _tried(pipeline: Pipeline, entry: Entry, actor: str, profile: Profile) -> Release:
    """Returns the release once a canary's challenger answers beside the champion; else the canary is taken back."""
    try:
        endpoint = pipeline.target.wait_until_split(entry, profile)
    except Exception as error:  # as with a champion, whatever a target raises
        told = _told_of(error)
        if entry.action == "canary":  # later steps are of one that has answered
            ledger = Ledger(profile.ledger_url)
            step = entry.step.model_copy(update={"began": entry.began, "share": 0.0})
            ledger.advance(entry, "take_back", actor, f"It did not go live. {told}", step)
            reconcile(pipeline.name, profile)
        rule = f"version {entry.version} must answer beside the champion, version {entry.expected}, which goes on"
        raise ModelError(f"deploy {pipeline.name}", rule, hint=told) from error
    reconcile(pipeline.name, profile)
    step = entry.step
    does = "is compared with all answers" if step.shadow else f"answers {step.share:.0%} of the keys"
    reason = f"version {entry.version} {does} of version {entry.expected}, as a canary"
    champion = entry.expected or ""
    return Release(pipeline=pipeline.name, version=champion, action="canary", reason=reason, endpoint=endpoint)


def _promoted(
    pipeline: Pipeline,
    challenger: Challenger,
    evaluation: Evaluation,
    verdicts: Sequence[Verdict],
    champion: Entry | None,
    actor: str,
    approvals: Sequence[Answer],
    ledger: Ledger,
    registry: Registry,
) -> Entry | Release:
    """Returns the ledger's entry of the promotion or of a canary, or the release that says why there is none."""
    running = ledger.canary(pipeline.name) if pipeline.canary else None
    if running and running.model_id != challenger.model_id:
        reason = f"the canary of version {running.version} runs; end it by airworthy canary {pipeline.name} --stop"
        return Release(pipeline=pipeline.name, version=running.expected or "", action="kept", reason=reason)
    approved_by = None
    evidence = own_verdicts(challenger, evaluation, verdicts, registry)
    _require_every_gate(pipeline, evaluation, verdicts, registry)
    if any(verdict.asks for verdict in verdicts):
        asked = question(pipeline, challenger, evaluation, evidence, champion, actor)
        approved_by, refused = approved(pipeline, asked, approvals, registry)
        if refused:
            return Release(pipeline=pipeline.name, version=asked.expected or "", action="refused", reason=refused)
        log.info("approved by %s", approved_by)
    return ledger.promote(
        pipeline=pipeline.name,
        version=registry.register(challenger, verdicts),
        model_id=challenger.model_id,
        run_id=challenger.run_id,
        digest=challenger.digest,
        as_of=challenger.as_of,
        expected=evaluation.champion,
        actor=actor,
        evidence=evidence,
        approved_by=approved_by,
        judged_at=evaluation.judged_at,
        canary=pipeline.canary.first_step if pipeline.canary and champion else None,
    )


def reason_to_keep(
    challenger: Challenger, verdicts: Sequence[Verdict], champion: Entry | None
) -> tuple[Literal["kept", "refused"], str] | None:
    """Returns why a challenger is not promoted, whatever people say; None if it may be."""
    blocking = [f"{verdict.gate}: {verdict.reason}" for verdict in verdicts if verdict.blocks]
    if champion and champion.model_id == challenger.model_id and (blocking or not champion.promotes):
        return "kept", f"version {champion.version} is champion already"
    if challenger.backtest:
        return "refused", "it was trained for a backtest, which never promotes"
    if not verdicts:
        return "refused", "no gate has judged the challenger"
    if blocking:
        return "refused", "; ".join(blocking)
    if champion and champion.as_of and challenger.as_of < champion.as_of:
        return "kept", (
            f"version {champion.version} was trained as of {champion.as_of:%Y-%m-%d %H:%M}, "
            f"later than the challenger's {challenger.as_of:%Y-%m-%d %H:%M}"
        )
    return None


def own_verdicts(
    challenger: Challenger, evaluation: Evaluation, verdicts: Sequence[Verdict], registry: Registry
) -> str:
    """Returns the SHA-256 of the stored verdicts, under which the ledger names them.

    A task that runs again alone gets what the others left when they ran for another challenger.

    Raises:
        ConflictError: They are not the ones given, or the evidence they are on was changed.
    """
    rule = f"must be those stored with run {challenger.run_id} for this evaluation"
    foreign = ConflictError(f"{challenger.pipeline}: verdicts", rule, f"verdicts on run {evaluation.run_id}")
    if evaluation.run_id != challenger.run_id:
        raise foreign
    files = evidence_on_record(challenger.run_id, evaluation.evidence, registry)
    if files is None or digest(files) != evaluation.evidence:
        hint = "Run evaluate again; the champion stays"
        changed = f"must still have the SHA-256 {evaluation.evidence}"
        raise ConflictError(f"{challenger.pipeline}: evidence of run {challenger.run_id}", changed, hint=hint)
    stored = registry.load_artifact(challenger.run_id, f"{evidence_folder(evaluation.evidence)}/{VERDICTS}")
    if stored is None or _told(TypeAdapter(list[Verdict]).validate_json(stored)) != _told(verdicts):
        raise foreign
    return hashlib.sha256(stored).hexdigest()


def _require_every_gate(
    pipeline: Pipeline, evaluation: Evaluation, verdicts: Sequence[Verdict], registry: Registry
) -> None:
    """Raises a conflict if a gate was declared, or declared in another way, after the others had judged."""
    found = registry.load_json(evaluation.run_id, f"{evidence_folder(evaluation.evidence)}/{EVIDENCE}") or {}
    asked = {*found.get("gathered", ()), *found.get("missing", ())}
    judged = iter([(verdict.gate, verdict.on_fail) for verdict in verdicts])  # in the order of the gates
    missing = [
        gate.declaration
        for gate in pipeline.gates
        if gate.declaration not in asked or (gate.kind(), gate.on_fail) not in judged
    ]
    if missing:
        rule = f"must have judged the challenger: {', '.join(missing)}"
        raise ConflictError(f"{pipeline.name}: gates", rule, hint="They were declared meanwhile; evaluate again")


def _told(verdicts: Sequence[Verdict]) -> list[tuple[str, ...]]:
    # Their numbers come through a database that reorders keys and has no NaN.
    return [(verdict.gate, verdict.status, verdict.on_fail, verdict.reason) for verdict in verdicts]


def _told_of(error: Exception) -> str:
    return str(error) if isinstance(error, AirworthyError) else f"{type(error).__name__}: {error}"


def _roll_back(ledger: Ledger, entry: Entry, actor: str, cause: Exception, profile: Profile) -> ModelError:
    """Leaves the version before as champion; returns what to raise."""
    told = _told_of(cause)
    restored = ledger.rollback(entry.pipeline, entry.version, actor, reason=f"It did not go live. {told}").version
    try:
        reconcile(entry.pipeline, profile)
    except AirworthyError as trouble:  # the next deployment does it; that this one failed is what must be told
        log.warning("%s", trouble)
    now = f"version {restored} is champion again" if restored else "there is no champion, as before"
    return ModelError(f"deploy {entry.pipeline}", f"version {entry.version} must go live; {now}", hint=told)
