"""Operators of `<pipeline>.train`: train, evaluate, gates, deploy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from airworthy.errors import ConflictError
from airworthy_airflow import assets, links, reports
from airworthy_airflow.moments import as_of, is_backfill
from airworthy_airflow.operators.stage import StageOperator, final_errors


class TrainOperator(StageOperator):
    """Trains and tunes a challenger on what was known at the run's `as_of`."""

    operator_extra_links = (links.MlflowRun(), links.Lineage())

    def execute(self, context: Any) -> dict[str, Any]:
        from airworthy.lineage.marks import up_to_date
        from airworthy.lineage.page import page_path
        from airworthy.registry import Registry
        from airworthy.stages.train import train

        tags = {
            "airflow.dag_id": context["dag"].dag_id,
            "airflow.run_id": context["run_id"],
        }
        with final_errors():
            challenger = train(self.pipeline, as_of(context), self.profile, tags=tags)
            up_to_date(self.pipeline, self.profile, challenger.run_id)
        self.links[links.MlflowRun.__name__] = Registry(self.profile).run_url(challenger.run_id)
        self.links[links.Lineage.__name__] = reports.url(page_path(self.pipeline, challenger.run_id))
        return challenger.model_dump(mode="json")


class _ChallengerOperator(StageOperator):
    """Works on a trained challenger, and links to its MLflow run.

    Args:
        challenger: What `TrainOperator` returned.
    """

    template_fields: Sequence[str] = ("challenger",)
    operator_extra_links = (links.MlflowRun(),)

    def __init__(self, *, challenger: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.challenger = challenger

    def _challenger(self) -> Any:
        from airworthy.registry import Challenger, Registry

        challenger = Challenger.model_validate(self.challenger)
        self.links[links.MlflowRun.__name__] = Registry(self.profile).run_url(challenger.run_id)
        return challenger


class EvaluateOperator(_ChallengerOperator):
    """Scores challenger and champion on the same out-of-time holdout and stores the evidence."""

    def execute(self, context: Any) -> dict[str, Any]:
        from airworthy.ledger import Ledger
        from airworthy.stages.evaluate import evaluate

        with final_errors():
            challenger = self._challenger()
            champion = Ledger(self.profile.ledger_url).champion_at(
                self.pipeline.name, challenger.as_of, besides=challenger.run_id
            )
            evaluation = evaluate(self.pipeline, challenger, champion, self.profile)
        return evaluation.model_dump(mode="json")


class GateOperator(_ChallengerOperator):
    """Judges the evidence through every gate and stores the verdicts before anything acts on them.

    A refusal is a result, not a failure: the task succeeds and `DeployOperator` skips. A gate that
    could not judge fails the task.

    Args:
        evaluation: What `EvaluateOperator` returned.
    """

    template_fields: Sequence[str] = ("challenger", "evaluation")

    def __init__(self, *, evaluation: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.evaluation = evaluation

    def execute(self, context: Any) -> list[dict[str, Any]]:
        from airworthy.stages.evaluate import Evaluation, judge

        with final_errors():
            verdicts = judge(
                self.pipeline,
                self._challenger(),
                Evaluation.model_validate(self.evaluation),
                self.profile,
            )
        if errors := [f"{v.gate}: {v.reason}" for v in verdicts if v.status == "error"]:
            raise AirflowFailException(f"{len(errors)} gate(s) could not judge, which blocks: {'; '.join(errors)}")
        return [verdict.model_dump(mode="json") for verdict in verdicts]


class DeployOperator(_ChallengerOperator):
    """Makes the challenger champion and waits until its target answers with it; else skips, saying why.

    Args:
        evaluation: What `EvaluateOperator` returned.
        verdicts: What `GateOperator` returned.
    """

    template_fields: Sequence[str] = ("challenger", "evaluation", "verdicts")
    operator_extra_links = (links.MlflowRun(), links.Endpoint())

    def __init__(self, *, evaluation: Any, verdicts: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.evaluation = evaluation
        self.verdicts = verdicts

    def execute(self, context: Any) -> dict[str, Any]:
        from airworthy.lineage import facts
        from airworthy.stages.deploy import deploy
        from airworthy.stages.evaluate import Evaluation
        from airworthy.verdict import Verdict

        challenger = self._challenger()
        if is_backfill(context):
            raise AirflowSkipException("A backfill of a training DAG is a backtest: it never promotes")
        evaluation = Evaluation.model_validate(self.evaluation)
        verdicts = [Verdict.model_validate(verdict) for verdict in self.verdicts]
        with final_errors():
            try:
                release = deploy(
                    self.pipeline,
                    challenger,
                    evaluation,
                    verdicts,
                    self.profile,
                    actor=context["run_id"],
                )
            except ConflictError as conflict:
                # Judging again needs `evaluate` to run against the new champion, which a retry of this task cannot do.
                raise AirflowFailException(f"{conflict} Clear this run from `evaluate` on to judge again") from conflict
        self.log.info("%s: %s", release.action, release.reason)
        self.links[links.Endpoint.__name__] = release.endpoint
        if release.action != "promoted":
            raise AirflowSkipException(release.reason)
        with final_errors():
            made_from = facts.of_model(self.pipeline, challenger, self.profile)
        context["outlet_events"][assets.champion(self.pipeline)].extra = {
            "version": release.version,
            "replaced": release.replaced,
            "as_of": challenger.as_of.isoformat(),
            **made_from,
        }
        return release.model_dump(mode="json")
