"""<pipeline>.ingest: ingest -> validate -> process, one partition a run."""

from __future__ import annotations

from airflow.sdk import CronDataIntervalTimetable

from airworthy.partitions import cron
from airworthy_airflow import assets
from airworthy_airflow.declared import declared, partition_param, pipeline_dag
from airworthy_airflow.operators import (
    IngestOperator,
    ProcessOperator,
    ValidateOperator,
)

for pipeline in declared("ingest"):
    with pipeline_dag(
        pipeline,
        "ingest",
        schedule=CronDataIntervalTimetable(cron(pipeline.partition), timezone="UTC"),
        params={"partition": partition_param(pipeline)},
        max_active_runs=4,
    ):
        raw = IngestOperator(task_id="ingest", pipeline=pipeline, outlets=[assets.raw(pipeline)])
        validation = ValidateOperator(task_id="validate", pipeline=pipeline, raw=raw.output)
        ProcessOperator(
            task_id="process",
            pipeline=pipeline,
            validation=validation.output,
            outlets=[assets.features(pipeline)],
        )
