"""The FastAPI application behind `reports.app`."""

from __future__ import annotations

from functools import cache

from airflow.api_fastapi.core_api.security import get_user
from fastapi import Depends, FastAPI, HTTPException
from fastapi.responses import FileResponse

from airworthy.profile import load_profile


@cache
def build() -> FastAPI:
    """Returns the application; only users who are logged in to Airflow get a page."""
    api = FastAPI(
        title="Airworthy reports",
        docs_url=None,
        redoc_url=None,
        dependencies=[Depends(get_user)],
    )
    root = load_profile().reports_dir.resolve()

    @api.get("/{path:path}")
    def page(path: str) -> FileResponse:
        file = (root / path).resolve()
        if not (file.is_relative_to(root) and file.is_file()):
            raise HTTPException(404, f"There is no report {path!r}; it is written when its task has run")
        return FileResponse(file)

    return api
