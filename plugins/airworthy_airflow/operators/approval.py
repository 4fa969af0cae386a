"""The operator that asks people to approve of a challenger, and hands their answers on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from airflow.providers.standard.exceptions import HITLTimeoutError
from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import Param
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from airflow.sdk.execution_time.context import NEVER_EXPIRE

from airworthy.config import Pipeline
from airworthy.errors import ConflictError
from airworthy.gates.approval import Approval, approval_of
from airworthy.partitions import write_duration
from airworthy.people import APPROVE, REJECT, until_silence
from airworthy_airflow import links, reports
from airworthy_airflow.moments import is_backtest
from airworthy_airflow.notifiers import tell
from airworthy_airflow.operators.model import ChallengerOperator
from airworthy_airflow.operators.stage import final_errors

_QUESTION = "question"


def approve(pipeline: Pipeline, challenger: Any, evaluation: Any, verdicts: Any) -> list[Any]:
    """Returns what people answer, who are asked one after another; nothing if no gate of the pipeline ever asks."""
    approval = approval_of(pipeline.gates)
    asked: list[ApproveOperator] = []
    for number in range(1, approval.people + 1 if approval else 1):
        assert approval is not None
        task = ApproveOperator(
            task_id="approve" if approval.people == 1 else f"approve_{number}",
            pipeline=pipeline,
            approval=approval,
            challenger=challenger,
            evaluation=evaluation,
            verdicts=verdicts,
        )
        task.set_upstream(asked[-1:])
        asked.append(task)
    return [task.output for task in asked]


class ApproveOperator(ChallengerOperator, HITLOperator):
    """Waits, holding no slot, until one more person has said whether the challenger may become champion.

    Skips where nobody's word matters: no gate asks, another one blocks, somebody has rejected, or in a backfill.
    No answer in time fails the task, and the champion stays.

    Args:
        approval: Who is asked, and how long they have.
        evaluation: What `EvaluateOperator` returned.
        verdicts: What `GateOperator` returned.
    """

    alerts_as = "approval"
    template_fields: Sequence[str] = ("challenger", "evaluation", "verdicts")
    operator_extra_links = (links.MlflowRun(), links.ModelCard())

    def __init__(
        self, *, pipeline: Pipeline, approval: Approval, evaluation: Any, verdicts: Any, **kwargs: Any
    ) -> None:
        kwargs.pop("params", None)  # Airflow passes those of the DAG, and an answer gives none of them
        text = {"type": ["null", "string"], "source": "task"}
        super().__init__(
            pipeline=pipeline,
            subject=f"{pipeline.name}: may the challenger become champion?",
            options=[APPROVE, REJECT],
            params={
                "reason": Param("", maxLength=1000, description="Why, for the record", **text),
                "evidence": Param("", maxLength=64, description="SHA-256 of the evidence the answer is about", **text),
            },
            assigned_users=[{"id": user, "name": user} for user in approval.assigned_users],
            response_timeout=until_silence(approval.answer_within),
            trigger_rule="none_failed",  # the person before may not have been asked
            **kwargs,
        )
        self.approval = approval
        self.evaluation = evaluation
        self.verdicts = verdicts

    def execute(self, context: Any) -> list[dict[str, Any]]:
        from airworthy.registry import Registry
        from airworthy.stages.approval_question import reason_not_to_ask
        from airworthy.stages.approvals import answers, refusal

        if is_backtest(context):
            raise AirflowSkipException("This run is a backtest: nobody is asked")
        with _final_conflicts():
            challenger, _, verdicts = self._judged()
            if reason := reason_not_to_ask(self.pipeline, challenger, verdicts, self.profile):
                raise AirflowSkipException(f"Nobody is asked: {reason}")
            asked = self._open_question(context)
            told = answers(asked, Registry(self.profile))
            refused = refusal(self.pipeline, told)
            if refused and any(not one.approved for one in told):
                raise AirflowSkipException(f"Nobody is asked: {refused}")
            if refused:
                self._ask(context, asked, told)
        return [one.model_dump(mode="json") for one in told]  # of a task that was cleared after the last answer

    def _ask(self, context: Any, asked: Any, told: list[Any]) -> None:
        """Waits for an answer: Airflow goes on in `execute_complete`."""
        from airworthy.registry import Registry
        from airworthy.stages.approval_question import describe

        challenger, evaluation, verdicts = self._judged()
        registry = Registry(self.profile)
        self.subject = f"{self.pipeline.name} {challenger.as_of:%Y-%m-%d}: may the challenger become champion?"
        self.body = describe(
            self.pipeline,
            challenger,
            evaluation,
            verdicts,
            registry,
            told=told,
            requester=context["dag_run"].triggering_user_name or "",
            pages=self._pages(challenger, registry),
        )
        said = {one.user for one in told}
        self.assigned_users = [user for user in self.assigned_users or () if user["id"] not in said]
        self.params["evidence"] = asked.evidence
        self._remember(context, asked)
        self._tell(context)
        HITLOperator.execute(self, context)

    def _tell(self, context: Any) -> None:
        from airworthy.stages.alarms import of_question

        task, users = context["ti"], [user["id"] for user in self.assigned_users or ()]
        asked = f"{task.task_id} of {task.dag_id}, {task.run_id}, try {task.try_number}"
        within = write_duration(self.approval.answer_within)
        tell(self.pipeline, of_question(self.pipeline, self.subject, asked, users, task.log_url, within), context)

    def execute_complete(self, context: Any, event: dict[str, Any]) -> list[dict[str, Any]]:
        from airworthy.registry import Registry
        from airworthy.stages.approvals import Answer, Question, record

        try:
            event["params_input"] = {"reason": "", "evidence": "", **(event.get("params_input") or {})}
            answer = super().execute_complete(context, event)
        except HITLTimeoutError as silence:
            within = write_duration(self.approval.answer_within)
            hint = "The champion stays; clear this task to ask again"
            raise AirflowFailException(f"Nobody answered within {within}. {hint}") from silence
        who = answer["responded_by_user"]
        if who is None:
            raise AirflowFailException("An answer must come from a person. The champion stays")
        asked = Question.model_validate(context["task_state_store"].get(_QUESTION))
        if answer["params_input"]["evidence"] != asked.evidence:
            hint = 'Clear this task to ask again, and answer with {"evidence": SHA-256}, as the page does'
            raise AirflowFailException(f"The answer is void, as it is not about evidence {asked.evidence}. {hint}")
        said = Answer(
            question=asked,
            approved=answer["chosen_options"] == [APPROVE],
            user=who["id"],
            name=who["name"] or who["id"],
            at=answer["responded_at"],
            reason=answer["params_input"]["reason"] or "",
            requester=context["dag_run"].triggering_user_name or "",
        )
        with _final_conflicts():
            told = record(self.pipeline, said, self._open_question(context), Registry(self.profile))
        self.log.info("%s", said)
        return [one.model_dump(mode="json") for one in told]

    def _judged(self) -> tuple[Any, Any, list[Any]]:
        """Returns challenger, evaluation and verdicts as they are now."""
        from airworthy.stages.evaluate import Evaluation
        from airworthy.verdict import Verdict

        verdicts = [Verdict.model_validate(verdict) for verdict in self.verdicts]
        return self.challenger_of_run(), Evaluation.model_validate(self.evaluation), verdicts

    def _open_question(self, context: Any) -> Any:
        from airworthy.stages.approval_question import open_question

        return open_question(self.pipeline, *self._judged(), self.profile, context["run_id"])

    def _pages(self, challenger: Any, registry: Any) -> dict[str, str]:
        from airworthy import card
        from airworthy.lineage.page import page_path

        return {
            "MLflow run": registry.run_url(challenger.run_id),
            "Model card": reports.url(card.page_path(self.pipeline, challenger.run_id)),
            "Lineage": reports.url(page_path(self.pipeline, challenger.run_id)),
        }

    def _remember(self, context: Any, asked: Any) -> None:
        """Leaves for `execute_complete` what is asked.

        Airflow shows the first question of a task for as long as its run exists, also after the task was cleared.

        Raises:
            AirflowFailException: That one was about something else.
        """
        from airworthy.stages.approvals import Question

        before = context["task_state_store"].get(_QUESTION)
        if before is not None and Question.model_validate(before) != asked:
            shown = f"Airflow goes on showing what this task asked first, about {Question.model_validate(before)}"
            hint = "Trigger the DAG again; a model that is trained already is used again"
            raise AirflowFailException(f"{shown}, and by now there is {asked}. {hint}")
        context["task_state_store"].set(_QUESTION, asked.model_dump(mode="json"), retention=NEVER_EXPIRE)


@contextmanager
def _final_conflicts() -> Iterator[None]:
    """Fails the task at once on conflicts too: another try would find the same answer about the same evidence."""
    with final_errors():
        try:
            yield
        except ConflictError as conflict:
            raise AirflowFailException(str(conflict)) from conflict
