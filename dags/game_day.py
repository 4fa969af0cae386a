"""game_day: copy a pipeline -> inject one fault after the other -> report what fired, and remove the copy."""

from __future__ import annotations

from airworthy_airflow.declared import game_day_dag, game_days
from airworthy_airflow.operators.game_day import LENT, CopyOperator, InjectOperator, RemoveOperator, ReportOperator

# Airflow only reads files in which it finds both words, "airflow" and "dag".
for pipelines in game_days():
    with game_day_dag(pipelines):
        faults = CopyOperator(task_id="copy")
        injected = InjectOperator.partial(
            task_id="inject",
            map_index_template="{{ task.fault }}",
            max_active_tis_per_dagrun=1,  # they share the copy
        ).expand(fault=faults.output)
        ReportOperator(task_id="report", outcomes=injected.output, lent=faults.output[LENT])
        injected >> RemoveOperator(task_id="remove", retries=2)
