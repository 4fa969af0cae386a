"""Tasks find their libraries imported, and the process they are forked from is safe to fork."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from airworthy.airflow_api import AirflowApi

STAGES = ("ingest", "validate", "process", "train", "evaluate", "deploy", "monitor")


@pytest.fixture(scope="module")
def probes(airflow: AirflowApi) -> dict[str, dict]:
    airflow.unpause("probes")
    run_id = airflow.trigger("probes")
    assert airflow.wait("probes", run_id)["state"] == "success"
    return {stage: airflow.xcom("probes", run_id, stage) for stage in STAGES}


@pytest.mark.parametrize("stage", STAGES)
def test_a_task_of_each_stage_imports_no_heavy_library(probes, stage: str) -> None:
    assert probes[stage]["imported_late"] == []


@pytest.mark.parametrize("stage", STAGES)
def test_the_forking_parent_has_one_thread(probes, stage: str) -> None:
    """So it has no OpenMP or BLAS pool and no telemetry thread, whose locks a fork would copy."""
    assert probes[stage]["parent_threads"] == 1


@pytest.mark.parametrize("stage", STAGES)
def test_the_forking_parent_has_no_socket_but_airflows_own(probes, stack, stage: str) -> None:
    """Airflow's worker keeps two: its metadata database and its API server. Preloading must not add any."""
    sockets = probes[stage]["parent_sockets"]
    assert {remote for _, remote in sockets} <= {stack.ports.airflow, stack.ports.postgres}
    with sa.create_engine(stack.environment["AIRWORTHY_LEDGER_URL"]).connect() as connection:
        others = "SELECT client_port FROM pg_stat_activity WHERE client_port > 0 AND datname <> 'airflow'"
        foreign = set(connection.execute(sa.text(others)).scalars())
    assert not {local for local, remote in sockets if remote == stack.ports.postgres} & foreign
