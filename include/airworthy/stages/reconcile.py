"""Reconcile: MLflow says what the ledger says, whatever crashed in between; the ledger decides."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

from airworthy.errors import AirworthyError, ModelError, Problems, ServiceError
from airworthy.ledger import Entry, Ledger
from airworthy.profile import Profile
from airworthy.registry import Registry

CHAMPION = "champion"
WITNESS = "airworthy.ledger"  # of the registered model: the last entry, as `<sequence>:<hash>`

_LOOKS = 10

log = logging.getLogger(__name__)


def reconcile(pipeline: str, profile: Profile) -> Entry | None:
    """Returns the ledger's last entry once MLflow's alias `champion` is on its version; None if there is no entry.

    Whoever appends to the ledger calls this afterwards. It looks at the ledger once more after it has moved the alias,
    so of several that do so at once the last one leaves what the ledger says.

    MLflow also keeps the last entry's hash. It is not touched if the ledger does not hold that entry any more, so that
    an end that was cut off can be found.

    Raises:
        ModelError: The ledger lacks an entry that MLflow remembers; the alias is on the ledger's champion all the same.
        ServiceError: MLflow or the ledger does not answer, or others keep moving the alias.
    """
    ledger, registry = Ledger(profile.ledger_url), Registry(profile)
    for _ in range(_LOOKS):
        remembered = _remembered(pipeline, registry)  # before the ledger, which holds what was remembered by then
        entries = ledger.entries(pipeline)
        version = _version(entries)
        if registry.alias(pipeline, CHAMPION) != version:
            registry.set_alias(pipeline, CHAMPION, version)
            log.info("%s: MLflow's alias %s is on version %s", pipeline, CHAMPION, version or "none")
        if lost := _lost(pipeline, entries, remembered):
            raise lost
        if entries and remembered != _witness(entries[-1]):
            _remember(entries[-1], registry)
        found = registry.alias(pipeline, CHAMPION)
        if found == version and len(ledger.entries(pipeline)) == len(entries):
            return entries[-1] if entries else None
    hint = f"Others keep moving it; the ledger decides, so run `airworthy ledger reconcile {pipeline}` later"
    raise ServiceError(f"MLflow alias {pipeline}@{CHAMPION}", f"must be on {version or 'no version'}", found, hint)


def verify(profile: Profile, pipeline: str | None = None) -> dict[str, list[Entry]]:
    """Returns the entries by pipeline, if all chains are whole and MLflow agrees with them.

    Args:
        profile: Where MLflow and the ledger are.
        pipeline: Only this one; by default all that the ledger or MLflow knows.

    Raises:
        Problems: Of each pipeline the first entry that breaks the chain, or else what MLflow says otherwise.
        ServiceError: MLflow or the ledger does not answer.
    """
    ledger, registry = Ledger(profile.ledger_url), Registry(profile)
    names = [pipeline] if pipeline else sorted({*ledger.pipelines(), *_remembered_pipelines(registry)})
    found: dict[str, list[Entry]] = {}
    problems: list[AirworthyError] = []
    for name in names:
        remembered = _remembered(name, registry)
        try:
            found[name] = ledger.verify(name)
        except ModelError as error:
            problems.append(error)
        else:
            problems += _contradictions(name, found[name], remembered, registry)
    if problems:
        raise Problems("ledger", problems)
    return found


def _contradictions(
    pipeline: str, entries: Sequence[Entry], remembered: str | None, registry: Registry
) -> Iterator[AirworthyError]:
    hint = f"Once no deployment is going on, `airworthy ledger reconcile {pipeline}` mends what one that crashed left"
    if lost := _lost(pipeline, entries, remembered):
        yield lost
        return
    if entries and remembered != _witness(entries[-1]):
        rule = f"must be the last entry that MLflow remembers, {(remembered or 'none').partition(':')[0]}"
        yield ModelError(f"ledger: {pipeline}[{entries[-1].sequence}]", rule, hint=hint)
    if (alias := registry.alias(pipeline, CHAMPION)) != (version := _version(entries)):
        where = f"MLflow alias {pipeline}@{CHAMPION}"
        yield ModelError(where, f"must be on {version or 'no version'}, as the ledger says", alias, hint)


def _remember(last: Entry, registry: Registry) -> None:
    with registry.answering():
        registry.client.set_registered_model_tag(last.pipeline, WITNESS, _witness(last))


def _remembered(pipeline: str, registry: Registry) -> str | None:
    from mlflow.exceptions import MlflowException

    with registry.answering():
        try:
            tags: dict[str, str] = registry.client.get_registered_model(pipeline).tags
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
    return tags.get(WITNESS)


def _remembered_pipelines(registry: Registry) -> Iterator[str]:
    """Yields those whose whole ledger may be gone."""
    token: str | None = ""
    while token is not None:
        with registry.answering():
            page = registry.client.search_registered_models(page_token=token or None)
        yield from (model.name for model in page if WITNESS in model.tags)
        token = page.token or None


def _lost(pipeline: str, entries: Sequence[Entry], remembered: str | None) -> ModelError | None:
    """Returns what to raise if the ledger does not hold the entry that MLflow remembers."""
    sequence = int(remembered.partition(":")[0]) if remembered else 0
    if sequence == 0 or (sequence <= len(entries) and _witness(entries[sequence - 1]) == remembered):
        return None
    hint = (
        "The ledger was changed outside Airworthy; restore it from a backup. If it is right as it is, delete the "
        f"tag {WITNESS} of the registered model"
    )
    got = entries[sequence - 1].hash if sequence <= len(entries) else "no such entry"
    return ModelError(f"ledger: {pipeline}[{sequence}]", "must be the entry that MLflow remembers", got, hint)


def _witness(entry: Entry) -> str:
    return f"{entry.sequence}:{entry.hash}"


def _version(entries: Sequence[Entry]) -> str | None:
    return next((entry.version or None for entry in reversed(entries) if entry.crowns), None)
