"""Serves the pages that stages write, behind Airflow's own login."""

from __future__ import annotations

from typing import Any

PREFIX = "/airworthy/reports"


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers with a page under the profile's `reports_dir`.

    An ASGI callable and not the application itself, because every Airflow process that loads plugins
    would pay for importing the API server's security module.
    """
    from airworthy_airflow.reports_app import build

    await build()(scope, receive, send)


def url(path: str) -> str:
    """Returns the address of a page given by its path below `reports_dir`."""
    from airworthy.profile import load_profile

    return f"{load_profile().airflow_url.rstrip('/')}{PREFIX}/{path}"
