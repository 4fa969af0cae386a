"""Rows in quarantine: Airflow asks, a person answers over REST or on the page, and one partition runs again."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from playwright.sync_api import Page, expect

from airworthy.airflow_api import AirflowApi, wait_for
from airworthy.errors import ServiceError
from airworthy.partitions import parse_key
from airworthy.stages.decisions import on_record
from airworthy.store import Store

INGEST, QUARANTINE = "asking.ingest", "asking.quarantine"


@pytest.fixture(scope="module")
def asking(stack: Any) -> Store:
    return Store(f"{stack.home}/store", "asking")


@pytest.fixture(scope="module")
def backfilled(airflow: AirflowApi, asking: Store) -> list[dict]:
    """Four partitions with a few bad rows each, whose questions are open."""
    airflow.wait_for_dags(QUARANTINE)
    airflow.unpause(QUARANTINE)
    airflow.unpause(INGEST)
    airflow.backfill(INGEST, datetime(2026, 1, 3, tzinfo=UTC), datetime(2026, 1, 6, tzinfo=UTC))
    return airflow.wait_for_backfill(INGEST)


def run_of(airflow: AirflowApi, partition: str) -> str:
    """Returns the run that asks about a partition, once it asks."""

    def asks() -> str | None:
        for run in airflow.runs(QUARANTINE):
            task = airflow.tasks(QUARANTINE, run["dag_run_id"])["decide"]
            if run["conf"].get("partition") == partition and task["state"] == "awaiting_input":
                return str(run["dag_run_id"])
        return None

    return wait_for(f"a question about {partition}", asks, timeout=60)


def question(airflow: AirflowApi, run_id: str) -> dict[str, Any]:
    return dict(airflow.get(f"dags/{QUARANTINE}/dagRuns/{run_id}/taskInstances/decide/-1/hitlDetails"))


def answer(airflow: AirflowApi, run_id: str, option: str, reason: str) -> None:
    # Airflow 3.3 takes an answer within the first second for a lost task, and asks again; nobody reads that fast.
    time.sleep(3)
    path = f"dags/{QUARANTINE}/dagRuns/{run_id}/taskInstances/decide/-1/hitlDetails"
    airflow.patch(path, {"chosen_options": [option], "params_input": {"reason": reason}})


def rows(store: Store, partition: str) -> int:
    return len(store.read("features", partitions=[partition]))


def written(store: Store) -> dict[str, int]:
    return {write.partition: write.version for write in store.history("features")}


def test_each_partition_with_bad_rows_is_asked_about(
    airflow: AirflowApi, backfilled: list[dict], asking: Store
) -> None:
    assert {run["state"] for run in backfilled} == {"success"}
    assert rows(asking, "2026-01-03") == 296
    for day in range(3, 7):
        run_of(airflow, f"2026-01-{day:02d}")
    found = question(airflow, run_of(airflow, "2026-01-03"))
    assert found["options"] == ["drop", "repair: in_units", "release"] and found["defaults"] is None
    assert found["subject"] == "asking 2026-01-03: 4 of 300 rows in quarantine"
    assert "| expect_column_values_to_be_between(load) | min_value=-6, max_value=5 | 4 |" in found["body"]
    assert "| 0 | expect_column_values_to_be_between(load) | 1500.0 | 2026010300-0000 |" in found["body"]


def test_the_page_shows_reasons_and_rows_and_takes_the_answer(
    airflow: AirflowApi, backfilled: list[dict], asking: Store, sign_in: Callable[[str], Page], tmp_path: Path
) -> None:
    run_id = run_of(airflow, "2026-01-04")
    page = sign_in("admin")
    page.goto(f"/dags/{QUARANTINE}/runs/{run_id}/tasks/decide/required_actions")
    expect(page.get_by_text("asking 2026-01-04: 4 of 300 rows in quarantine")).to_be_visible()
    expect(page.get_by_role("cell", name="expect_column_values_to_be_between(load)").first).to_be_visible()
    expect(page.get_by_role("cell", name="2026010400-0000")).to_be_visible()
    expect(page.get_by_role("link", name="Validation result").first).to_be_visible()
    page.screenshot(path=Path(os.environ.get("AIRWORTHY_SCREENSHOTS", tmp_path)) / "decide.png", full_page=True)
    page.get_by_role("button", name="release").click()
    assert airflow.wait(QUARANTINE, run_id)["state"] == "success"
    assert rows(asking, "2026-01-04") == 300
    (made,) = on_record(asking, "2026-01-04")
    assert (made.decision, made.who, made.run) == ("release", "admin", run_id)


def test_an_answer_runs_only_its_partition_again_and_is_on_record(
    airflow: AirflowApi, backfilled: list[dict], asking: Store
) -> None:
    run_id = run_of(airflow, "2026-01-03")
    before = written(asking)
    answer(airflow, run_id, "repair: in_units", "the meter was set to milli")
    assert airflow.wait(QUARANTINE, run_id)["state"] == "success"
    assert rows(asking, "2026-01-03") == 299
    after = written(asking)
    assert {key for key in after if after[key] != before[key]} == {"2026-01-03"}
    (made,) = on_record(asking, "2026-01-03")
    assert (made.decision, made.who, made.reason) == ("repair: in_units", "admin", "the meter was set to milli")
    assert (made.rows, made.function, made.run) == (4, "synthetic:in_units", run_id)


def test_what_a_repair_leaves_is_asked_about_next_and_a_rerun_asks_no_more(
    airflow: AirflowApi, backfilled: list[dict], asking: Store
) -> None:
    run_id = run_of(airflow, "2026-01-03")
    assert question(airflow, run_id)["subject"] == "asking 2026-01-03: 1 of 300 rows in quarantine"
    answer(airflow, run_id, "drop", "nonsense")
    assert airflow.wait(QUARANTINE, run_id)["state"] == "success"
    before, runs = written(asking), len(airflow.runs(QUARANTINE))
    again = airflow.trigger(INGEST, partition="2026-01-03")
    assert airflow.wait(INGEST, again)["state"] == "success"
    assert airflow.tasks(INGEST, again)["ask"]["state"] == "skipped"
    assert written(asking) == before and len(airflow.runs(QUARANTINE)) == runs


def test_a_blocked_partition_is_asked_about_and_goes_on(
    airflow: AirflowApi, backfilled: list[dict], asking: Store
) -> None:
    blocked = airflow.trigger(INGEST, partition="2026-01-15")
    assert airflow.wait(INGEST, blocked)["state"] == "failed"
    assert not asking.has("features", "2026-01-15")
    run_id = run_of(airflow, "2026-01-15")
    answer(airflow, run_id, "drop", "")
    assert airflow.wait(QUARANTINE, run_id)["state"] == "success"
    assert rows(asking, "2026-01-15") == 269


def test_silence_releases_nothing(airflow: AirflowApi, backfilled: list[dict], asking: Store, stack: Any) -> None:
    run_id = run_of(airflow, "2026-01-05")
    before = written(asking)
    engine = sa.create_engine(stack.environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"])
    with engine.begin() as connection:  # a week is over
        past = "UPDATE task_instance SET trigger_timeout = now() - interval '1 second' WHERE run_id = :run"
        connection.execute(sa.text(past), {"run": run_id})
    assert airflow.wait(QUARANTINE, run_id)["state"] == "failed"
    assert "Nobody answered within 7 days. The rows stay in quarantine" in airflow.log(QUARANTINE, run_id, "decide")
    assert written(asking) == before and list(on_record(asking, "2026-01-05")) == []


def test_an_answer_about_rows_that_have_changed_is_void(
    airflow: AirflowApi, backfilled: list[dict], asking: Store
) -> None:
    run_id = run_of(airflow, "2026-01-06")
    raw = asking.read("raw", partitions=["2026-01-06"])
    asking.write("raw", parse_key("day", "2026-01-06"), raw.assign(late=1 - raw["late"]))
    answer(airflow, run_id, "release", "")
    assert airflow.wait(QUARANTINE, run_id)["state"] == "failed"
    log = airflow.log(QUARANTINE, run_id, "apply")
    assert "the answer is void: it is about 4 rows" in log and "by now there is version" in log
    assert list(on_record(asking, "2026-01-06")) == [] and rows(asking, "2026-01-06") == 296


def test_a_person_asks_to_decide_anew(airflow: AirflowApi, backfilled: list[dict], asking: Store) -> None:
    with pytest.raises(ServiceError, match="partition"):
        airflow.trigger(QUARANTINE)
    run_id = airflow.trigger(QUARANTINE, partition="2026-01-15")
    assert run_of(airflow, "2026-01-15") == run_id
    assert "Decided before" in question(airflow, run_id)["body"]
    answer(airflow, run_id, "repair: in_units", "milli, too")
    assert airflow.wait(QUARANTINE, run_id)["state"] == "success"
    assert rows(asking, "2026-01-15") == 299
    assert [one.decision for one in on_record(asking, "2026-01-15")] == ["drop", "repair: in_units"]
