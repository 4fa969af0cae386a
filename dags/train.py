"""<pipeline>.train: train -> evaluate -> gates (-> approve) -> deploy, on schedule, on request, or by hand."""

from __future__ import annotations

from airflow.sdk import AssetOrTimeSchedule, CronTriggerTimetable

from airworthy_airflow import assets
from airworthy_airflow.declared import as_of_param, declared, mlflow_run_param, pipeline_dag, policy_param
from airworthy_airflow.operators import (
    DeployOperator,
    EvaluateOperator,
    GateOperator,
    TrainOperator,
)
from airworthy_airflow.operators.approval import approve

for pipeline in declared("train"):
    request = assets.retrain_request(pipeline)
    cron = pipeline.train.schedule
    with pipeline_dag(
        pipeline,
        "train",
        schedule=[request]
        if cron is None
        else AssetOrTimeSchedule(timetable=CronTriggerTimetable(cron, timezone="UTC"), assets=[request]),
        params={"as_of": as_of_param(), "policy": policy_param(pipeline), "mlflow_run": mlflow_run_param()},
        max_active_runs=1,  # a challenger is judged against the champion its predecessor may just have become
    ):
        challenger = TrainOperator(task_id="train", pipeline=pipeline)
        evaluation = EvaluateOperator(task_id="evaluate", pipeline=pipeline, challenger=challenger.output)
        verdicts = GateOperator(
            task_id="gates",
            pipeline=pipeline,
            challenger=challenger.output,
            evaluation=evaluation.output,
        )
        DeployOperator(
            task_id="deploy",
            pipeline=pipeline,
            challenger=challenger.output,
            evaluation=evaluation.output,
            verdicts=verdicts.output,
            approvals=approve(pipeline, challenger.output, evaluation.output, verdicts.output),
            outlets=[assets.champion(pipeline)],
        )
