"""Operators that ask a person about rows in quarantine, and act on the answer."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from airflow.providers.standard.exceptions import HITLTimeoutError
from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import Param
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from airflow.sdk.execution_time.context import NEVER_EXPIRE
from airflow.utils.types import DagRunType

from airworthy.config import Pipeline
from airworthy.errors import DataError
from airworthy.partitions import write_duration
from airworthy.people import until_silence
from airworthy_airflow import links, reports
from airworthy_airflow.moments import partition_of, partitions_of
from airworthy_airflow.operators.stage import StageOperator, final_errors

_QUESTION = "question"


class QuestionsOperator(StageOperator):
    """Returns a run of `<pipeline>.quarantine` for each partition with rows that wait for a decision.

    Runs after a partition that is blocked, too.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(trigger_rule="all_done", **kwargs)

    def execute(self, context: Any) -> list[dict[str, Any]]:
        from airworthy.stages.question import question

        runs = []
        with final_errors():
            partitions = partitions_of(context, self.pipeline)
        for partition in partitions:
            try:
                asked = question(self.pipeline, partition, self.store)
            except DataError as not_validated:  # its own task has failed, and the others are asked about
                self.log.warning("%s", not_validated)
                continue
            if asked is not None and asked.waiting:
                self.log.info("%s: %s wait for a decision", partition.key, asked)
                runs.append({"trigger_run_id": asked.id, "conf": {"partition": partition.key}})
        return runs


def ask(pipeline: Pipeline, validation: Any) -> None:
    """Lets a DAG start `<pipeline>.quarantine` after `validation`, if the pipeline wants to be asked.

    A run is named after the rows, so that they are asked about once however often their partition is run
    again. No asset event does this, because Airflow joins several events into one run.
    """
    if not pipeline.quarantine.ask:
        return
    questions = QuestionsOperator(task_id="questions", pipeline=pipeline)
    validation.set_downstream(questions)
    TriggerDagRunOperator.partial(
        task_id="ask",
        trigger_dag_id=f"{pipeline.name}.quarantine",
        logical_date=None,
        skip_when_already_exists=True,
    ).expand_kwargs(questions.output)


class DecideRowsOperator(StageOperator, HITLOperator):
    """Waits, holding no slot, until a person has decided about rows in quarantine.

    No answer in time fails the task, and the rows stay where they are.
    """

    operator_extra_links = (links.ValidationResult(),)

    def __init__(self, *, pipeline: Pipeline, **kwargs: Any) -> None:
        kwargs.pop("params", None)  # Airflow passes those of the DAG, and an answer gives none of them
        reason = Param("", type=["null", "string"], maxLength=1000, source="task", description="Why, for the record")
        super().__init__(
            pipeline=pipeline,
            subject=f"{pipeline.name}: rows in quarantine",
            options=pipeline.quarantine.options,
            params={"reason": reason},
            assigned_users=[{"id": user, "name": user} for user in pipeline.quarantine.assigned_users],
            response_timeout=until_silence(pipeline.quarantine.answer_within),
            **kwargs,
        )

    def execute(self, context: Any) -> None:
        from airworthy.stages.question import describe, question
        from airworthy.stages.validate import page_path

        with final_errors():
            partition = partition_of(context, self.pipeline)
            page = reports.url(page_path(self.pipeline, partition))
            self.links[links.ValidationResult.__name__] = page
            asked = question(self.pipeline, partition, self.store)
            if asked is None:
                raise AirflowSkipException(f"{partition.key} has no rows in quarantine")
            if not asked.waiting and context["dag_run"].run_type == DagRunType.OPERATOR_TRIGGERED:
                raise AirflowSkipException(f"All rows of {partition.key} have been decided about meanwhile")
            self.subject = f"{self.pipeline.name} {partition.key}: {asked.rows} of {asked.raw.rows} rows in quarantine"
            self.body = describe(self.pipeline, asked, self.store, page)
        self._remember(context, asked)
        context["ti"].xcom_push(key=_QUESTION, value=asked.model_dump(mode="json"))
        super().execute(context)

    @staticmethod
    def _remember(context: Any, asked: Any) -> None:
        """Leaves on record which rows this task's page shows.

        Airflow goes on showing the first question of a task, also after the task was cleared.

        Raises:
            AirflowFailException: That one was about other rows.
        """
        shown = [asked.id, asked.raw.digest]
        before = context["task_state_store"].get(_QUESTION)
        if before is not None and before != shown:
            hint = "Trigger this DAG again with the partition, to be asked about these"
            raise AirflowFailException(f"Airflow goes on showing other rows, and by now there are {asked}. {hint}")
        context["task_state_store"].set(_QUESTION, shown, retention=NEVER_EXPIRE)

    def execute_complete(self, context: Any, event: dict[str, Any]) -> dict[str, Any]:
        try:
            answer = super().execute_complete(context, event)
        except HITLTimeoutError as silence:
            within = write_duration(self.pipeline.quarantine.answer_within)
            hint = "The rows stay in quarantine; trigger this DAG with the partition to be asked again"
            raise AirflowFailException(f"Nobody answered within {within}. {hint}") from silence
        who = answer["responded_by_user"]
        if who is None:
            raise AirflowFailException("An answer must come from a person. The rows stay in quarantine")
        return {
            "question": context["ti"].xcom_pull(task_ids=self.task_id, key=_QUESTION),
            "decision": answer["chosen_options"][0],
            "who": who["name"] or who["id"],
            "at": answer["responded_at"].isoformat(),
            "reason": answer["params_input"].get("reason") or "",
        }


class ApplyOperator(StageOperator):
    """Puts the answer on record and hands on the partition to be validated again.

    Args:
        answer: What `DecideRowsOperator` returned.
    """

    template_fields: Sequence[str] = ("answer",)

    def __init__(self, *, answer: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.answer = answer

    def execute(self, context: Any) -> list[dict[str, Any]]:
        from airworthy.stages.question import Question, decide

        asked = Question.model_validate(self.answer["question"])
        with final_errors():
            made = decide(
                self.pipeline,
                partition_of(context, self.pipeline),
                asked,
                self.answer["decision"],
                self.store,
                who=self.answer["who"],
                at=datetime.fromisoformat(self.answer["at"]),
                reason=self.answer["reason"],
                run=context["run_id"],
            )
        self.log.info("%s: %s", asked, made)
        return [asked.raw.model_dump(mode="json")]
