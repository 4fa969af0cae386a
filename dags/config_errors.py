"""Turns red, naming every broken pipeline file, while the DAGs of healthy pipelines keep running.

Airflow marks all DAGs of a file that raises as stale, so the error is raised here, where there are none.
"""

from __future__ import annotations

from airworthy.config import load_all
from airworthy.errors import Problems
from airworthy.profile import pipelines_dir

# Airflow only reads files in which it finds both words, "airflow" and "dag".
_, broken = load_all(pipelines_dir())
if broken:
    raise Problems(
        "config/pipelines",
        [problem for found in broken.values() for problem in found.problems],
    )
