"""The `airworthy` command. Each subcommand imports what it needs when it runs, so that `--help` is instant."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from airworthy import canary_command, ledger_command, monitoring_command
from airworthy.backtest import command as backtest
from airworthy.errors import AirworthyError
from airworthy.exchange import command as exchange
from airworthy.gameday import command as gameday

if TYPE_CHECKING:
    from airworthy.config import Pipeline

# Progress must be seen as it happens, also through a pipe.
say = partial(print, flush=True)

Command = Callable[[str, object, str], argparse.ArgumentParser]  # name, what runs, what it does


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code: 0 done, 1 a problem (told on stderr), 130 Ctrl-C, 141 nobody reads."""
    asked = _parser().parse_args(arguments)
    from airworthy.stack.lifecycle import ending_signals_raise

    try:
        with ending_signals_raise():
            return int(asked.run(asked) or 0)
    except AirworthyError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader has seen enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still buffered goes there at exit
        return 141


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="airworthy", description="Apache Airflow for continuous training.")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name: str, run: object, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        added.set_defaults(run=run)
        return added

    added = command("up", _up, "start PostgreSQL, MLflow, Airflow and serving, and wait until they answer")
    added.add_argument("--foreground", action="store_true", help="stay until Ctrl-C, then take everything down")
    command("down", _down, "take everything down; the state is kept")
    command("status", _status, "show every component: state, process, uptime, memory, address")
    added = command("logs", _logs, "show the end of the logs")
    added.add_argument("component", nargs="?", help="one component's log; all of them by default")
    added.add_argument("-f", "--follow", action="store_true", help="go on as the logs grow, until Ctrl-C")
    added = command("check", _check, "read the pipeline files and list every problem")
    added.add_argument("name", nargs="?", help="one pipeline; all of them by default")
    command("schema", _schema, "write config/pipeline.schema.json, which editors check pipeline files with")
    added = command("new", _new, "write a commented starter pipeline that runs as it is")
    added.add_argument("name", help="lower case letters, digits and underscores, e.g. churn")
    command("demo", _demo, "replay a year of real flights through the whole loop")
    _add_reading(command)
    _add_models(command)
    return parser


def _add_reading(command: Command) -> None:
    """Adds what shows data and what became of it."""
    added = command("report", _report, "write a pipeline's history as a page: every training run and verdict")
    added.add_argument("pipeline", help="the pipeline's name")
    added = command("card", _card, "write the model card of a version as a page")
    added.add_argument("pipeline", help="the pipeline's name")
    added.add_argument("version", help="a version in MLflow's registry, e.g. 3")
    _add_quarantine(command("quarantine", _quarantine, "inspect rows in quarantine, and decide about them"))
    added = command(
        "profile", _profile, "write what a partition looks like as a page: distributions, what tells the label"
    )
    added.add_argument("pipeline", help="the pipeline's name")
    added.add_argument("partition", nargs="?", help="the partition's key; the newest one by default")
    added = command("validations", _validations, "show what became of a pipeline's expectations over time")
    added.add_argument("pipeline", help="the pipeline's name")
    added.add_argument("--expectation", default="", help="only those whose name or columns hold this text")
    added.add_argument("--failed", action="store_true", help="only those that do not hold or could not be judged")
    _add_lineage(
        command("lineage", _lineage, "show what a model was made from, what was made from data, and what is stale")
    )


def _add_models(command: Command) -> None:
    """Adds what is about versions, and what decides about them."""
    added = command("rebuild", _rebuild, "train a version again from its recorded data, and tell what differs")
    added.add_argument("pipeline", help="the pipeline's name")
    added.add_argument("version", help="a version in MLflow's registry, e.g. 3")
    added.add_argument("--to", type=Path, help="a new folder that gets the model's files; by default none is kept")
    exchange.add(command, _environment)
    ledger_command.add_actions(command("ledger", _ledger, "show, verify or reconcile the record of every promotion"))
    ledger_command.add_rollback(command("rollback", _rollback, "let a version that was champion before answer again"))
    _add_tradeoff(command("tradeoff", _tradeoff, "weigh the models of a search: accuracy against latency and size"))
    added = command("budget", _budget, "show what comparisons drew from a pipeline's error budget, and what is left")
    added.add_argument("pipeline", help="the pipeline's name")
    added.add_argument("--as-of", default="", help="what a look at this moment finds left; now by default")
    monitoring_command.add(command, _pipeline, _environment, say)
    added = command("resources", _resources, "show what every stage took: time, processors and memory, and what grew")
    added.add_argument("pipeline", help="the pipeline's name")
    added.add_argument("--stage", default="", help="one stage, e.g. train; all of them by default")
    added.add_argument("--last", type=int, default=30, help="how many runs of each; 30 by default")
    added.add_argument("--json", action="store_true", help="for machines, with every run")
    tried = partial(canary_command.run, of=_pipeline, environment=_environment, say=say)
    canary_command.add(command("canary", tried, "show what a challenger beside the champion has shown, or stop it"))
    gameday.add(command, _pipeline, _environment)
    backtest.add(command("backtest", None, "try policies of training and judging on the past"), _backtest)
    _add_contract(command("contract", None, "show, learn, compare or amend the schema contract of raw data"))


def _add_tradeoff(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pipeline", help="the pipeline's name")
    parser.add_argument("--run", dest="mlflow_run", default="", help="an MLflow run's id, or how it begins")
    parser.add_argument("--latency-ms", type=float, help="at most so long for one row; default: tune.limits")
    parser.add_argument("--size-mb", type=float, help="at most so large a model file; default: tune.limits")


def _add_contract(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)

    def action(name: str, run: object, text: str) -> argparse.ArgumentParser:
        added = actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        added.set_defaults(run=run)
        added.add_argument("pipeline", help="the pipeline's name")
        return added

    action("show", _contract_show, "show the contract")
    added = action("learn", _contract_learn, "write a contract that partitions of the raw table fulfil")
    added.add_argument("partitions", nargs="*", metavar="partition", help="learn from these; all by default")
    added.add_argument("--force", action="store_true", help="replace the contract that is there")
    added = action("diff", _contract_diff, "compare what the source gives with the contract; exit code 1 if it differs")
    added.add_argument("partition", nargs="?", help="the partition's key; the newest in the raw table by default")
    added = action("accept", _contract_accept, "take what a partition changed into the contract")
    added.add_argument("partition", help="the partition's key")


def _add_quarantine(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    added = actions.add_parser("list", help="the partitions that have rows in quarantine, and why")
    added.add_argument("pipeline", nargs="?", help="one pipeline; all of them by default")
    added = actions.add_parser("show", help="the rows of a partition with what they fail")
    added.add_argument("--limit", type=int, default=20, help="how many rows; 20 by default")
    deciding = actions.add_parser("decide", help="put a decision about a partition's rows on record")
    for action in (added, deciding):
        action.add_argument("pipeline", help="the pipeline's name")
        action.add_argument("partition", help="the partition's key, e.g. 2013-01-07")
    deciding.add_argument("decision", help="drop, release or repair:<name>")
    deciding.add_argument("--reason", default="", help="why, for the record")


def _add_lineage(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pipeline", help="the pipeline's name")
    asked = parser.add_mutually_exclusive_group()
    asked.add_argument("--model-version", help="a version in MLflow's registry, e.g. 3: back to tables and files")
    asked.add_argument("--run", dest="mlflow_run", help="an MLflow run's id, or how it begins")
    asked.add_argument("--partition", help="e.g. 2013-03-04: on to features, models and champions")
    asked.add_argument("--file", help="a file, table or query by name; wildcards may stand in it")
    parser.add_argument("--json", action="store_true", help="for machines")


def _up(asked: argparse.Namespace) -> None:
    from airworthy.stack.foreground import up

    up(say, stay=asked.foreground)


def _down(_: argparse.Namespace) -> None:
    from airworthy.stack import down

    down(say)


def _status(_: argparse.Namespace) -> int:
    from airworthy.stack.status import show

    return 0 if show(say) else 1


def _logs(asked: argparse.Namespace) -> int:
    from airworthy.stack.logs import show

    return show(asked.component, follow=asked.follow)


def _check(asked: argparse.Namespace) -> int:
    from airworthy.config import load_all, load_pipeline
    from airworthy.profile import pipelines_dir

    folder = pipelines_dir()
    if asked.name is not None:
        load_pipeline(folder / f"{asked.name}.yaml")
        say(f"{asked.name}: fine")
        return 0
    healthy, broken = load_all(folder)
    for name in sorted({*healthy, *broken}):
        say(f"{name}: fine" if name in healthy else f"{name}: broken\n{broken[name]}")
    return int(bool(broken))


def _schema(_: argparse.Namespace) -> None:
    import json

    from airworthy.profile import config_dir
    from airworthy.schema import schema

    file = config_dir() / "pipeline.schema.json"
    file.write_text(json.dumps(schema(), indent=2) + "\n", encoding="utf-8")
    say(f"Wrote {_shown(file)}")


def _new(asked: argparse.Namespace) -> None:
    from airworthy.profile import ROOT
    from airworthy.starter import write_starter

    for file in write_starter(asked.name, ROOT):
        say(f"Wrote {_shown(file)}")


def _demo(_: argparse.Namespace) -> None:
    from airworthy import demo

    demo.run()


def _report(asked: argparse.Namespace) -> None:
    from airworthy import report

    report.run(asked.pipeline, _environment())


def _card(asked: argparse.Namespace) -> None:
    from airworthy import card
    from airworthy.profile import load_profile

    say(card.run(_pipeline(asked), asked.version, load_profile(_environment())))


def _profile(asked: argparse.Namespace) -> None:
    from airworthy import profile_page

    profile_page.run(asked.pipeline, _environment(), asked.partition)


def _validations(asked: argparse.Namespace) -> None:
    from airworthy import validations

    validations.run(asked.pipeline, _environment(), asked.expectation, failed=asked.failed)


def _lineage(asked: argparse.Namespace) -> None:
    from airworthy.lineage import trace

    trace.run(
        asked.pipeline,
        _environment(),
        as_json=asked.json,
        model_version=asked.model_version,
        run=asked.mlflow_run,
        partition=asked.partition,
        origin=asked.file,
    )


def _rebuild(asked: argparse.Namespace) -> int:
    from airworthy.stages import rebuild

    return 0 if rebuild.run(asked.pipeline, _environment(), asked.version, asked.to) else 1


def _ledger(asked: argparse.Namespace) -> None:
    for line in ledger_command.told(asked, _environment()):
        say(line)


def _rollback(asked: argparse.Namespace) -> None:
    say(ledger_command.rolled_back(_pipeline(asked), asked.to, asked.reason, _environment()))


def _tradeoff(asked: argparse.Namespace) -> None:
    from pydantic import ValidationError

    from airworthy import tradeoff
    from airworthy.errors import Problems
    from airworthy.explain import explain
    from airworthy.tune import Limits

    try:
        limits = Limits(latency_ms=asked.latency_ms, size_mb=asked.size_mb)
    except ValidationError as error:
        raise Problems("airworthy tradeoff", explain("airworthy tradeoff", error)) from None
    tradeoff.run(asked.pipeline, _environment(), asked.mlflow_run, limits)


def _budget(asked: argparse.Namespace) -> None:
    from airworthy import budget

    budget.run(_pipeline(asked), _environment(), asked.as_of, say)


def _resources(asked: argparse.Namespace) -> None:
    from airworthy import resource_log

    resource_log.run(_pipeline(asked).name, _environment(), say, stage=asked.stage, last=asked.last, as_json=asked.json)


def _backtest(asked: argparse.Namespace) -> None:
    backtest.run(asked, _pipeline(asked), _environment(), say)


def _contract_show(asked: argparse.Namespace) -> None:
    from airworthy.contracts import command

    command.show(_pipeline(asked), say)


def _contract_learn(asked: argparse.Namespace) -> None:
    from airworthy.contracts import command

    command.learn_from_raw(_pipeline(asked), asked.partitions, _environment(), say, force=asked.force)


def _contract_diff(asked: argparse.Namespace) -> int:
    from airworthy.contracts import command

    pipeline = _pipeline(asked)
    return int(command.diff(pipeline, asked.partition or command.newest(pipeline, _environment()), say))


def _contract_accept(asked: argparse.Namespace) -> None:
    from airworthy.contracts import command

    command.accept(_pipeline(asked), asked.partition, say)


def _pipeline(asked: argparse.Namespace) -> Pipeline:
    from airworthy.config import load_pipeline
    from airworthy.profile import pipelines_dir

    return load_pipeline(pipelines_dir() / f"{asked.pipeline}.yaml")


def _environment() -> Mapping[str, str]:
    """Returns where the services are; only a stack's own processes are told."""
    from airworthy.stack import find

    return os.environ if "AIRWORTHY_LEDGER_URL" in os.environ else find().environment


def _quarantine(asked: argparse.Namespace) -> None:
    from airworthy import quarantine_command as command
    from airworthy.config import load_all
    from airworthy.profile import load_profile, pipelines_dir

    profile = load_profile(_environment())
    if asked.pipeline is None:
        lines = command.listed(load_all(pipelines_dir())[0].values(), profile)
    else:
        pipeline = _pipeline(asked)
        lines = {
            "list": lambda: command.listed([pipeline], profile),
            "show": lambda: command.shown(pipeline, asked.partition, asked.limit, profile),
            "decide": lambda: command.decided(pipeline, asked.partition, asked.decision, asked.reason, profile),
        }[asked.action]()
    for line in lines:
        say(line)


def _shown(file: Path) -> Path:
    return file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file


if __name__ == "__main__":
    sys.exit(main())
