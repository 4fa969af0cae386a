"""Rollback: a version that was champion before is champion again, on the ledger and where it answers."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from airworthy.config import Pipeline
from airworthy.errors import AirworthyError, ConflictError, ModelError, Problems, ServiceError
from airworthy.ledger import Entry, Ledger
from airworthy.profile import Profile
from airworthy.stages.reconcile import reconcile


class Rollback(BaseModel):
    """What a rollback did.

    Attributes:
        version: The champion now.
        changed: False if `version` was champion already.
        replaced: The version rolled back from; None if there was none.
        run_id: The training run of `version`.
        sequence: Of the ledger entry that made it champion.
        endpoint: Where it answers.
    """

    model_config = ConfigDict(frozen=True)

    pipeline: str
    version: str
    changed: bool
    replaced: str | None
    run_id: str
    sequence: int
    endpoint: str


def rollback(
    pipeline: Pipeline,
    profile: Profile,
    actor: str,
    *,
    to: str = "",
    reason: str = "",
    once: bool = False,
    instead_of: str = "",
) -> Rollback:
    """Returns the rollback once the older version answers; on the ledger it is champion at once.

    Nothing but the ledger is needed for that: serving keeps the files of the champion before.

    Args:
        pipeline: Whose champion.
        profile: Where ledger, MLflow and serving are.
        actor: Who wants it.
        to: A version that was champion; by default the one before the present champion.
        reason: Why, for the record.
        once: If `actor` has rolled back before, finish that and go no further back.
        instead_of: The version that must still be champion; by default whichever is.

    Raises:
        ModelError: There is no such version, or none to go back to.
        ConflictError: The champion changed meanwhile.
        ServiceError: The version is champion on the ledger, but its target does not answer with it.
        Problems: The same, and MLflow does not answer either.
    """
    ledger = Ledger(profile.ledger_url)
    entry = _done_before(ledger.entries(pipeline.name), actor) if once else None
    changed = True
    if entry is None:
        standing = ledger.standing(pipeline.name)
        champion = standing[-1].version if standing else None
        entry = ledger.rollback(
            pipeline.name, instead_of or champion, actor, to=to or _before(pipeline.name, standing), reason=reason
        )
        changed = entry.version != champion
    return Rollback(
        pipeline=pipeline.name,
        version=entry.version,
        changed=changed,
        replaced=entry.expected if changed else None,
        run_id=entry.run_id,
        sequence=entry.sequence,
        endpoint=_settled(pipeline, entry, profile),
    )


def withdraw(pipeline: Pipeline, profile: Profile, actor: str, *, reason: str, version: str) -> None:
    """Leaves the pipeline without a champion: serving refuses its requests until a version is promoted or named.

    Args:
        version: The champion.

    Raises:
        ConflictError: The champion changed meanwhile.
        ServiceError: The ledger or MLflow does not answer.
    """
    Ledger(profile.ledger_url).rollback(pipeline.name, version, actor, reason=reason, withdraw=True)
    reconcile(pipeline.name, profile)


def _before(pipeline: str, standing: Sequence[Entry]) -> str:
    """Returns the version that was champion before the present one."""
    where = f"{pipeline}: rollback"
    if not standing:
        hint = f"`airworthy ledger show {pipeline}` lists the versions that were; name one with --to"
        raise ModelError(where, "needs a champion to roll back from", hint=hint)
    if len(standing) == 1:
        hint = f"Train another one: {pipeline}.train"
        raise ModelError(where, f"needs a champion before version {standing[0].version}; it is the first", hint=hint)
    return standing[-2].version


def _done_before(entries: Sequence[Entry], actor: str) -> Entry | None:
    done = next((entry for entry in reversed(entries) if entry.action == "rollback" and entry.actor == actor), None)
    now = next((entry for entry in reversed(entries) if entry.crowns), None)
    if done is not None and now is not None and done is not now:
        where = f"ledger: {done.pipeline}[{done.sequence}]"
        rule = f"{actor} has rolled back to version {done.version}; entry {now.sequence} came after it"
        raise ConflictError(
            where, rule, f"version {now.version or 'none'}", "Start another rollback if you still want it"
        )
    return done


def _settled(pipeline: Pipeline, entry: Entry, profile: Profile) -> str:
    """Returns where the entry's version answers, once MLflow's alias is on it, too.

    It is not taken back if its target stays silent: it has answered before, so the target is to blame.
    """
    problems: list[AirworthyError] = []
    endpoint = ""
    try:
        endpoint = pipeline.target.wait_until_live(entry, profile)
    except Exception as error:  # whatever a target raises, the alias follows the ledger
        told = str(error) if isinstance(error, AirworthyError) else f"{type(error).__name__}: {error}"
        where = f"rollback {pipeline.name}"
        rule = f"version {entry.version} is champion on the ledger, but must also answer"
        hint = f"{told} It stays champion and goes live once its target follows the ledger; run this again to see it"
        problems.append(ServiceError(where, rule, hint=hint))
    try:
        reconcile(pipeline.name, profile)
    except AirworthyError as error:
        problems.append(error)
    if problems:
        raise problems[0] if len(problems) == 1 else Problems(f"rollback {pipeline.name}", problems)
    return endpoint
