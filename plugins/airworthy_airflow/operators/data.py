"""Operators of `<pipeline>.ingest`: wait, ingest, validate, process."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from airflow.sdk.exceptions import AirflowFailException

from airworthy.errors import DataError, ServiceError
from airworthy.partitions import span, utc, write_duration
from airworthy_airflow import assets, links, reports
from airworthy_airflow.moments import partition_of
from airworthy_airflow.operators.stage import StageOperator, final_errors
from airworthy_airflow.triggers import AvailableTrigger


class WaitOperator(StageOperator):
    """Succeeds once the source has the partition's data; until then it holds no worker slot.

    It fails when `wait.timeout` has passed since the run began.
    """

    def execute(self, context: Any) -> None:
        with final_errors():
            partition = partition_of(context, self.pipeline)
            wait = self.pipeline.wait
            assert wait is not None
            began = utc(context["dag_run"].start_date or datetime.now(UTC))
            trigger = AvailableTrigger(
                pipeline=self.pipeline.name,
                partition=partition.key,
                deadline=(began + wait.timeout).isoformat(),
                every=span(wait.every).total_seconds(),
            )
            try:
                there = self.pipeline.source.available(partition, self.connections)
            except ServiceError as error:  # it may answer by the time of the next look
                self.log.warning("%s", error)
                there = False
            if not there:
                self.defer(trigger=trigger, method_name="end")

    def end(self, context: Any, event: dict[str, str]) -> None:
        """Ends the task with what the trigger found out."""
        if event["status"] == "there":
            return
        if event["status"] == "failed":
            raise AirflowFailException(event["told"])
        partition, wait = partition_of(context, self.pipeline), self.pipeline.wait
        assert wait is not None
        where, hint = f"source[{partition.key}]", f"{event['told']}Clear the task once it is there, to wait anew"
        rule = f"must be there within {write_duration(wait.timeout)} of the run's start, as `wait.timeout` says"
        error = DataError(where, f"{self.pipeline.source.awaited(partition)} {rule}", hint=hint)
        raise AirflowFailException(str(error))


class IngestOperator(StageOperator):
    """Publishes one partition of `raw` from the pipeline's source."""

    def execute(self, context: Any) -> dict[str, Any]:
        from airworthy.stages.ingest import ingest

        with final_errors():
            raw = ingest(self.pipeline, partition_of(context, self.pipeline), self.store, self.connections)
        return raw.model_dump(mode="json")


class ValidateOperator(StageOperator):
    """Checks a raw partition; bad rows go to `quarantine`, a bad partition fails the task.

    Args:
        raw: What `IngestOperator` returned.
    """

    template_fields: Sequence[str] = ("raw",)
    operator_extra_links = (links.ValidationResult(),)

    def __init__(self, *, raw: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.raw = raw

    def execute(self, context: Any) -> dict[str, Any]:
        from airworthy.stages.validate import page_path, validate
        from airworthy.store import TableRef

        with final_errors():
            partition = partition_of(context, self.pipeline)
            self.links[links.ValidationResult.__name__] = reports.url(page_path(self.pipeline, partition))
            raw = TableRef.model_validate(self.raw)
            validation = validate(self.pipeline, partition, raw, self.store, self.profile.reports_dir)
        return validation.model_dump(mode="json")


class ProcessOperator(StageOperator):
    """Publishes one partition of `features` and the asset event that says so.

    Args:
        validation: What `ValidateOperator` returned.
    """

    template_fields: Sequence[str] = ("validation",)

    def __init__(self, *, validation: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.validation = validation

    def execute(self, context: Any) -> dict[str, Any]:
        from airworthy.stages.process import process
        from airworthy.stages.validate import Validation

        with final_errors():
            partition = partition_of(context, self.pipeline)
            validation = Validation.model_validate(self.validation)
            features = process(self.pipeline, partition, validation, self.store)
        context["outlet_events"][assets.features(self.pipeline)].extra = {
            "partition": features.partition,
            "version": features.version,
            "rows": features.rows,
            "changed": features.changed,
        }
        return features.model_dump(mode="json")
