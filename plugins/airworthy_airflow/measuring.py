"""Puts on record what every task of a pipeline takes, also one that fails or skips itself.

Airflow calls these listeners in the process of the task: before its operator begins, and after the scheduler was told
how it ended, so that no other task waits for the record. A task that a person marks as done was not measured.
"""

from __future__ import annotations

import logging
from typing import Any

from airflow.listeners import hookimpl

from airworthy.resources import Meter

_running: list[Meter] = []  # at most one: a process runs one task

log = logging.getLogger(__name__)


@hookimpl
def on_task_instance_running(previous_state: Any, task_instance: Any) -> None:
    """Begins to measure a task of a pipeline."""
    if _pipeline(task_instance):
        _running.append(Meter())


@hookimpl
def on_task_instance_success(previous_state: Any, task_instance: Any) -> None:
    """Leaves a task that did its work on record."""
    _record(task_instance, "success")


@hookimpl
def on_task_instance_skipped(previous_state: Any, task_instance: Any) -> None:
    """Leaves a task that found nothing to do on record."""
    _record(task_instance, "skipped")


@hookimpl
def on_task_instance_failed(previous_state: Any, task_instance: Any, error: Any) -> None:
    """Leaves an attempt that failed on record, whether or not there will be another."""
    _record(task_instance, "failed")


def _pipeline(task_instance: Any) -> str:
    """Returns whose stage it is; "" for the tasks of others, and in Airflow's API server."""
    from airworthy_airflow.operators.stage import StageOperator

    task = getattr(task_instance, "task", None)
    return task.pipeline.name if isinstance(task, StageOperator) else ""


def _record(task_instance: Any, state: str) -> None:
    if not _running:
        return
    used = _running.pop().stop()
    from airworthy.errors import AirworthyError
    from airworthy.profile import load_profile
    from airworthy.resource_log import ResourceLog

    found = task_instance
    log.info("%.1f s, %.1f s of processors, at most %.0f MB more than before", *used[:3])
    try:
        kept = ResourceLog(load_profile().ledger_url)
        kept.add(_pipeline(found), found.task_id, found.run_id, found.try_number, state, used)
    except AirworthyError as error:  # what a task took is worth less than what it did
        log.warning("What the task took is not on record: %s", error)
