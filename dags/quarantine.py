"""<pipeline>.quarantine: a person decides about failing rows -> validate -> process, one partition a run."""

from __future__ import annotations

from airworthy_airflow import assets
from airworthy_airflow.declared import declared, partition_param, pipeline_dag
from airworthy_airflow.operators import ProcessOperator, ValidateOperator
from airworthy_airflow.operators.quarantine import ApplyOperator, DecideRowsOperator, ask

for pipeline in declared("quarantine"):
    with pipeline_dag(
        pipeline,
        "quarantine",
        schedule=None,  # a person starts it, or `ask` in <pipeline>.ingest
        params={"partition": partition_param(pipeline, required=True)},
        max_active_runs=16,  # as many questions are open at once; the others wait for their turn
    ):
        answer = DecideRowsOperator(task_id="decide", pipeline=pipeline)
        raw = ApplyOperator(task_id="apply", pipeline=pipeline, answer=answer.output)
        validation = ValidateOperator(task_id="validate", pipeline=pipeline, raw=raw.output)
        ProcessOperator(
            task_id="process",
            pipeline=pipeline,
            validation=validation.output,
            outlets=[assets.features(pipeline)],
        )
        ask(pipeline, validation)  # about what the answer leaves open
