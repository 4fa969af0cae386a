"""Operator of `<pipeline>.monitor` in a pipeline that declares a canary."""

from __future__ import annotations

from typing import Any

from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from airworthy_airflow import assets, links
from airworthy_airflow.moments import is_backfill, partition_of
from airworthy_airflow.operators.stage import StageOperator, final_errors


class CanaryOperator(StageOperator):
    """Lets a running canary's challenger score its rows of the partition, and widens, promotes or takes it back.

    What follows is what the labels known by now say; if nothing does, the task skips, saying why.

    A backfill leaves it alone. Only a promotion updates the asset `champion`.
    """

    alerts_as = "deploy"
    operator_extra_links = (links.MlflowRun(), links.Endpoint())

    def execute(self, context: Any) -> dict[str, Any]:
        from airworthy.registry import Registry
        from airworthy.stages.canary import look

        if is_backfill(context):
            raise AirflowSkipException("A backfill looks at no canary")
        with final_errors():
            trial = look(
                self.pipeline,
                self.profile,
                f"{self.dag_id} {context['run_id']}",
                partition=partition_of(context, self.pipeline),
            )
        if trial is None:
            raise AirflowSkipException("No canary runs")
        registry = Registry(self.profile)
        self.links[links.MlflowRun.__name__] = registry.run_url(trial.run_id)
        self.log.info("%s of version %s: %s", trial.action, trial.version, trial.reason)
        if trial.action == "take_back":
            raise AirflowFailException(f"The canary of version {trial.version} was taken back: {trial.reason}")
        if trial.action != "promote":
            raise AirflowSkipException(f"{trial.action}: {trial.reason}")
        self.links[links.Endpoint.__name__] = trial.endpoint
        with final_errors():
            said = {"version": trial.version, "replaced": trial.champion}
            assets.update_champion(context, self.pipeline, registry.challenger(trial.run_id), self.profile, **said)
        return trial.model_dump(mode="json")
