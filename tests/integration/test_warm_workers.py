"""Tasks find their libraries imported, and the process they are forked from is safe to fork."""

from __future__ import annotations

import pytest

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
def test_the_forking_parent_has_no_threads_and_no_open_socket(probes, stage: str) -> None:
    """One thread means no OpenMP or BLAS pool and no telemetry thread, whose locks a fork would copy."""
    assert probes[stage]["parent_threads"] == 1
    assert probes[stage]["parent_sockets"] == []
