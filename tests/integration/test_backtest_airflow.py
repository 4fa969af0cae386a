"""A backtest under a real scheduler: backfills of the training DAG, one per training that policies need."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from airworthy.airflow_api import AirflowApi
from airworthy.backtest import command, results
from airworthy.backtest.drive import Driver
from airworthy.config import Pipeline, load_pipeline
from airworthy.errors import ServiceError
from airworthy.ledger import Ledger
from airworthy.profile import Profile, load_profile
from airworthy.store import Store

MODULES = Path(__file__).with_name("modules")
NAME = "walked"
FIRST, LAST = datetime(2026, 1, 9, tzinfo=UTC), datetime(2026, 1, 11, tzinfo=UTC)


@pytest.fixture(scope="module")
def pipeline(airflow: AirflowApi, config_dir: Path) -> Iterator[Pipeline]:
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(MODULES)
        yield load_pipeline(config_dir / "pipelines" / f"{NAME}.yaml")


@pytest.fixture(scope="module")
def profile(stack: Any) -> Profile:
    return load_profile(stack.environment)


@pytest.fixture(scope="module")
def told(airflow: AirflowApi, pipeline: Pipeline, profile: Profile) -> list[str]:
    """What a backtest of every policy said, with twelve days of data."""
    airflow.unpause(f"{NAME}.ingest")
    airflow.backfill(f"{NAME}.ingest", datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 12, tzinfo=UTC))
    assert {run["state"] for run in airflow.wait_for_backfill(f"{NAME}.ingest")} == {"success"}
    said: list[str] = []
    driver = Driver(pipeline, airflow, profile, said.append)
    with pytest.raises(ServiceError, match="must be switched on"):
        driver.run(["declared"], FIRST, LAST)
    airflow.unpause(f"{NAME}.train")
    driver.run(pipeline.backtest.names, FIRST, LAST)
    return said


def reported(pipeline: Pipeline, environment: Mapping[str, str]) -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    command.add(parser, lambda asked: None)
    printed: list[str] = []
    command.run(parser.parse_args(["report", NAME, "--json"]), pipeline, environment, printed.append)
    return dict(json.loads("\n".join(printed)))


def test_every_policy_has_a_result_for_every_date(told: list[str], pipeline: Pipeline, profile: Profile) -> None:
    store = Store(profile.store_uri, NAME)
    for policy in pipeline.backtest.names:
        found = results.read(pipeline.under(policy), store)
        assert [one.challenger.as_of.day for one in found] == [9, 10, 11]
        assert all(one.challenger.backtest for one in found)
        assert found[0].scored["part"].tolist() == ["holdout", "after"]
    assert "strict trains as one of the policies before it does" in told
    assert sum("as of 2026-01-" in line for line in told) == 6, told


def test_nothing_was_promoted_registered_or_told(
    told: list[str], airflow: AirflowApi, stack: Any, pipeline: Pipeline
) -> None:
    runs = airflow.runs(f"{NAME}.train", run_type="backfill")
    assert len(runs) == 3 and {run["state"] for run in runs} == {"success"}
    assert {run["conf"]["policy"] for run in runs} == {"recent"}, "the second backfill did not run with its own policy"
    for run in runs:
        tasks = airflow.tasks(f"{NAME}.train", run["dag_run_id"])
        assert (tasks["gates"]["state"], tasks["deploy"]["state"]) == ("success", "skipped")
    assert Ledger(stack.environment["AIRWORTHY_LEDGER_URL"]).entries(NAME) == []
    versions = httpx.get(
        f"{stack.mlflow_url}/api/2.0/mlflow/model-versions/search", params={"filter": f"name='{NAME}'"}, timeout=60
    ).json()
    assert not versions.get("model_versions")
    (asset,) = airflow.get("assets", name_pattern=f"{NAME}.champion")["assets"]
    assert airflow.get("assets/events", asset_id=asset["id"])["total_entries"] == 0


def test_a_manual_run_with_another_policy_does_not_promote(told: list[str], airflow: AirflowApi, stack: Any) -> None:
    run_id = airflow.trigger(f"{NAME}.train", as_of="2026-01-12", policy="recent")
    assert airflow.wait(f"{NAME}.train", run_id)["state"] == "success"
    assert airflow.tasks(f"{NAME}.train", run_id)["deploy"]["state"] == "skipped"
    assert Ledger(stack.environment["AIRWORTHY_LEDGER_URL"]).entries(NAME) == []
    with pytest.raises(ServiceError, match=r"400.*policy"):
        airflow.trigger(f"{NAME}.train", policy="unheard_of")


def test_a_rerun_reports_the_same(
    told: list[str], airflow: AirflowApi, stack: Any, pipeline: Pipeline, profile: Profile
) -> None:
    before = reported(pipeline, stack.environment)
    version = Store(profile.store_uri, NAME).version(results.BACKTESTS)
    said: list[str] = []
    driver = Driver(pipeline, airflow, profile, said.append)
    driver.run(["declared", "recent"], FIRST, LAST, again=False)
    assert said == ["declared: all 3 dates are on record", "recent: all 3 dates are on record"]
    driver.run(["declared"], FIRST, LAST)
    assert Store(profile.store_uri, NAME).version(results.BACKTESTS) == version
    assert reported(pipeline, stack.environment) == before
    decisions = before["policies"]["declared"]["decisions"]
    assert decisions[0]["promoted"] and decisions[0]["champion"] is None
    assert not any(one["promoted"] for one in before["policies"]["strict"]["decisions"])
    assert (profile.reports_dir / NAME / "backtest.html").read_text().count("data:image/svg") == 3
