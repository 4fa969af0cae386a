"""`airworthy canary`: what the canaries of a pipeline have shown, and taking one back by hand."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airworthy.config import Pipeline
    from airworthy.ledger import Entry
    from airworthy.profile import Profile

_HEAD = ("when", "action", "version", "against", "answers", "days", "rows", "gain", "better", "worse", "why")


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pipeline", help="the pipeline's name")
    parser.add_argument("--stop", action="store_true", help="take the running canary back; the champion answers all")
    parser.add_argument("--reason", default="", help="why, for the record")


def run(
    asked: argparse.Namespace,
    of: Callable[[argparse.Namespace], Pipeline],
    environment: Callable[[], Mapping[str, str]],
    say: Callable[[str], object],
) -> None:
    """Tells every step of a pipeline's canaries, and what the running one has come to by now.

    Args:
        asked: The arguments of the command.
        of: Returns the pipeline that they name.
        environment: Returns where the services are.
        say: Prints a line.

    Raises:
        ConflictError: The canary to be stopped has gone on or ended meanwhile.
        ServiceError: The ledger or MLflow does not answer.
    """
    from airworthy.profile import load_profile

    pipeline, profile = of(asked), load_profile(environment())
    if asked.stop:
        import getpass

        from airworthy.stages.canary import stop

        taken = stop(pipeline, profile, getpass.getuser(), asked.reason)
        none = f"{pipeline.name}: no canary runs"
        say(f"{pipeline.name}: version {taken.version} is taken back; {taken.expected} answers all" if taken else none)
        return
    for line in _told(pipeline, profile):
        say(line)


def _told(pipeline: Pipeline, profile: Profile) -> Iterator[str]:
    from datetime import UTC, datetime

    from airworthy.ledger import Ledger
    from airworthy.terminal import lines

    ledger = Ledger(profile.ledger_url)
    steps = [entry for entry in ledger.entries(pipeline.name) if entry.canary is not None]
    if not steps:
        yield f"{pipeline.name}: there was no canary yet"
        return
    yield from lines(_HEAD, [_row(entry) for entry in steps])
    if running := ledger.canary(pipeline.name):
        from airworthy.stages.canary import judged

        found = judged(pipeline, running, profile, datetime.now(UTC))
        said = f"by now: {found.action.replace('_', ' ')}, {found.reason}"
        yield said
        if found.step.counts:
            counts = ", ".join(f"{count:.0f} {name}" for name, count in sorted(found.step.counts.items()))
            yield f"requests with rows for version {running.version}: {counts}"


def _row(entry: Entry) -> tuple[str, ...]:
    step = entry.step
    share = "in the shadow" if step.shadow and entry.challenges else f"{step.share:.0%}"
    numbers = (f"{step.days}", f"{step.rows}", f"{step.gain:+.5f}", f"{step.better:.3g}", f"{step.worse:.3g}")
    when, why = f"{entry.at:%Y-%m-%d %H:%M:%S}", (entry.reason or entry.actor).partition("\n")[0]
    return (when, entry.action, entry.version, entry.expected or "", share, *numbers, why)
