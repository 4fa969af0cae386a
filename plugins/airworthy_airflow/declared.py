"""Turns declared pipelines into DAGs: what the files under `dags/` share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any, Literal

from airflow.sdk import DAG, Param, get_parsing_context

from airworthy.config import Pipeline, load_all, load_pipeline
from airworthy.errors import Problems
from airworthy.gameday import faults
from airworthy.gates.approval import approval_of
from airworthy.partitions import write_duration
from airworthy.policies import DECLARED
from airworthy.profile import pipelines_dir

Part = Literal["ingest", "quarantine", "train", "rollback", "monitor", "rebuild"]

_DOES = {
    "ingest": "Brings in one partition of raw rows, checks it, and publishes its features.",
    "quarantine": "Asks a person what becomes of one partition's rows in quarantine, and acts on it.",
    "train": "Trains a challenger, judges it through the gates, and deploys it if they all agree.",
    "rollback": "Makes a version that was champion before champion again, and waits until it answers.",
    "monitor": "Scores one partition with the champion and asks for a retrain when that helps.",
    "rebuild": "Trains a past champion again from its records, and fails unless it comes out the same.",
}

GAME_DAY = "game_day"
_GAME_DAY = """### Game day
**copy** a pipeline's newest partitions, with a champion of their own → **inject** one fault after the other, and
listen → **report** what had to fire and what did, and **remove** the copy. The pipeline itself is not touched: the copy
has a name, tables, a ledger, a registered model and a serving process of its own, and tells nobody. A fault whose alarm
stays silent fails the run. Each fault is a file in `include/airworthy/gameday/faults/`."""


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


def game_days() -> Iterator[list[str]]:
    """Yields the names of the pipelines that may be copied, if the DAG `game_day` is asked for and there are any."""
    if get_parsing_context().dag_id in (None, GAME_DAY) and (names := sorted(load_all(pipelines_dir())[0])):
        yield names


def game_day_dag(pipelines: Sequence[str]) -> DAG:
    """Returns the DAG `game_day`, whose parameters name a pipeline and the faults."""
    every = faults()
    pipeline = Param(
        pipelines[0], type="string", enum=[*pipelines], title="Pipeline", description="The pipeline to copy."
    )
    chosen = Param(
        every,
        type="array",
        items={"type": "string", "enum": every},
        examples=every,
        minItems=1,
        uniqueItems=True,
        title="Faults",
        description="What goes wrong in the copy, one after the other.",
    )
    return DAG(
        dag_id=GAME_DAY,
        dag_display_name="game day",
        description="Puts faults into a copy of a pipeline, and fails unless every alarm, gate and response fires.",
        schedule=None,
        doc_md=_GAME_DAY,
        tags={"airworthy", GAME_DAY},
        params={"pipeline": pipeline, "faults": chosen},
        max_active_runs=1,
        is_paused_upon_creation=False,
        default_args={"owner": "airworthy"},
    )


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
        # The last champion answers on after the last partition, and can be rolled back and rebuilt.
        end_date=None if part in ("rollback", "rebuild") else pipeline.end,
        default_args={
            "owner": pipeline.owner,
            "retries": 1,
            "retry_delay": timedelta(seconds=10),
        },
        render_template_as_native_obj=False,
        **{"catchup": pipeline.catchup, **arguments},
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


def policy_param(pipeline: Pipeline) -> Param:
    """Returns the parameter that says which of the declared policies a backtest follows."""
    return Param(
        DECLARED,
        type="string",
        enum=list(pipeline.backtest.names),
        title="Policy",
        description=f"How to train and judge in a backtest. Other than {DECLARED}, the run never promotes.",
    )


def rollback_params() -> dict[str, Param]:
    """Returns the parameters with which a person or an alert says where to roll back to, and why."""
    to = Param(
        None,
        type=["null", "string"],
        pattern=r"^\d+$",
        title="To version",
        description="A version that was champion, e.g. 3; twice is the same as once. Empty: the champion before.",
    )
    reason = Param(
        None, type=["null", "string"], maxLength=1000, title="Reason", description="Why, for the record on the ledger."
    )
    return {"to": to, "reason": reason}


def mlflow_run_param() -> Param:
    """Returns the parameter that has a finished training run judged in place of a new one."""
    return Param(
        None,
        type=["null", "string"],
        pattern=r"^[0-9a-f]{32}$",
        title="Training run",
        description="Judge this finished MLflow run of the pipeline, e.g. an imported one, instead of training. "
        "Empty: train.",
    )


def version_param() -> Param:
    """Returns the parameter that names a version of the model."""
    return Param(
        None,
        type=["null", "string"],
        pattern=r"^[1-9]\d{0,8}$",
        title="Version",
        description="A version in MLflow's registry, e.g. 3. Empty: a random past champion.",
    )


def _doc(pipeline: Pipeline, part: Part) -> str:
    gates = ", ".join(f"`{gate.kind()}`" for gate in pipeline.gates)
    stages = {
        "ingest": f"**ingest** a {pipeline.partition} from `{pipeline.source.kind()}` → **validate** "
        f"{len(pipeline.checks.expectations)} expectations, bad rows to quarantine → **process** into features.",
        "quarantine": _quarantine_doc(pipeline),
        "train": f"**train** `{pipeline.model.kind()}` with {pipeline.tune.trials} trials → **evaluate** on the last "
        f"out-of-time holdout → **gates** {gates} → {_approval_doc(pipeline)}**deploy** to `{pipeline.target.kind()}`. "
        "A backfill of this DAG is a walk-forward backtest: it never promotes.",
        "rollback": f"**rollback** to the champion before, or to the version named by `to`, and wait until "
        f"`{pipeline.target.kind()}` answers with it. What was champion when: `airworthy ledger show {pipeline.name}`.",
        "monitor": "**score** with the champion → **drift** against its training reference → **performance** where "
        "labels are known → **decide** whether to request a retrain.",
        "rebuild": "**rebuild** a random past champion, or the `version` you name, from the tables, declaration and "
        "seed on record. The version's tag `rebuild` says what came of it; where other files come out, the task fails "
        "and names what is not as it was: rows, code, libraries, machine. Nothing is registered.",
    }
    declared_in = f"Declared in `config/pipelines/{pipeline.name}.yaml`."
    return f"### {pipeline.name}\n{pipeline.description}\n\n{stages[part]}\n\n{declared_in}"


def _approval_doc(pipeline: Pipeline) -> str:
    approval = approval_of(pipeline.gates)
    if approval is None:
        return ""
    who = ", ".join(approval.assigned_users) or "whoever may edit runs"
    people = "1 person" if approval.people == 1 else f"{approval.people} people"
    within = write_duration(approval.answer_within)
    return f"**approve**: where a gate asks, {people} ({who}) must agree, each within {within} → "


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
