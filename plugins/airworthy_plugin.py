"""Registers Airworthy with Airflow; everything it registers lives in `airworthy_airflow`."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin
from airworthy_airflow import links, preload, reports


class AirworthyPlugin(AirflowPlugin):
    name = "airworthy"
    listeners = [preload]
    fastapi_apps = [
        {"app": reports.app, "url_prefix": reports.PREFIX, "name": "Airworthy reports"}
    ]
    operator_extra_links = [
        links.MlflowRun(),
        links.ValidationResult(),
        links.DriftReport(),
        links.Endpoint(),
    ]
