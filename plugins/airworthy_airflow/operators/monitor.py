"""Operators of `<pipeline>.monitor`: score, drift, performance, decide."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow.sdk import BaseSensorOperator, PokeReturnValue
from airflow.sdk.exceptions import AirflowSkipException

from airworthy_airflow import assets, links, reports
from airworthy_airflow.moments import is_backfill, partition_of
from airworthy_airflow.operators.stage import StageOperator, final_errors


class ScoreOperator(StageOperator, BaseSensorOperator):
    """Publishes one partition of `predictions` by the champion, once its features are there.

    A sensor in reschedule mode: while the partition is not there it holds no slot.
    """

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
        from airworthy.stages.monitor import drift

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
    """Measures the champion on a partition where labels are known."""

    def execute(self, context: Any) -> dict[str, Any] | None:
        from airworthy.stages.monitor import performance

        with final_errors():
            measured = performance(
                self.pipeline,
                partition_of(context, self.pipeline),
                self._predictions(),
                self.profile,
            )
        return None if measured is None else measured.model_dump(mode="json")


class DecideOperator(StageOperator):
    """Requests a retrain if the pipeline's policy says so; else skips, saying why.

    A backfill only reports what it would have decided: it must not start a retrain per past partition.

    Args:
        drift: What `DriftOperator` returned.
        performance: What `PerformanceOperator` returned.
    """

    template_fields: Sequence[str] = ("drift", "performance")

    def __init__(self, *, drift: Any, performance: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.drift = drift
        self.performance = performance

    def execute(self, context: Any) -> dict[str, Any]:
        from airworthy.stages.monitor import Drift, Performance, decide

        with final_errors():
            decision = decide(
                self.pipeline,
                partition_of(context, self.pipeline),
                Drift.model_validate(self.drift),
                None if self.performance is None else Performance.model_validate(self.performance),
            )
        self.log.info("retrain=%s: %s", decision.retrain, decision.reason)
        if not decision.retrain:
            raise AirflowSkipException(f"No retrain: {decision.reason}")
        if is_backfill(context):
            raise AirflowSkipException(f"Would request a retrain, but this is a backfill: {decision.reason}")
        context["outlet_events"][assets.retrain_request(self.pipeline)].extra = {
            "as_of": decision.as_of.isoformat(),
            "reason": decision.reason,
        }
        return decision.model_dump(mode="json")
