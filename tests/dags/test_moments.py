"""What a run is: with the context as a task gets it, whose enums are not those of Airflow's own modules."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.api.datamodels import _generated as in_a_task
from airflow.utils.types import DagRunType

from airworthy_airflow.moments import is_backfill, is_backtest


def context(run_type: Any, **params: Any) -> dict[str, Any]:
    return {"dag_run": SimpleNamespace(run_type=run_type), "params": params}


@pytest.mark.parametrize("run_type", [*in_a_task.DagRunType, *DagRunType], ids=repr)
def test_only_runs_of_a_backfill_are_a_backfill(run_type: Any) -> None:
    assert is_backfill(context(run_type)) is (run_type.value == "backfill")


def test_a_run_with_another_policy_is_a_backtest() -> None:
    manual = in_a_task.DagRunType.MANUAL
    assert is_backtest(context(manual, policy="rolling"))
    assert not is_backtest(context(manual, policy="declared")) and not is_backtest(context(manual))
    assert is_backtest(context(in_a_task.DagRunType.BACKFILL, policy="declared"))
