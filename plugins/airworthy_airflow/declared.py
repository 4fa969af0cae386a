"""Turns declared pipelines into DAGs: what the files under `dags/` share."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Literal

from airflow.sdk import DAG, Param, get_parsing_context

from airworthy.config import Pipeline, load_all, load_pipeline
from airworthy.errors import Problems
from airworthy.partitions import write_duration
from airworthy.profile import pipelines_dir

Part = Literal["ingest", "quarantine", "train", "monitor"]

_DOES = {
    "ingest": "Brings in one partition of raw rows, checks it, and publishes its features.",
    "quarantine": "Asks a person what becomes of one partition's rows in quarantine, and acts on it.",
    "train": "Trains a challenger, judges it through the gates, and deploys it if they all agree.",
    "monitor": "Scores one partition with the champion and asks for a retrain when that helps.",
}


def declared(part: Part) -> Iterator[Pipeline]:
    """Yields the healthy pipelines; in a task's process only the one whose DAG the task belongs to.

    A broken file is left to `dags/config_errors.py`, so that it takes no other pipeline down.
    """
    wanted = get_parsing_context().dag_id
    if wanted is None:
        yield from load_all(pipelines_dir())[0].values()
        return
    name, _, wanted_part = wanted.rpartition(".")
    file = pipelines_dir() / f"{name}.yaml"
    if wanted_part == part and file.exists():
        try:
            yield load_pipeline(file)
        except Problems:
            return


def pipeline_dag(pipeline: Pipeline, part: Part, *, schedule: Any, **arguments: Any) -> DAG:
    """Returns the DAG `<pipeline>.<part>` with everything that is the same for all of them."""
    return DAG(
        dag_id=f"{pipeline.name}.{part}",
        dag_display_name=f"{pipeline.name} · {part}",
        description=_DOES[part],
        schedule=schedule,
        doc_md=_doc(pipeline, part),
        tags={"airworthy", pipeline.name, part, *pipeline.tags},
        start_date=pipeline.start,
        end_date=pipeline.end,
        catchup=pipeline.catchup,
        default_args={
            "owner": pipeline.owner,
            "retries": 1,
            "retry_delay": timedelta(seconds=10),
        },
        render_template_as_native_obj=False,
        **arguments,
    )


def partition_param(pipeline: Pipeline, *, required: bool = False) -> Param:
    """Returns the parameter with which a person or a REST client picks the partition of a run."""
    example = {"hour": "2013-01-07T05", "month": "2013-01-01"}.get(pipeline.partition, "2013-01-07")
    pattern = r"^\d{4}-\d{2}-\d{2}T\d{2}$" if pipeline.partition == "hour" else r"^\d{4}-\d{2}-\d{2}$"
    described = f"The {pipeline.partition} to work on, named by its start, e.g. {example}."
    if required:
        return Param(type="string", pattern=pattern, title="Partition", description=described)
    return Param(
        None,
        type=["null", "string"],
        pattern=pattern,
        title="Partition",
        description=f"{described} Empty: the run's own data interval.",
    )


def as_of_param() -> Param:
    """Returns the parameter that replays a past moment: the run sees only what was known then."""
    return Param(
        None,
        type=["null", "string"],
        pattern=r"^\d{4}-\d{2}-\d{2}$",
        title="As of",
        description="Train as if today were this date, e.g. 2013-06-01. Empty: the run's own date.",
    )


def _doc(pipeline: Pipeline, part: Part) -> str:
    gates = ", ".join(f"`{gate.kind()}`" for gate in pipeline.gates)
    stages = {
        "ingest": f"**ingest** a {pipeline.partition} from `{pipeline.source.kind()}` → **validate** "
        f"{len(pipeline.checks.expectations)} expectations, bad rows to quarantine → **process** into features.",
        "quarantine": _quarantine_doc(pipeline),
        "train": f"**train** `{pipeline.model.kind()}` with {pipeline.tune.trials} trials → **evaluate** on the last "
        f"out-of-time holdout → **gates** {gates} → **deploy** to `{pipeline.target.kind()}`. "
        "A backfill of this DAG is a walk-forward backtest: it never promotes.",
        "monitor": "**score** with the champion → **drift** against its training reference → **performance** where "
        "labels are known → **decide** whether to request a retrain.",
    }
    declared_in = f"Declared in `config/pipelines/{pipeline.name}.yaml`."
    return f"### {pipeline.name}\n{pipeline.description}\n\n{stages[part]}\n\n{declared_in}"


def _quarantine_doc(pipeline: Pipeline) -> str:
    rule = pipeline.quarantine
    comes = (
        "The question comes by itself, once for the same rows; 16 are open at a time."
        if rule.ask
        else "Trigger it with a partition to be asked; `quarantine: {ask: true}` makes the question come by itself."
    )
    options = ", ".join(f"`{option}`" for option in rule.options)
    within = write_duration(rule.answer_within)
    return (
        f"**decide**: a person sees which rows fail what, and answers {options} within {within} → **apply** puts the "
        "answer on record → **validate** and **process** this partition again. Without an answer the rows stay in "
        "quarantine. An answer holds for exactly the rows it is about, also in a rerun or a backfill; other rows need "
        f"another. {comes} What was decided: `airworthy quarantine list {pipeline.name}`."
    )
