"""Turns declared pipelines into DAGs: what the files under `dags/` share."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Literal

from airflow.sdk import DAG, Param, get_parsing_context

from airworthy.config import Pipeline, load_all, load_pipeline
from airworthy.errors import Problems
from airworthy.profile import pipelines_dir

Part = Literal["ingest", "train", "monitor"]

_DOES = {
    "ingest": "Brings in one partition of raw rows, checks it, and publishes its features.",
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


def partition_param(pipeline: Pipeline) -> Param:
    """Returns the parameter with which a person or a REST client picks the partition of a run."""
    example = {"hour": "2013-01-07T05", "month": "2013-01-01"}.get(pipeline.partition, "2013-01-07")
    pattern = r"^\d{4}-\d{2}-\d{2}T\d{2}$" if pipeline.partition == "hour" else r"^\d{4}-\d{2}-\d{2}$"
    return Param(
        None,
        type=["null", "string"],
        pattern=pattern,
        title="Partition",
        description=f"The {pipeline.partition} to work on, named by its start, e.g. {example}. "
        "Empty: the run's own data interval.",
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
        "train": f"**train** `{pipeline.model.kind()}` with {pipeline.tune.trials} trials → **evaluate** on the last "
        f"out-of-time holdout → **gates** {gates} → **deploy** to `{pipeline.target.kind()}`. "
        "A backfill of this DAG is a walk-forward backtest: it never promotes.",
        "monitor": "**score** with the champion → **drift** against its training reference → **performance** where "
        "labels are known → **decide** whether to request a retrain.",
    }
    declared_in = f"Declared in `config/pipelines/{pipeline.name}.yaml`."
    return f"### {pipeline.name}\n{pipeline.description}\n\n{stages[part]}\n\n{declared_in}"
