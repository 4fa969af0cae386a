"""Operators of `<pipeline>.ingest`: ingest, validate, process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airworthy_airflow import assets, links, reports
from airworthy_airflow.moments import partition_of
from airworthy_airflow.operators.stage import StageOperator, final_errors


class IngestOperator(StageOperator):
    """Publishes one partition of `raw` from the pipeline's source, and the asset event that says so."""

    def execute(self, context: Any) -> dict[str, Any]:
        from airworthy.lineage import facts
        from airworthy.stages.ingest import ingest

        with final_errors():
            raw = ingest(self.pipeline, partition_of(context, self.pipeline), self.store)
            published = facts.of_raw(raw, self.store)
        context["outlet_events"][assets.raw(self.pipeline)].extra = published
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
        from airworthy.lineage import facts
        from airworthy.stages.process import process
        from airworthy.stages.validate import Validation

        with final_errors():
            partition = partition_of(context, self.pipeline)
            validation = Validation.model_validate(self.validation)
            features = process(self.pipeline, partition, validation, self.store, run=context["run_id"])
            published = facts.of_features(self.pipeline, features, self.profile)
        context["outlet_events"][assets.features(self.pipeline)].extra = published
        return features.model_dump(mode="json")
