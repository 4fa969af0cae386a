"""What the last task of monitoring leaves besides its decision."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airworthy import monitoring_page
from airworthy.config import load_pipeline
from airworthy.errors import ServiceError
from airworthy.profile import ROOT
from airworthy_airflow import links, reports
from airworthy_airflow.operators import DecideOperator
from airworthy_airflow.operators import stage as stages


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch) -> DecideOperator:
    monkeypatch.setattr(stages, "load_profile", lambda: SimpleNamespace(reports_dir=Path("reports")))
    monkeypatch.setattr(reports, "url", lambda path: f"http://airflow/{path}")
    pipeline = load_pipeline(ROOT / "config" / "pipelines" / "flight_delays.yaml")
    return DecideOperator(task_id="decide", pipeline=pipeline, drift=None, performance=None)


def test_the_task_links_to_the_page_of_all_partitions(task: DecideOperator, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    monkeypatch.setattr(monitoring_page, "publish", lambda pipeline, _: written.append(pipeline.name))
    task._write_page()
    assert written == ["flight_delays"]
    (link,) = task.operator_extra_links
    assert isinstance(link, links.MonitoringPage)
    assert link.get_link(task, ti_key=None) == "http://airflow/flight_delays/monitoring.html"


def test_a_page_that_cannot_be_drawn_keeps_no_decision_from_being_made(
    task: DecideOperator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any) -> None:
        raise ServiceError("mlflow", "must answer")

    monkeypatch.setattr(monitoring_page, "publish", fail)
    task._write_page()
    assert task.links == {}
    assert "`airworthy monitoring flight_delays` tries again" in capsys.readouterr().out
