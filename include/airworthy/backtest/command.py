"""`airworthy backtest run|report|compare`: what a policy would have come to in the past."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airworthy.config import Pipeline
    from airworthy.profile import Profile

Say = Callable[[str], object]


def add(parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], object]) -> None:
    """Leaves the command's actions with the parser."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    def action(name: str, text: str) -> argparse.ArgumentParser:
        added = actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        added.set_defaults(run=run)
        added.add_argument("pipeline", help="the pipeline's name")
        return added

    added = action("run", "have Airflow train as of past dates and score what came after; then report")
    _add_policy(added)
    _add_dates(added, required=True)
    added = action("report", "replay the gates over the results on record, and write the page")
    _add_policy(added)
    _add_dates(added)
    added.add_argument("--json", action="store_true", help="for machines")
    added = action("compare", "say which of two policies is better, running what is missing")
    added.add_argument("policies", nargs=2, metavar="POLICY", help="`declared`, or a policy of the pipeline's file")
    _add_dates(added)


def run(asked: argparse.Namespace, pipeline: Pipeline, environment: Mapping[str, str], say: Say) -> None:
    """Does what was asked for.

    Args:
        asked: As the parser of `add` returned it.
        pipeline: As it is declared.
        environment: Where the services are.
        say: Prints a line.
    """
    from airworthy.profile import load_profile

    profile = load_profile(environment)
    policies = list(dict.fromkeys((asked.policies if asked.action == "compare" else asked.policy) or ()))
    for name in policies:
        pipeline.under(name)  # told before anything runs
    every = not policies
    policies = policies or list(pipeline.backtest.names)
    first, last = asked.first, asked.last
    if asked.action == "run":
        _drive(pipeline, profile, policies, first, last, say, again=True)
    elif asked.action == "compare":
        first, last = _known_dates(pipeline, profile, policies, first, last)
        _drive(pipeline, profile, policies, first, last, say, again=False)
    report(pipeline, profile, policies, first, last, say, as_json=getattr(asked, "json", False), partly=every)


def report(
    pipeline: Pipeline,
    profile: Profile,
    policies: Sequence[str],
    first: datetime | None,
    last: datetime | None,
    say: Say,
    *,
    as_json: bool = False,
    partly: bool = False,
) -> None:
    """Writes the page and prints what every policy came to.

    Args:
        first: The first day whose trainings count; None: of those on record.
        last: The last day, which counts.
        partly: Whether policies that are not on record are named and left out, if any other one is.
    """
    from airworthy.backtest import page
    from airworthy.backtest.accounts import accounts, on_record, to_run

    end = last and _end(last)
    missing = [name for name, runs in on_record(pipeline, policies, profile, first, end).items() if not runs]
    if not partly or len(missing) == len(policies):
        missing = []  # `accounts` refuses
    found = accounts(pipeline, [name for name in policies if name not in missing], profile, first, end)
    file = page.publish(found, profile)
    if as_json:
        say(json.dumps({**page.machine(found), "not_on_record": missing}, indent=1, default=str))
        return
    if missing:
        say(f"Not on record as declared now: {', '.join(missing)}. {to_run(pipeline, missing, first, last)}")
    for line in page.text(found):
        say(line)
    say(str(file))


def _drive(
    pipeline: Pipeline,
    profile: Profile,
    policies: Sequence[str],
    first: datetime,
    last: datetime,
    say: Say,
    *,
    again: bool,
) -> None:
    from airworthy.airflow_api import AirflowApi
    from airworthy.backtest.drive import Driver
    from airworthy.stack import find

    stack = find()
    airflow = AirflowApi(stack.airflow_url, "admin", stack.password)
    Driver(pipeline, airflow, profile, say).run(policies, first, last, again=again)


def _known_dates(
    pipeline: Pipeline, profile: Profile, policies: Sequence[str], first: datetime | None, last: datetime | None
) -> tuple[datetime, datetime]:
    """Returns the days asked for, else those that the policies have on record.

    Raises:
        ConfigError: None were asked for, and none are on record.
    """
    from airworthy.backtest import results
    from airworthy.errors import ConfigError
    from airworthy.store import Store

    store = Store(profile.store_uri, pipeline.name)
    found = [one.challenger.as_of for name in policies for one in results.read(pipeline.under(name), store)]
    if not found and not (first and last):
        hint = "Say --from and --to, e.g. --from 2013-04-01 --to 2013-12-01"
        raise ConfigError(f"{pipeline.name}: backtest", "must be on record, or its dates be given", hint=hint)
    return first or _day(min(found)), last or _day(max(found))


def _add_policy(parser: argparse.ArgumentParser) -> None:
    told = "`declared`, or a policy of the pipeline's file; may be given several times; all by default"
    parser.add_argument("--policy", action="append", help=told)


def _add_dates(parser: argparse.ArgumentParser, *, required: bool = False) -> None:
    told = "" if required else "; by default all on record"
    parser.add_argument("--from", dest="first", type=_date, metavar="DATE", required=required, help=f"first day{told}")
    parser.add_argument("--to", dest="last", type=_date, metavar="DATE", required=required, help=f"last day{told}")


def _date(text: str) -> datetime:
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a date, e.g. 2013-04-01. Got {text!r}.") from None


def _day(moment: datetime) -> datetime:
    return moment.replace(hour=0, minute=0, second=0, microsecond=0)


def _end(day: datetime) -> datetime:
    return day.replace(hour=23, minute=59, second=59)
