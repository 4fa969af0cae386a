"""Deploy: makes a challenger that passed its gates champion, and takes that back if it does not answer."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter

from airworthy.config import Pipeline
from airworthy.errors import AirworthyError, ConflictError, ModelError, ServiceError
from airworthy.ledger import Entry, Ledger
from airworthy.profile import Profile
from airworthy.registry import Challenger, Registry
from airworthy.stages.evaluate import VERDICTS, Evaluation, evidence_folder
from airworthy.verdict import Verdict

CHAMPION = "champion"

log = logging.getLogger(__name__)


class Release(BaseModel):
    """What a deployment did.

    Attributes:
        version: The champion afterwards; "" if there is none.
        replaced: The version that was champion before a promotion.
        action: `promoted`: the challenger answers. `kept`: it is older than the champion, or is it already.
            `refused`: a gate blocks it.
        endpoint: Where a promoted version answers.
    """

    model_config = ConfigDict(frozen=True)

    pipeline: str
    version: str
    replaced: str | None = None
    action: Literal["promoted", "kept", "refused"]
    reason: str
    endpoint: str = ""


def deploy(
    pipeline: Pipeline,
    challenger: Challenger,
    evaluation: Evaluation,
    verdicts: Sequence[Verdict],
    profile: Profile,
    actor: str,
) -> Release:
    """Returns the release once the challenger answers, or why the champion stays.

    A promotion is first on record in the ledger, then live, then under the alias `champion`. Run again after a
    crash anywhere in between, this finishes what is missing, without a second version or entry.

    Raises:
        ConflictError: The champion is not the one the challenger was judged against, or the verdicts are not those
            on this challenger.
        ModelError: The target did not answer with the new version, and the version before is champion again.
        ServiceError: MLflow or the ledger does not answer, or the target does not with a version it had answered with.
    """
    ledger, registry = Ledger(profile.ledger_url), Registry(profile)
    champion = ledger.champion(pipeline.name)
    if kept := _reason_to_keep(challenger, verdicts, champion):
        action, reason = kept
        return Release(
            pipeline=pipeline.name, version=champion.version if champion else "", action=action, reason=reason
        )
    completed = False
    if champion and champion.model_id == challenger.model_id:
        entry = champion
        completed = registry.alias(pipeline.name, CHAMPION) == entry.version
    else:
        evidence = _own_verdicts(challenger, evaluation, verdicts, registry)
        entry = ledger.promote(
            pipeline=pipeline.name,
            version=registry.register(challenger, verdicts),
            model_id=challenger.model_id,
            run_id=challenger.run_id,
            digest=challenger.digest,
            as_of=challenger.as_of,
            expected=evaluation.champion,
            actor=actor,
            evidence=evidence,
        )
    try:
        endpoint = pipeline.target.wait_until_live(entry, profile)
    except Exception as error:  # whatever a target raises, a version that does not answer must not stay champion
        if completed:  # it answered before, so the target is down and the version is not to blame
            raise
        raise _roll_back(ledger, entry, actor, error) from error
    _point_alias(registry, pipeline.name, entry.version)
    reason = f"version {entry.version} replaced {entry.expected}" if entry.expected else f"version {entry.version}"
    return Release(
        pipeline=pipeline.name,
        version=entry.version,
        replaced=entry.expected,
        action="promoted",
        reason=f"{reason} and answers",
        endpoint=endpoint,
    )


def _reason_to_keep(
    challenger: Challenger, verdicts: Sequence[Verdict], champion: Entry | None
) -> tuple[Literal["kept", "refused"], str] | None:
    blocking = [f"{verdict.gate}: {verdict.reason}" for verdict in verdicts if verdict.blocks]
    if champion and champion.model_id == challenger.model_id and blocking:
        return "kept", f"version {champion.version} is champion already"
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


def _own_verdicts(
    challenger: Challenger, evaluation: Evaluation, verdicts: Sequence[Verdict], registry: Registry
) -> str:
    """Returns the SHA-256 of the stored verdicts, under which the ledger names them.

    A task that runs again alone gets what the others left when they ran for another challenger.
    """
    stored = registry.load_artifact(challenger.run_id, f"{evidence_folder(evaluation.evidence)}/{VERDICTS}")
    if (
        stored is None
        or evaluation.run_id != challenger.run_id
        or _told(TypeAdapter(list[Verdict]).validate_json(stored)) != _told(verdicts)
    ):
        rule = f"must be those stored with run {challenger.run_id} for this evaluation"
        raise ConflictError(f"{challenger.pipeline}: verdicts", rule, f"verdicts on run {evaluation.run_id}")
    return hashlib.sha256(stored).hexdigest()


def _told(verdicts: Sequence[Verdict]) -> list[tuple[str, ...]]:
    # Their numbers come through a database that reorders keys and has no NaN.
    return [(verdict.gate, verdict.status, verdict.on_fail, verdict.reason) for verdict in verdicts]


def _roll_back(ledger: Ledger, entry: Entry, actor: str, cause: Exception) -> ModelError:
    """Leaves the version before as champion; returns what to raise. The alias has never left that version."""
    restored = ledger.rollback(entry.pipeline, entry.version, actor).version
    told = str(cause) if isinstance(cause, AirworthyError) else f"{type(cause).__name__}: {cause}"
    now = f"version {restored} is champion again" if restored else "there is no champion, as before"
    return ModelError(f"deploy {entry.pipeline}", f"version {entry.version} must go live; {now}", hint=told)


def _point_alias(registry: Registry, pipeline: str, version: str) -> None:
    registry.set_alias(pipeline, CHAMPION, version)
    if (found := registry.alias(pipeline, CHAMPION)) != version:
        hint = "Another client moved it; the ledger decides, so run deploy again"
        raise ServiceError(f"MLflow alias {pipeline}@{CHAMPION}", f"must be on version {version}", found, hint)
