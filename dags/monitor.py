"""<pipeline>.monitor: score -> drift, performance -> decide, one partition a run; canary after performance."""

from __future__ import annotations

from airflow.sdk import CronDataIntervalTimetable

from airworthy.partitions import cron
from airworthy_airflow import assets
from airworthy_airflow.declared import declared, partition_param, pipeline_dag
from airworthy_airflow.operators import (
    CanaryOperator,
    DecideOperator,
    DriftOperator,
    PerformanceOperator,
    ScoreOperator,
)

for pipeline in declared("monitor"):
    with pipeline_dag(
        pipeline,
        "monitor",
        schedule=CronDataIntervalTimetable(cron(pipeline.partition), timezone="UTC"),
        params={"partition": partition_param(pipeline)},
        max_active_runs=4,
    ):
        predictions = ScoreOperator(task_id="score", pipeline=pipeline)
        drift = DriftOperator(task_id="drift", pipeline=pipeline, predictions=predictions.output)
        performance = PerformanceOperator(task_id="performance", pipeline=pipeline, predictions=predictions.output)
        if pipeline.canary:
            canary = CanaryOperator(task_id="canary", pipeline=pipeline, outlets=[assets.champion(pipeline)])
            performance >> canary
        DecideOperator(
            task_id="decide",
            pipeline=pipeline,
            drift=drift.output,
            performance=performance.output,
            outlets=[assets.retrain_request(pipeline)],
        )
