"""Operators of `<pipeline>.monitor`: score, drift, performance, decide."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow.sdk import BaseSensorOperator, PokeReturnValue
from airflow.sdk.exceptions import AirflowSkipException

from airworthy_airflow import assets, links, reports
from airworthy_airflow.moments import is_backfill, partition_of
from airworthy_airflow.notifiers import tell
from airworthy_airflow.operators.stage import StageOperator, final_errors


class ScoreOperator(StageOperator, BaseSensorOperator):
    """Publishes one partition of `predictions` by the champion, once its features are there.

    A sensor in reschedule mode: while the partition is not there it holds no slot.
    """

    alerts_as = "data"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(mode="reschedule", poke_interval=30, timeout=24 * 3600, **kwargs)

    def poke(self, context: Any) -> PokeReturnValue:
        from airworthy.ledger import Ledger
        from airworthy.stages.monitor import score

        with final_errors():
            partition = partition_of(context, self.pipeline)
            if not self.store.has("features", partition.key):
                self.log.info(
                    "features[%s] is not there yet; %s.ingest publishes it",
                    partition.key,
                    self.pipeline.name,
                )
                return PokeReturnValue(is_done=False)
            if Ledger(self.profile.ledger_url).champion(self.pipeline.name) is None:
                raise AirflowSkipException(f"{self.pipeline.name} has no champion yet; run {self.pipeline.name}.train")
            predictions = score(self.pipeline, partition, self.profile)
        return PokeReturnValue(is_done=True, xcom_value=predictions.model_dump(mode="json"))


class _PredictionsOperator(StageOperator):
    """Works on a scored partition.

    Args:
        predictions: What `ScoreOperator` returned.
    """

    template_fields: Sequence[str] = ("predictions",)

    def __init__(self, *, predictions: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.predictions = predictions

    def _predictions(self) -> Any:
        from airworthy.store import TableRef

        return TableRef.model_validate(self.predictions)


class DriftOperator(_PredictionsOperator):
    """Compares a partition's inputs and predictions with the champion's training reference."""

    operator_extra_links = (links.DriftReport(),)

    def execute(self, context: Any) -> dict[str, Any]:
        from airworthy.stages.drift import drift

        with final_errors():
            found = drift(
                self.pipeline,
                partition_of(context, self.pipeline),
                self._predictions(),
                self.profile,
            )
        self.links[links.DriftReport.__name__] = reports.url(found.page)
        return found.model_dump(mode="json")


class PerformanceOperator(_PredictionsOperator):
    """Measures the champion on a partition where enough labels are known, and again on earlier ones with new labels.

    Returns the performance on all of them, the run's own partition first. So it does for what serving answered about
    them, which is left in the table `online_metrics`. A backfill looks at its own only: the
    others have runs of their own.
    """

    def execute(self, context: Any) -> list[dict[str, Any]]:
        from airworthy.partitions import parse_key
        from airworthy.stages.online_performance import online_performance
        from airworthy.stages.performance import matured, performance

        partition = partition_of(context, self.pipeline)
        with final_errors():
            measured = [performance(self.pipeline, partition, self._predictions(), self.profile)]
            if not is_backfill(context):
                measured += matured(self.pipeline, partition, self.profile)
            for one in measured:
                looked_at = parse_key(self.pipeline.partition, one.labels.partition)
                online_performance(self.pipeline, looked_at, self.profile)
        return [one.model_dump(mode="json") for one in measured]


class DecideOperator(StageOperator):
    """Requests a retrain if the pipeline's policy says so; else skips, saying why.

    A backfill only reports what it would have decided: it must not start a retrain per past partition.

    Args:
        drift: What `DriftOperator` returned.
        performance: What `PerformanceOperator` returned.
    """

    template_fields: Sequence[str] = ("drift", "performance")
    operator_extra_links = (links.MonitoringPage(),)

    def __init__(self, *, drift: Any, performance: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.drift = drift
        self.performance = performance

    def execute(self, context: Any) -> dict[str, Any]:
        from airworthy.drift import Drift
        from airworthy.stages.alarms import of_monitoring
        from airworthy.stages.decide import decide
        from airworthy.stages.kpis import performance_kpis
        from airworthy.stages.performance import Performance

        actor, past = f"{self.dag_id} {context['run_id']}", is_backfill(context)
        found = Drift.model_validate(self.drift)
        measured = [Performance.model_validate(one) for one in self.performance]
        with final_errors():
            unusual = performance_kpis(self.pipeline, measured, self.store)
            decision = decide(
                self.pipeline,
                partition_of(context, self.pipeline),
                found,
                measured,
                self.profile,
                actor,
                record=not past,
                performance=unusual,
            )
        self.log.info("%s: %s", decision.action, decision.reason)
        if self.pipeline.alerts:
            for alert in of_monitoring(self.pipeline, decision, self.profile, found=found, performance=unusual):
                tell(self.pipeline, alert, context)
        self._write_page()
        if not decision.retrain:
            raise AirflowSkipException(f"No retrain: {decision.reason}")
        if past:
            raise AirflowSkipException(f"Would request a retrain, but this is a backfill: {decision.reason}")
        if decision.actor != actor:
            raise AirflowSkipException(f"{decision.actor} has requested this retrain: {decision.reason}")
        context["outlet_events"][assets.retrain_request(self.pipeline)].extra = {
            "as_of": decision.as_of.isoformat(),
            "reason": decision.reason,
        }
        return decision.model_dump(mode="json")

    def _write_page(self) -> None:
        """Leaves the page of all partitions as it is now; one that cannot be drawn keeps no retrain from coming."""
        from airworthy import monitoring_page

        try:
            monitoring_page.publish(self.pipeline, self.profile)
        except Exception:
            self.log.exception("The page was not written; `airworthy monitoring %s` tries again", self.pipeline.name)
        else:
            self.links[links.MonitoringPage.__name__] = reports.url(monitoring_page.page_path(self.pipeline))
