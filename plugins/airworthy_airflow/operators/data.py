"""Operators of `<pipeline>.ingest`: wait, ingest, validate, process."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from airflow.sdk.exceptions import AirflowFailException

from airworthy.errors import DataError, ServiceError
from airworthy.partitions import Partition, parse_key, span, utc, write_duration
from airworthy_airflow import assets, links, reports
from airworthy_airflow.moments import partitions_of
from airworthy_airflow.operators.stage import PartitionOperator, StageOperator, final_errors
from airworthy_airflow.triggers import AvailableTrigger


class WaitOperator(StageOperator):
    """Succeeds once the source has the data of every partition of the run; until then it holds no worker slot.

    It fails when `wait.timeout` has passed since the run began. Returns the keys of the partitions that are there.
    """

    alerts_as = "data"

    def execute(self, context: Any) -> list[str]:
        with final_errors():
            wait, source = self.pipeline.wait, self.pipeline.source
            assert wait is not None
            partitions = partitions_of(context, self.pipeline)
            try:
                if all(source.available(partition, self.connections) for partition in partitions):
                    return [partition.key for partition in partitions]
            except ServiceError as error:  # it may answer the next time
                self.log.warning("%s", error)
            began = utc(context["dag_run"].start_date or datetime.now(UTC))
            trigger = AvailableTrigger(
                pipeline=self.pipeline.name,
                partitions=[partition.key for partition in partitions],
                deadline=(began + wait.timeout).isoformat(),
                every=span(wait.every).total_seconds(),
            )
            self.defer(trigger=trigger, method_name="end")
        return []  # not reached: what is deferred goes on in `end`

    def end(self, context: Any, event: dict[str, Any]) -> list[str]:
        """Ends the task with what the trigger found out."""
        keys = [partition.key for partition in partitions_of(context, self.pipeline)]
        if event["status"] == "there":
            return keys
        if event["status"] == "failed":
            raise AirflowFailException(event["told"])
        assert self.pipeline.wait is not None
        context["ti"].xcom_push("return_value", [key for key in keys if key not in event["missing"]])
        partitions = [parse_key(self.pipeline.partition, key) for key in event["missing"]]
        awaited = ", ".join(map(self.pipeline.source.awaited, partitions))
        rule = f"must be there within {write_duration(self.pipeline.wait.timeout)} of the run's start"
        hint = f"{event['told']}Clear this task once it is there, or give `wait.timeout` more"
        error = DataError(f"source of {self.pipeline.name}", f"{awaited} {rule}", hint=hint)
        raise AirflowFailException(str(error))


class IngestOperator(PartitionOperator):
    """Publishes a partition of `raw`, held to the schema contract, and the asset event that says so.

    Args:
        there: What `WaitOperator` returned; None if nothing is waited for.
    """

    template_fields: Sequence[str] = ("there",)
    operator_extra_links = (links.SchemaContract(),)

    def __init__(self, *, there: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.there = there

    def work(self, context: Any, partition: Partition) -> dict[str, Any]:
        from airworthy.contracts.report import page_path
        from airworthy.stages.ingest import ingest

        if self.pipeline.wait is not None and partition.key not in (self.there or ()):
            raise DataError(f"partition {partition.key}", "was waited for, and is not there")
        self.links[links.SchemaContract.__name__] = reports.url(page_path(self.pipeline.name, partition.key))
        raw = ingest(self.pipeline, partition, self.store, self.connections, reports_dir=self.profile.reports_dir)
        return raw.model_dump(mode="json")

    def publish(self, context: Any, done: list[dict[str, Any]]) -> None:
        from airworthy.lineage import facts
        from airworthy.store import TableRef

        told = facts.of_raw([TableRef.model_validate(raw) for raw in done], self.store)
        context["outlet_events"][assets.raw(self.pipeline)].extra = {"partitions": told}


class ValidateOperator(PartitionOperator):
    """Checks a raw partition; bad rows go to `quarantine`, a bad partition fails the task.

    Args:
        raw: What `IngestOperator` returned.
    """

    template_fields: Sequence[str] = ("raw",)
    operator_extra_links = (links.ValidationResult(), links.DataDocs(), links.Profile())

    def __init__(self, *, raw: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.raw = raw

    def work(self, context: Any, partition: Partition) -> dict[str, Any]:
        from airworthy.data_docs import docs_path
        from airworthy.profile_page import profile_path
        from airworthy.stages.validate import page_path, validate
        from airworthy.store import TableRef

        raw = TableRef.model_validate(self.before(self.raw, partition))
        self.links[links.ValidationResult.__name__] = reports.url(page_path(self.pipeline, partition))
        self.links[links.DataDocs.__name__] = reports.url(docs_path(self.pipeline.name, partition.key))
        try:
            validation = validate(
                self.pipeline, partition, raw, self.store, self.profile.reports_dir, spark=self.profile.spark
            )
        finally:  # of a big partition there is a page only if somebody asked for it
            page = profile_path(self.pipeline.name, partition.key)
            if (self.profile.reports_dir / page).exists():
                self.links[links.Profile.__name__] = reports.url(page)
        return validation.model_dump(mode="json")


class ProcessOperator(PartitionOperator):
    """Publishes a partition of `features`, the asset event that says so, and which models it left stale.

    Args:
        validation: What `ValidateOperator` returned.
    """

    template_fields: Sequence[str] = ("validation",)

    def __init__(self, *, validation: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.validation = validation

    def work(self, context: Any, partition: Partition) -> dict[str, Any]:
        from airworthy.stages.process import process
        from airworthy.stages.validate import Validation

        validation = Validation.model_validate(self.before(self.validation, partition))
        features = process(
            self.pipeline, partition, validation, self.store, run=context["run_id"], spark=self.profile.spark
        )
        return features.model_dump(mode="json")

    def publish(self, context: Any, done: list[dict[str, Any]]) -> None:
        from airworthy.lineage import facts
        from airworthy.store import TableRef

        told = facts.of_features(self.pipeline, [TableRef.model_validate(features) for features in done], self.profile)
        context["outlet_events"][assets.features(self.pipeline)].extra = {"partitions": told}
