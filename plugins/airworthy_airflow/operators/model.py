"""Operators of `<pipeline>.train`: train, evaluate, gates, deploy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from airflow.utils.types import DagRunType

from airworthy.errors import ConflictError
from airworthy_airflow import assets, links, reports
from airworthy_airflow.moments import as_of, is_backtest, policy
from airworthy_airflow.notifiers import tell
from airworthy_airflow.operators.stage import StageOperator, final_errors


class TrainOperator(StageOperator):
    """Trains and tunes a challenger on what was known at the run's `as_of`, or takes the finished run it is given."""

    alerts_as = "train"
    operator_extra_links = (links.MlflowRun(), links.Lineage())

    def execute(self, context: Any) -> dict[str, Any]:
        from airworthy.backtest import runs
        from airworthy.lineage.marks import up_to_date
        from airworthy.lineage.page import page_path
        from airworthy.registry import Registry
        from airworthy.stages.finished import finished
        from airworthy.stages.train import train

        tags = {
            "airflow.dag_id": context["dag"].dag_id,
            "airflow.run_id": context["run_id"],
        }
        with final_errors():
            run_id = context["params"].get("mlflow_run")
            if run_id and is_backtest(context):
                raise AirflowFailException("A backtest trains by itself: mlflow_run must be empty")
            if not is_backtest(context):
                self._record(context)
            if is_backtest(context):
                challenger = runs.train(self.pipeline, policy(context), as_of(context), self.profile, tags=tags)
            elif run_id:
                challenger = finished(self.pipeline, run_id, as_of(context), self.profile)
            else:
                challenger = train(self.pipeline, as_of(context), self.profile, tags=tags)
            if not challenger.backtest:
                up_to_date(self.pipeline, self.profile, challenger.run_id)
                self.links[links.Lineage.__name__] = reports.url(page_path(self.pipeline, challenger.run_id))
        self.links[links.MlflowRun.__name__] = Registry(self.profile).run_url(challenger.run_id)
        return challenger.model_dump(mode="json")

    def _record(self, context: Any) -> None:
        """Leaves on record that a training began without a request: the next request waits for a while after it."""
        from airworthy.retrains import Retrains

        causes = {DagRunType.SCHEDULED.value: "schedule", DagRunType.MANUAL.value: "person"}
        if cause := causes.get(context["dag_run"].run_type):
            actor = f"{self.dag_id} {context['run_id']}"
            Retrains(self.profile.ledger_url).began(self.pipeline.name, cause, as_of(context), actor)


class ChallengerOperator(StageOperator):
    """Works on a trained challenger, and links to its MLflow run.

    Args:
        challenger: What `TrainOperator` returned.
    """

    template_fields: Sequence[str] = ("challenger",)
    operator_extra_links = (links.MlflowRun(),)

    def __init__(self, *, challenger: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.challenger = challenger

    def challenger_of_run(self) -> Any:
        from airworthy.registry import Challenger, Registry

        challenger = Challenger.model_validate(self.challenger)
        self.links[links.MlflowRun.__name__] = Registry(self.profile).run_url(challenger.run_id)
        return challenger

    def _write_card(self, run_id: str) -> None:
        """Leaves the model card as it is now; a card that cannot be drawn keeps no model from production."""
        from airworthy import card

        try:
            card.publish(self.pipeline, run_id, self.profile)
        except Exception:
            self.log.exception("The model card was not written; `airworthy card` tries again")
        else:
            self.links[links.ModelCard.__name__] = reports.url(card.page_path(self.pipeline, run_id))


class EvaluateOperator(ChallengerOperator):
    """Scores challenger and champion on the same out-of-time holdout and stores the evidence.

    In a backtest the challenger stands alone, and is also scored on what came after.
    """

    alerts_as = "train"

    def execute(self, context: Any) -> dict[str, Any]:
        from airworthy.backtest import runs
        from airworthy.ledger import Ledger
        from airworthy.stages.evaluate import evaluate

        with final_errors():
            challenger = self.challenger_of_run()
            if is_backtest(context):
                found = runs.evaluate(self.pipeline, policy(context), challenger, self.profile)
                return found.model_dump(mode="json")
            ledger = Ledger(self.profile.ledger_url)
            judged_at = len(ledger.entries(self.pipeline.name))
            champion = ledger.champion_at(self.pipeline.name, challenger.as_of, besides=challenger.run_id)
            evaluation = evaluate(self.pipeline, challenger, champion, self.profile)
        return evaluation.model_copy(update={"judged_at": judged_at}).model_dump(mode="json")


class GateOperator(ChallengerOperator):
    """Judges the evidence through every gate and stores the verdicts before anything acts on them.

    A refusal is a result, not a failure: the task succeeds and `DeployOperator` skips. A gate that
    could not judge fails the task; not in a backtest, whose replay counts it as a refusal.

    Args:
        evaluation: What `EvaluateOperator` returned.
    """

    template_fields: Sequence[str] = ("challenger", "evaluation")
    operator_extra_links = (links.MlflowRun(), links.ModelCard())

    def __init__(self, *, evaluation: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.evaluation = evaluation

    def execute(self, context: Any) -> list[dict[str, Any]]:
        from airworthy.stages.alarms import of_gates
        from airworthy.stages.evaluate import Evaluation, judge

        with final_errors():
            challenger = self.challenger_of_run()
            verdicts = judge(
                self.pipeline.under(policy(context)),
                challenger,
                Evaluation.model_validate(self.evaluation),
                self.profile,
            )
        if not is_backtest(context):
            self._write_card(challenger.run_id)
            for alert in of_gates(challenger, verdicts) if self.pipeline.alerts else ():
                tell(self.pipeline, alert, context)
        if errors := [f"{v.gate}: {v.reason}" for v in verdicts if v.status == "error"]:
            told = f"{len(errors)} gate(s) could not judge, which blocks: {'; '.join(errors)}"
            if not is_backtest(context):
                raise AirflowFailException(told)
            self.log.error("%s. The replay counts it as a refusal", told)  # and the months after it go on
        return [verdict.model_dump(mode="json") for verdict in verdicts]


class DeployOperator(ChallengerOperator):
    """Makes the challenger champion and waits until its target answers with it; else skips, saying why.

    Args:
        evaluation: What `EvaluateOperator` returned.
        verdicts: What `GateOperator` returned.
        approvals: What each `ApproveOperator` returned; empty if no gate ever asks.
    """

    alerts_as = "deploy"
    template_fields: Sequence[str] = ("challenger", "evaluation", "verdicts", "approvals")
    operator_extra_links = (links.MlflowRun(), links.ModelCard(), links.Endpoint())

    def __init__(self, *, evaluation: Any, verdicts: Any, approvals: Sequence[Any] = (), **kwargs: Any) -> None:
        super().__init__(trigger_rule="none_failed", **kwargs)  # who is not asked is skipped
        self.evaluation = evaluation
        self.verdicts = verdicts
        self.approvals = approvals

    def execute(self, context: Any) -> dict[str, Any]:
        from airworthy.stages.approvals import Answer
        from airworthy.stages.deploy import deploy
        from airworthy.stages.evaluate import Evaluation
        from airworthy.verdict import Verdict

        challenger = self.challenger_of_run()
        if is_backtest(context):
            raise AirflowSkipException("A backfill, or a run with another policy, is a backtest: it never promotes")
        with final_errors():
            try:
                release = deploy(
                    self.pipeline,
                    challenger,
                    Evaluation.model_validate(self.evaluation),
                    [Verdict.model_validate(verdict) for verdict in self.verdicts],
                    self.profile,
                    actor=context["run_id"],
                    approvals=[Answer.model_validate(one) for told in self.approvals for one in told or ()],
                )
            except ConflictError as conflict:
                # Judging again needs `evaluate` to run against the new champion, which a retry of this task cannot do.
                hint = "" if self.approvals else " Clear this run from `evaluate` on to judge again"
                raise AirflowFailException(f"{conflict}{hint}") from conflict
        self.log.info("%s: %s", release.action, release.reason)
        self.links[links.Endpoint.__name__] = release.endpoint
        self._write_card(challenger.run_id)
        if release.action != "promoted":
            raise AirflowSkipException(release.reason)
        with final_errors():
            said = {"version": release.version, "replaced": release.replaced}
            assets.update_champion(context, self.pipeline, challenger, self.profile, **said)
        return release.model_dump(mode="json")
