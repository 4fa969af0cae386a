"""`make demo`: a year of real flights, replayed through a real Airflow month by month.

Partitions come in by a backfill, training runs over REST, each `as_of` the first of a month, so that
every decision is made with what was known at the time.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx
from dateutil.relativedelta import relativedelta
from rich import box
from rich.console import Console
from rich.table import Table

from airworthy.airflow_api import AirflowApi, wait_for
from airworthy.config import Pipeline, load_pipeline
from airworthy.connections import from_environment
from airworthy.errors import ServiceError
from airworthy.partitions import partition_at
from airworthy.profile import Profile, load_profile, pipelines_dir

if TYPE_CHECKING:
    from airworthy.report import History

PIPELINE = "flight_delays"
MONTHS = tuple(datetime(2013, 4, 1, tzinfo=UTC) + relativedelta(months=number) for number in range(9))
_EVERY = 10.0  # seconds between two lines while waiting
LAST = datetime(2013, 12, 23, tzinfo=UTC)  # the week after it is what the live prediction is about


class Replay:
    """Drives one pipeline through its past, and tells what happens as it happens."""

    def __init__(self, pipeline: Pipeline, airflow: AirflowApi, console: Console) -> None:
        self.pipeline = pipeline
        self.airflow = airflow
        self.console = console
        self.started = time.monotonic()
        dags = [f"{pipeline.name}.{part}" for part in ("ingest", "train", "monitor")]
        airflow.wait_for_dags(*dags)
        for dag_id in dags:
            airflow.unpause(dag_id)

    def say(self, text: str) -> None:
        self.console.print(f"[dim]{time.monotonic() - self.started:4.0f} s[/dim]  {text}", soft_wrap=True)

    def backfill(self, last: datetime) -> None:
        """Starts the backfill of every partition up to one, as the dialog in Airflow's UI does, unless it runs."""
        dag_id, first = f"{self.pipeline.name}.ingest", self.pipeline.start
        told = f"backfill of [b]{dag_id}[/b], {first:%Y-%m-%d} to {last:%Y-%m-%d}"
        if self.airflow.backfilling(dag_id):
            self.say(f"{told}, goes on")
            return
        self.say(told)
        self.airflow.backfill(dag_id, first, last)

    def wait_for_partitions(self, before: datetime) -> None:
        """Returns once every partition that begins before a moment is there; tells how far it is every few seconds."""
        dag_id = f"{self.pipeline.name}.ingest"
        told = time.monotonic()

        def ready() -> bool | None:
            nonlocal told
            runs = self.airflow.runs(dag_id, logical_date_lt=before.isoformat())
            if time.monotonic() - told > _EVERY:
                done = sum(run["state"] == "success" for run in runs)
                self.say(f"{done} of {len(runs)} partitions before {before:%Y-%m-%d} are ingested and checked")
                told = time.monotonic()
            if failed := [run["logical_date"] for run in runs if run["state"] == "failed"]:
                hint = "Open the failed task's log in Airflow"
                raise ServiceError(dag_id, "must succeed for every partition", failed, hint)
            return True if runs and all(run["state"] == "success" for run in runs) else None

        wait_for(f"partitions before {before:%Y-%m-%d}", ready, timeout=600, pause=0.5)

    def train(self, as_of: datetime) -> None:
        dag_id = f"{self.pipeline.name}.train"
        run = self.airflow.wait(dag_id, self.airflow.trigger(dag_id, as_of=f"{as_of:%Y-%m-%d}"))
        self.tell_training(run["dag_run_id"], as_of)

    def tell_training(self, run_id: str, as_of: datetime, why: str = "") -> None:
        dag_id = f"{self.pipeline.name}.train"
        tasks = self.airflow.tasks(dag_id, run_id)
        if bad := [name for name, task in tasks.items() if task["state"] not in {"success", "skipped"}]:
            raise ServiceError(f"{dag_id} {run_id}", "must not fail", bad, "Open the task's log in Airflow")
        verdicts = self.airflow.xcom(dag_id, run_id, "gates")
        failed = [verdict["gate"] for verdict in verdicts if verdict["status"] != "passed"]
        if tasks["deploy"]["state"] == "success":
            outcome = f"[green]promoted[/green] as version {self.airflow.xcom(dag_id, run_id, 'deploy')['version']}"
        else:
            outcome = f"[yellow]refused[/yellow] by {', '.join(failed)}" if failed else "[yellow]not promoted[/yellow]"
        self.say(f"train as of {as_of:%Y-%m-%d}{why}: {outcome}")

    def monitor(self, moment: datetime) -> None:
        """Monitors the last partition before a moment; follows the retrain it may ask for."""
        dag_id = f"{self.pipeline.name}.monitor"
        partition = partition_at(self.pipeline.partition, moment - timedelta(days=8))
        known = {run["dag_run_id"] for run in self.airflow.runs(f"{self.pipeline.name}.train")}
        run = self.airflow.wait(dag_id, self.airflow.trigger(dag_id, partition=partition.key))
        if run["state"] != "success":
            raise ServiceError(f"{dag_id} {run['dag_run_id']}", "must not fail", hint="Open the task's log in Airflow")
        asked = self.airflow.tasks(dag_id, run["dag_run_id"])["decide"]["state"] == "success"
        if not asked:
            self.say(f"monitor {partition.key}: no retrain needed")
            return
        decision = self.airflow.xcom(dag_id, run["dag_run_id"], "decide")
        self.say(f"monitor {partition.key}: [magenta]retrain requested[/magenta], {decision['reason']}")

        def started() -> str | None:
            runs = self.airflow.runs(f"{self.pipeline.name}.train")
            return next((r["dag_run_id"] for r in runs if r["dag_run_id"] not in known), None)

        run_id = wait_for("the training run that the request starts", started, timeout=60)
        self.airflow.wait(f"{self.pipeline.name}.train", run_id)
        self.tell_training(run_id, datetime.fromisoformat(decision["as_of"]), ", as requested")


def live_prediction(pipeline: Pipeline, profile: Profile, console: Console) -> None:
    """Asks the serving process about one real flight and shows who answered."""
    week = partition_at(pipeline.partition, LAST + timedelta(weeks=1))
    rows = pipeline.source.extract(week, from_environment).frame()
    record = rows.drop(columns=[pipeline.label.column]).head(1).to_json(orient="records", date_format="iso")
    answer = httpx.post(
        f"{profile.serving_url}/invocations",
        params={"pipeline": pipeline.name},
        json={"dataframe_records": json.loads(record)},
        headers=profile.serving.headers(),
    )
    answer.raise_for_status()
    body = answer.json()
    console.print(
        f"Live prediction for flight {rows[pipeline.key[0]].iloc[0]}: [b]{body['predictions'][0]:.3f}[/b] chance of "
        f"being late, answered by version [b]{body['model_version']}[/b]",
        soft_wrap=True,
    )


def show_trainings(found: History, console: Console) -> None:
    """Prints a table with one line per training run."""
    title = f"Every training run: {found.pipeline.metric} on its holdout, the gates' verdicts"
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("as of", "challenger", "champion"):
        table.add_column(column, justify="left" if column == "as of" else "right", no_wrap=True)
    table.add_column("gates\npassed", no_wrap=True)
    table.add_column("outcome")
    for training in found.trainings:
        table.add_row(
            f"{training.challenger.as_of:%Y-%m-%d}",
            f"{training.challenger_score:.4f}",
            "-" if training.champion_score is None else f"{training.champion_score:.4f}",
            training.passed,
            f"[green]{training.result}[/green]" if training.promoted else f"[yellow]{training.result}[/yellow]",
        )
    console.print(table)


@contextmanager
def embedded_stack(console: Console) -> Iterator[Any]:
    """Leaves the stack running after a demo that succeeded; after one that did not, as it was before."""
    from airworthy.stack import down, find, up

    try:
        find()
        ran_before = True
    except ServiceError:
        ran_before = False
    stack = up(console.print)
    try:
        yield stack
    except BaseException:
        if not ran_before:
            down(console.print)
        raise


def run() -> None:
    """Runs the demo against the embedded stack; afterwards the stack stays up for a look around."""
    console = Console(highlight=False)
    pipeline = load_pipeline(pipelines_dir() / f"{PIPELINE}.yaml")
    with embedded_stack(console) as stack:
        replay = Replay(pipeline, AirflowApi(stack.airflow_url, "admin", stack.password), console)
        replay.backfill(LAST)
        for as_of in MONTHS:
            replay.wait_for_partitions(as_of)
            if as_of != MONTHS[0]:
                replay.monitor(as_of)
            replay.train(as_of)
        replay.wait_for_partitions(LAST + timedelta(weeks=1))
        _show(pipeline, stack, console)


def _show(pipeline: Pipeline, stack: Any, console: Console) -> None:
    from airworthy import report

    profile = load_profile(stack.environment)
    found = report.history(pipeline, profile)
    page = report.publish(found, profile)
    console.print()
    show_trainings(found, console)
    live_prediction(pipeline, profile, console)
    told = [
        "",
        f"Airflow   {stack.airflow_url}   user admin, password {stack.password}",
        f"MLflow    {stack.mlflow_url}",
        f"Serving   {stack.serving_url}",
        f"Report    {stack.airflow_url}/airworthy/reports/{pipeline.name}/history.html  (once logged in to Airflow)",
        f"Picture   {page}",
        "",
        "The picture shows the score by month of the champion, of blind retraining and of a static model.",
        "The stack keeps running for a look around; `make down` takes it down.",
    ]
    console.print("\n".join(told), soft_wrap=True)
