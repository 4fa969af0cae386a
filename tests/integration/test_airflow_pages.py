"""Airflow's own pages, in a real browser: what a person finds there, and a backfill asked for as a person does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from airworthy.airflow_api import AirflowApi

TASKS = {
    "ingest": ("ingest", "validate", "process"),
    "train": ("train", "evaluate", "gates", "deploy"),
    "monitor": ("score", "drift", "performance", "decide"),
}


@pytest.fixture(scope="module")
def page(sign_in: Callable[[str], Page], airflow: AirflowApi) -> Page:
    return sign_in("admin")


@pytest.mark.parametrize("part", TASKS)
def test_the_grid_shows_each_task_owner_and_tags(page: Page, part: str) -> None:
    page.goto(f"/dags/tiny.{part}")
    expect(page.get_by_role("heading", name=f"tiny · {part}")).to_be_visible()
    for task in TASKS[part]:
        expect(page.get_by_role("link", name=task, exact=True).first).to_be_visible()
    expect(page.get_by_role("link", name="tests", exact=True).first).to_be_visible()
    expect(page.get_by_text("airworthy").first).to_be_visible()


@pytest.mark.parametrize("part", TASKS)
def test_the_documentation_says_what_the_dag_does(page: Page, part: str) -> None:
    page.goto(f"/dags/tiny.{part}")
    page.get_by_label("Dag Docs").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("A synthetic pipeline whose truth is known")
    expect(dialog).to_contain_text(TASKS[part][0])


def test_the_asset_graph_joins_monitoring_to_training(page: Page) -> None:
    page.goto("/assets?name_pattern=tiny.retrain_request")
    page.get_by_role("link", name="tiny.retrain_request", exact=True).click()
    graph = page.locator(".react-flow")
    for node in ("tiny · monitor", "tiny.retrain_request", "tiny · train", "tiny.champion"):
        expect(graph.get_by_text(node, exact=True)).to_be_visible()


def test_a_backfill_asked_for_in_the_dialog_runs(page: Page, airflow: AirflowApi) -> None:
    airflow.unpause("pages.ingest")
    page.goto("/dags/pages.ingest")
    page.get_by_label("Trigger Dag").click()
    dialog = page.get_by_role("dialog").first
    dialog.get_by_text("Run this Dag for a range of dates").click()
    date = page.get_by_placeholder("YYYY/MM/DD").locator("visible=true")
    for day in ("2026/01/21", "2026/01/22"):
        dialog.get_by_text("Select date and time").first.click()
        date.fill(day)
        page.get_by_placeholder("HH:mm").locator("visible=true").fill("00:00")
        page.get_by_text("Date Range", exact=True).click()  # closes the calendar
        expect(date).to_have_count(0)
    expect(dialog.get_by_text("The day to work on, named by its start")).to_be_visible()
    dialog.get_by_role("button", name="Run Backfill").click()
    expect(dialog).to_be_hidden()
    runs = airflow.wait_for_backfill("pages.ingest")
    assert [(run["logical_date"][:10], run["state"]) for run in runs] == [
        ("2026-01-21", "success"),
        ("2026-01-22", "success"),
    ]


def test_the_link_on_a_task_opens_its_report(page: Page, airflow: AirflowApi) -> None:
    airflow.unpause("pages.ingest")
    run_id = airflow.trigger("pages.ingest", partition="2026-01-23")
    assert airflow.wait("pages.ingest", run_id)["state"] == "success"
    page.goto(f"/dags/pages.ingest/runs/{run_id}/tasks/validate/details")
    page.get_by_role("link", name="Validation result").click()
    expect(page.get_by_text("expect_column_values_to_be_in_set").first).to_be_visible()
