"""`airworthy monitoring`, `retrains` and `alerts`: what monitoring found, asked for and told."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airworthy.config import Pipeline

Say = Callable[[str], object]
Declared = Callable[[argparse.Namespace], "Pipeline"]
Environment = Callable[[], Mapping[str, str]]


def add(
    command: Callable[..., argparse.ArgumentParser], declared: Declared, environment: Environment, say: Say
) -> None:
    """Adds the commands.

    Args:
        command: Adds one.
        declared: Returns the pipeline that is asked about.
        environment: Returns where the services are.
        say: Takes a line.
    """

    def monitoring(asked: argparse.Namespace) -> None:
        from airworthy import monitoring_page

        monitoring_page.run(declared(asked), environment(), say)

    def retrains(asked: argparse.Namespace) -> None:
        from airworthy import retrains

        retrains.run(declared(asked).name, environment(), say, quiet=asked.all)

    def alerts(asked: argparse.Namespace) -> None:
        from airworthy.alerts import incidents

        incidents.run(declared(asked).name, environment(), say)

    added = command("monitoring", monitoring, "write what monitoring found over time, and what followed, as a page")
    added.add_argument("pipeline", help="the pipeline's name")
    added = command("retrains", retrains, "show what asked for a retrain, what was requested, and what held it back")
    added.add_argument("pipeline", help="the pipeline's name")
    added.add_argument("--all", action="store_true", help="also the partitions that did not ask")
    added = command("alerts", alerts, "show who was told of which incident, and what was done about it")
    added.add_argument("pipeline", help="the pipeline's name")
