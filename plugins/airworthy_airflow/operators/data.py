"""Operators of `<pipeline>.ingest`: ingest, validate, process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airworthy.partitions import Partition
from airworthy_airflow import assets, links, reports
from airworthy_airflow.operators.stage import PartitionOperator


class IngestOperator(PartitionOperator):
    """Publishes a partition of `raw`, held to the schema contract, and the asset event that says so."""

    operator_extra_links = (links.SchemaContract(),)

    def work(self, context: Any, partition: Partition) -> dict[str, Any]:
        from airworthy.contracts.report import page_path
        from airworthy.stages.ingest import ingest

        self.links[links.SchemaContract.__name__] = reports.url(page_path(self.pipeline.name, partition.key))
        return ingest(self.pipeline, partition, self.store, reports_dir=self.profile.reports_dir).model_dump(
            mode="json"
        )

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
    operator_extra_links = (links.ValidationResult(),)

    def __init__(self, *, raw: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.raw = raw

    def work(self, context: Any, partition: Partition) -> dict[str, Any]:
        from airworthy.stages.validate import page_path, validate
        from airworthy.store import TableRef

        raw = TableRef.model_validate(self.before(self.raw, partition))
        self.links[links.ValidationResult.__name__] = reports.url(page_path(self.pipeline, partition))
        validation = validate(self.pipeline, partition, raw, self.store, self.profile.reports_dir)
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
        features = process(self.pipeline, partition, validation, self.store, run=context["run_id"])
        return features.model_dump(mode="json")

    def publish(self, context: Any, done: list[dict[str, Any]]) -> None:
        from airworthy.lineage import facts
        from airworthy.store import TableRef

        told = facts.of_features(self.pipeline, [TableRef.model_validate(features) for features in done], self.profile)
        context["outlet_events"][assets.features(self.pipeline)].extra = {"partitions": told}
