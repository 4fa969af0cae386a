"""Registers Airworthy with Airflow; everything it registers lives in `airworthy_airflow`."""

from __future__ import annotations

from typing import Any, ClassVar

from airflow.plugins_manager import AirflowPlugin

from airworthy_airflow import links, measuring, preload, reports, timetable


class AirworthyPlugin(AirflowPlugin):
    name = "airworthy"
    timetables: ClassVar[list[Any]] = [timetable.PartitionTimetable]
    listeners: ClassVar[list[Any]] = [preload, measuring]
    fastapi_apps: ClassVar[list[Any]] = [
        {"app": reports.app, "url_prefix": reports.PREFIX, "name": "Airworthy reports"}
    ]
    operator_extra_links: ClassVar[list[Any]] = [
        links.MlflowRun(),
        links.Lineage(),
        links.ModelCard(),
        links.SchemaContract(),
        links.ValidationResult(),
        links.DataDocs(),
        links.Profile(),
        links.DriftReport(),
        links.MonitoringPage(),
        links.Endpoint(),
        links.GameDayReport(),
    ]
