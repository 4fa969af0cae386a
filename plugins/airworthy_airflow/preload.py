"""Imports the heavy libraries once, in the process that forks tasks.

LocalExecutor forks its workers from the scheduler, and a worker forks each task, so what the
scheduler has imported before it starts its executor costs no task anything. Listeners run in every
component; only the scheduler must pay.
"""

from __future__ import annotations

import importlib
import logging
import sys
import time

from airflow.listeners import hookimpl

log = logging.getLogger(__name__)


@hookimpl
def on_starting(component: object) -> None:
    """Leaves the profile's `preload` modules imported if this process is the scheduler."""
    # `component` has no job type yet when Airflow calls this, so the command decides.
    if sys.argv[1:2] != ["scheduler"] or not hasattr(component, "executor_class"):
        return
    from airworthy.profile import load_profile

    logging.getLogger("great_expectations").setLevel(logging.WARNING)  # else 216 lines at import
    started = time.monotonic()
    modules = load_profile().preload
    for module in modules:
        importlib.import_module(module)
    log.info(
        "Preloaded %d modules for the tasks in %.1f s",
        len(modules),
        time.monotonic() - started,
    )
