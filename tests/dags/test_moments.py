"""What a run is: with the context as a task gets it, whose enums are not those of Airflow's own modules."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.api.datamodels import _generated as in_a_task
from airflow.utils.types import DagRunType

from airworthy.errors import ConfigError
from airworthy_airflow.moments import as_of, is_backfill, is_backtest


def context(run_type: Any, **params: Any) -> dict[str, Any]:
    return {"dag_run": SimpleNamespace(run_type=run_type), "params": params}


@pytest.mark.parametrize("run_type", [*in_a_task.DagRunType, *DagRunType], ids=repr)
def test_only_runs_of_a_backfill_are_a_backfill(run_type: Any) -> None:
    assert is_backfill(context(run_type)) is (run_type.value == "backfill")


def of_run(extra: Any = None, logical_date: datetime | None = None, **params: Any) -> datetime:
    events = {"retrain_request": [SimpleNamespace(extra=extra)]} if extra else {}
    run = SimpleNamespace(run_after=datetime(2026, 1, 3, tzinfo=UTC))
    given = {"run_id": "run 1", "dag_run": run, "params": params, "triggering_asset_events": events}
    return as_of(given | ({"logical_date": logical_date} if logical_date else {}))


def test_a_training_knows_what_its_parameter_its_request_or_its_date_says() -> None:
    earlier, later = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)
    assert of_run() == datetime(2026, 1, 3, tzinfo=UTC)
    assert of_run(logical_date=later) == later
    assert of_run({"as_of": "2026-01-01T00:00:00Z"}, later) == earlier
    assert of_run({"as_of": "2026-01-02T02:00:00+02:00"}, earlier) == later
    assert of_run({"as_of": "2026-01-01"}, earlier, as_of="2026-01-02") == later


@pytest.mark.parametrize("far", ["2099-01-01", "2099-01-01T00:00:00+00:00"])
def test_nothing_is_trained_as_of_a_moment_to_come(far: str) -> None:
    moment = datetime(2099, 1, 1, tzinfo=UTC)
    for given in ({"as_of": far}, {"extra": {"as_of": far}}, {"logical_date": moment}):
        with pytest.raises(ConfigError, match=r"run 1: as_of: must not be in the future\. Got '2099-01-01"):
            of_run(**given)


@pytest.mark.parametrize("odd", [20260101, "soon", ["2026-01-01"]])
def test_a_moment_that_is_none_is_named(odd: Any) -> None:
    with pytest.raises(ConfigError, match=r"run 1: as_of: must be a moment in ISO 8601"):
        of_run({"as_of": odd})


def test_a_run_with_another_policy_is_a_backtest() -> None:
    manual = in_a_task.DagRunType.MANUAL
    assert is_backtest(context(manual, policy="rolling"))
    assert not is_backtest(context(manual, policy="declared")) and not is_backtest(context(manual))
    assert is_backtest(context(in_a_task.DagRunType.BACKFILL, policy="declared"))
