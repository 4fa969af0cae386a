"""What `airworthy ledger` and `airworthy rollback` are asked, and what they print and do."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from airworthy.errors import AirworthyError, ConfigError, ServiceError

if TYPE_CHECKING:
    from airworthy.config import Pipeline
    from airworthy.ledger import Entry
    from airworthy.profile import Profile
    from airworthy.registry import Registry
    from airworthy.verdict import Verdict

_HEAD = ("", "when", "action", "version", "replaced", "who", "approved by", "evidence", "reason")
_WHEN = "%Y-%m-%d %H:%M:%S"


def add_actions(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)

    def action(name: str, run: Callable[..., Iterator[str]], text: str, *, pipeline: str) -> argparse.ArgumentParser:
        added = actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        added.set_defaults(tell=run)
        hint = "the pipeline's name" if pipeline == "one" else "one pipeline; all of them by default"
        added.add_argument("pipeline", nargs=None if pipeline == "one" else "?", help=hint)
        return added

    action("show", _shown, "show every promotion and rollback of a pipeline", pipeline="one")
    action(
        "verify", _verified, "find what was changed behind the ledger's back; exit code 1 if anything", pipeline="any"
    )
    action("reconcile", _reconciled, "put MLflow's alias where the ledger says, e.g. after a crash", pipeline="any")
    added = action(
        "at", _in_production, "show which model was in production then, and on what evidence", pipeline="one"
    )
    added.add_argument("moment", metavar="DATE", help="e.g. 2013-06-01 (the whole day) or 2013-06-01T14:30, in UTC")


def add_rollback(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pipeline", help="the pipeline's name")
    parser.add_argument(
        "--to", default="", metavar="VERSION", help="a version that was champion; the one before by default"
    )
    parser.add_argument("--reason", default="", help="why, for the record")


def told(asked: argparse.Namespace, environment: Mapping[str, str]) -> Iterator[str]:
    """Yields what the asked action prints."""
    from airworthy.profile import load_profile

    yield from asked.tell(asked, load_profile(environment))


def rolled_back(pipeline: Pipeline, to: str, reason: str, environment: Mapping[str, str]) -> str:
    """Returns what to say once an earlier champion answers again, on the word of whoever is logged in here."""
    import getpass

    from airworthy.profile import load_profile
    from airworthy.stages.rollback import rollback

    done = rollback(pipeline, load_profile(environment), getpass.getuser(), to=to, reason=reason)
    place = f"and answers at {done.endpoint}"
    if not done.changed:
        return f"{pipeline.name}: version {done.version} is champion already, {place}"
    return f"{pipeline.name}: version {done.version} is champion again instead of {_named(done.replaced)}, {place}"


def _named(version: str | None) -> str:
    return f"version {version}" if version else "none"


def _shown(asked: argparse.Namespace, profile: Profile) -> Iterator[str]:
    from airworthy.terminal import lines

    rows = [
        (
            str(entry.sequence),
            f"{entry.at:{_WHEN}}",
            entry.action,
            entry.version or "none",
            entry.expected or "",
            entry.actor,
            entry.approved_by or "",
            entry.evidence[:12],
            (entry.reason or "").partition("\n")[0],
        )
        for entry in _entries(asked.pipeline, profile)
    ]
    yield from lines(_HEAD, rows)


def _verified(asked: argparse.Namespace, profile: Profile) -> Iterator[str]:
    from airworthy.stages.reconcile import verify

    for name, entries in verify(profile, asked.pipeline).items():
        crowned = next((entry.version for entry in reversed(entries) if entry.crowns), "")
        champion = f"version {crowned} is" if crowned else "there is no"
        yield f"{name}: {len(entries)} entries, unchanged; {champion} champion, in MLflow too"


def _reconciled(asked: argparse.Namespace, profile: Profile) -> Iterator[str]:
    from airworthy.ledger import Ledger
    from airworthy.stages.reconcile import reconcile

    for name in [asked.pipeline] if asked.pipeline else Ledger(profile.ledger_url).pipelines():
        reconcile(name, profile)
        champion = Ledger(profile.ledger_url).champion(name)
        told = f"MLflow's alias champion is on version {champion.version}" if champion else ""
        yield f"{name}: {told or 'there is no champion, and no alias'}"


def _in_production(asked: argparse.Namespace, profile: Profile) -> Iterator[str]:
    first, after = _span(asked.moment)
    every = _entries(asked.pipeline, profile)
    entries = [entry for entry in every if entry.crowns]
    until = [*(entry.at for entry in entries[1:]), None]
    found = [
        (entry, end)
        for entry, end in zip(entries, until, strict=True)
        if entry.at < after and (end is None or end > first)
    ]
    if not found or found[0][0].at > first:
        yield f"From the beginning until {found[0][0].at:{_WHEN}} UTC: no model" if found else "No model"
    for entry, end in found:
        promotions = (one for one in reversed(every[: entry.sequence]) if one.promotes and one.version == entry.version)
        yield from _described(entry, end, next(promotions, entry), profile)


def _described(entry: Entry, end: datetime | None, promotion: Entry, profile: Profile) -> Iterator[str]:
    from airworthy.registry import Registry

    span = f"{entry.at:{_WHEN}} UTC until {f'{end:{_WHEN}} UTC' if end else 'now'}"
    if not entry.version:
        yield f"{span}: no model; {entry.actor} rolled back from version {entry.expected}"
        return
    registry = Registry(profile)
    yield f"{span}: version {entry.version}"
    yield f"  {entry.action} by {entry.actor}" + (f", because: {entry.reason}" if entry.reason else "")
    yield f"  in place of version {entry.expected}" if entry.expected else "  in place of none"
    asked = f"approved by {promotion.approved_by}" if promotion.approved_by else "nobody was asked for approval"
    yield f"  {asked} when promoted, entry {promotion.sequence}"
    yield f"  trained as of {entry.as_of:%Y-%m-%d %H:%M} in {registry.run_url(entry.run_id)}"
    yield f"  model {entry.model_id}, SHA-256 {entry.digest}"
    yield f"  ledger entry {entry.sequence}, SHA-256 {entry.hash}"
    yield from _evidence(entry, registry)


def _evidence(entry: Entry, registry: Registry) -> Iterator[str]:
    try:
        folder, verdicts = _verdicts(entry, registry)
    except ServiceError as error:
        yield f"  evidence {entry.evidence}: {error}"
        return
    if not folder:
        yield f"  evidence {entry.evidence}: MLflow does not have these verdicts"
        return
    yield f"  evidence {entry.evidence}, in the run's artifacts under {folder}"
    for verdict in verdicts:
        yield f"    {verdict.gate} {verdict.status}: {verdict.reason}"


def _verdicts(entry: Entry, registry: Registry) -> tuple[str, list[Verdict]]:
    """Returns the stored verdicts that a promotion rests on, and their folder; "" if there are none with that hash."""
    from pydantic import TypeAdapter

    from airworthy.stages.evaluate import VERDICTS, verdicts_file
    from airworthy.verdict import Verdict

    with registry.answering():
        folders = [file.path for file in registry.client.list_artifacts(entry.run_id, "evidence") if file.is_dir]
    for folder in folders:
        for name in (verdicts_file(entry.evidence), VERDICTS):
            stored = registry.load_artifact(entry.run_id, f"{folder}/{name}")
            if stored is not None and hashlib.sha256(stored).hexdigest() == entry.evidence:
                return folder, TypeAdapter(list[Verdict]).validate_json(stored)
    return "", []


def _span(moment: str) -> tuple[datetime, datetime]:
    """Returns the moments between which a champion is asked for: a whole day, or one moment."""
    try:
        first = datetime.fromisoformat(moment)
    except ValueError:
        raise ConfigError("date", "must be like 2013-06-01 or 2013-06-01T14:30", moment) from None
    first = first.replace(tzinfo=first.tzinfo or UTC).astimezone(UTC)
    return first, first + (timedelta(days=1) if len(moment) <= len("2013-06-01") else timedelta(microseconds=1))


def _entries(pipeline: str, profile: Profile) -> Sequence[Entry]:
    from airworthy.ledger import Ledger

    ledger = Ledger(profile.ledger_url)
    if entries := ledger.entries(pipeline):
        return entries
    known = ", ".join(ledger.pipelines()) or "none yet"
    raise AirworthyError("ledger", f"must know the pipeline ({known})", pipeline)
