"""`airworthy gameday <pipeline>`: a game day without Airflow."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from airworthy.errors import ConfigError
from airworthy.explain import meant
from airworthy.gameday import faults
from airworthy.profile import Profile, load_profile

if TYPE_CHECKING:
    from airworthy.config import Pipeline


def add(
    command: Callable[[str, object, str], argparse.ArgumentParser],
    pipeline: Callable[[argparse.Namespace], Pipeline],
    environment: Callable[[], Mapping[str, str]],
) -> None:
    """Adds the command; `pipeline` and `environment` find out what it is about, and where."""

    def asked(given: argparse.Namespace) -> int:
        profile = load_profile(environment())
        return 0 if run(pipeline(given), given.faults, profile, partial(print, flush=True)) else 1

    parser = command("gameday", asked, "put faults into a copy of a pipeline, to see that every alarm fires")
    parser.add_argument("pipeline", help="the pipeline's name")
    parser.add_argument("faults", nargs="*", metavar="fault", help="the faults' names; all of them by default")


def run(pipeline: Pipeline, names: Sequence[str], profile: Profile, say: Callable[[str], object]) -> bool:
    """Returns whether every alarm fired; tells what became of each fault, and where the page is.

    Raises:
        ConfigError: There is no such fault, or the pipeline cannot be copied.
        AirworthyError: The copy cannot be made or removed.
    """
    from airworthy.gameday.day import play
    from airworthy.gameday.making import make, remove
    from airworthy.gameday.page import GameDay, publish

    known = faults()
    for name in names:
        if name not in known:
            raise ConfigError("fault", f"must be one of {', '.join(known)}", name, meant(name, known))
    began, outcomes = datetime.now(UTC), []
    try:
        copy = make(pipeline, profile)
        say(f"{copy.name}: a copy with {', '.join(copy.coming)} to come")
        for name in names or known:
            outcomes.append(play(name, copy))
            say(f"{outcomes[-1].status:<7} {outcomes[-1].told or name}")
    finally:
        remove(pipeline.name, profile)
    day = GameDay(pipeline=pipeline.name, at=began, lent=copy.lent, outcomes=tuple(outcomes))
    say(f"Report: {publish(day, profile.reports_dir)}")
    return not day.failed
