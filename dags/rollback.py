"""<pipeline>.rollback: an earlier champion answers again; a person or an alert starts it."""

from __future__ import annotations

from airworthy_airflow import assets
from airworthy_airflow.declared import declared, pipeline_dag, rollback_params
from airworthy_airflow.operators.rollback import RollbackOperator

for pipeline in declared("rollback"):
    with pipeline_dag(
        pipeline,
        "rollback",
        schedule=None,
        params=rollback_params(),
        is_paused_upon_creation=False,  # when it is needed, there is no time to find out that it is off
    ):
        RollbackOperator(task_id="rollback", pipeline=pipeline, outlets=[assets.champion(pipeline)])
