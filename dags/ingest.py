"""<pipeline>.ingest: (wait ->) ingest -> validate -> process, one partition a run."""

from __future__ import annotations

from airworthy.partitions import cron
from airworthy_airflow import assets
from airworthy_airflow.declared import declared, partition_param, pipeline_dag
from airworthy_airflow.operators import (
    IngestOperator,
    ProcessOperator,
    ValidateOperator,
    WaitOperator,
)
from airworthy_airflow.operators.quarantine import ask
from airworthy_airflow.timetable import PartitionTimetable

for pipeline in declared("ingest"):
    with pipeline_dag(
        pipeline,
        "ingest",
        schedule=PartitionTimetable(cron(pipeline.partition), "UTC", pipeline.batch),
        params={"partition": partition_param(pipeline)},
        max_active_runs=4,
    ):
        # A partition that fails must not keep the others of its batch from going on.
        rule = "all_done" if pipeline.batch > 1 else "all_success"
        waited = None if pipeline.wait is None else WaitOperator(task_id="wait", pipeline=pipeline).output
        raw = IngestOperator(
            task_id="ingest", pipeline=pipeline, there=waited, trigger_rule=rule, outlets=[assets.raw(pipeline)]
        )
        validation = ValidateOperator(task_id="validate", pipeline=pipeline, raw=raw.output, trigger_rule=rule)
        ProcessOperator(
            task_id="process",
            pipeline=pipeline,
            validation=validation.output,
            trigger_rule=rule,
            outlets=[assets.features(pipeline)],
        )
        ask(pipeline, validation)
