"""<pipeline>.rebuild: a past champion is trained again from its records, and must come out the same."""

from __future__ import annotations

from airflow.sdk import CronTriggerTimetable

from airworthy_airflow.declared import declared, pipeline_dag, version_param
from airworthy_airflow.operators.rebuild import RebuildOperator

for pipeline in declared("rebuild"):
    with pipeline_dag(
        pipeline,
        "rebuild",
        schedule=CronTriggerTimetable("0 3 * * 0", timezone="UTC"),
        catchup=False,
        params={"version": version_param()},
        max_active_runs=1,
    ):
        RebuildOperator(task_id="rebuild", pipeline=pipeline)
