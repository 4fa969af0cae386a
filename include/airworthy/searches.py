"""Searches as MLflow shows them: one while it runs, and what earlier ones found."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pydantic import ConfigDict, Field

from airworthy.config import Moment, Pipeline, Strict
from airworthy.evidence import LOWER_IS_BETTER
from airworthy.mlflow_server import BACKTEST, experiment_name
from airworthy.registry import Registry

_COSTS = ("value", "latency_ms", "size_mb")
_MEASURES = (*_COSTS, "stopped_at", "seconds", "cpu_seconds", "peak_mb")

log = logging.getLogger(__name__)

# Tags of a training run: what it searched, what it chose, and what it began with.
SPACE, BEST, WARM = "tune.space", "tune.best", "tune.warm_start"


class Trial(Strict):
    """One set of parameters and how good a model of them is.

    Attributes:
        number: 0, 1, 2, ... in order of drawing.
        value: On the judged rows; None for a trial that was stopped early.
        reports: What it was worth on the way, by percent of the training.
        seconds: It took to fit and score.
        cpu_seconds: Of all its threads; beside other trials those that a library starts are not in it.
        peak_mb: The most that the process grew while it ran, beside other trials by all of them, in 10^6 bytes.
        latency_ms: Median time of a prediction for one row.
        size_mb: Of the saved model, in 10^6 bytes.
    """

    # JSON has no number for infinity, and null means that a trial was stopped.
    model_config = ConfigDict(ser_json_inf_nan="strings")

    number: int
    params: dict[str, Any]
    value: float | None
    reports: dict[int, float] = Field(default_factory=dict)
    seconds: float
    cpu_seconds: float | None = None
    peak_mb: float | None = None
    latency_ms: float | None = None
    size_mb: float | None = None

    @property
    def stopped_at(self) -> int | None:
        return None if self.value is not None else max(self.reports)

    def row(self) -> dict[str, Any]:
        """Returns it as a row of the run's table of trials."""
        cost = {name: getattr(self, name) for name in ("seconds", "cpu_seconds", "peak_mb", "latency_ms", "size_mb")}
        return {"trial": self.number, "value": self.value, "stopped_at": self.stopped_at, **cost, **self.params}


class Measured(Strict):
    """A trial that came to its end, with what its model costs."""

    number: int
    params: dict[str, Any]
    value: float
    latency_ms: float
    size_mb: float


def measured(table: Mapping[str, Any] | None) -> list[Measured]:
    """Returns the finished trials of a run's table of trials (`trials.json`) that were measured, in order."""
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]] if table else []
    found = []
    for row in rows:
        number, cost = row.pop("trial"), {name: row.pop(name, None) for name in _MEASURES}
        if None not in (cost["value"], cost["latency_ms"], cost["size_mb"]):
            found.append(Measured(number=number, params=row, **{name: cost[name] for name in _COSTS}))
    return found


class Found(Strict):
    """The best parameters that a finished training run drew."""

    run_id: str
    as_of: Moment
    params: dict[str, Any]


@dataclass
class Running:
    """A training run in MLflow that is not over yet."""

    registry: Registry
    run_id: str
    pipeline: Pipeline
    best: float | None = None
    stopped: int = field(default=0)

    def tell(self, trial: Trial) -> None:
        """Leaves a trial's value, the best one so far and how many were stopped, at the step of its number."""
        from mlflow.entities import Metric

        metric, value = self.pipeline.metric, trial.value
        if value is None:
            self.stopped += 1
        elif self.best is None or (value < self.best) == (metric in LOWER_IS_BETTER):
            self.best = value
        told = {f"trial_{metric}": value, f"best_{metric}": self.best, "trials_stopped": float(self.stopped)}
        now = int(time.time() * 1000)
        points = [Metric(name, point, now, trial.number) for name, point in told.items() if point is not None]
        with self.registry.answering():
            self.registry.client.log_batch(self.run_id, metrics=points)


@contextmanager
def running(
    pipeline: Pipeline,
    as_of: datetime,
    training_key: str,
    registry: Registry,
    tags: Mapping[str, str],
) -> Iterator[Running]:
    """Yields a new run that MLflow shows as running; one that does not get to its end is left as failed.

    Runs of attempts at the same training that were cut off are marked as killed.

    Raises:
        ServiceError: MLflow does not answer.
    """
    run_id = registry.begin(pipeline.name, as_of, {**tags, "training_key": training_key})
    try:
        yield Running(registry, run_id, pipeline)
    except BaseException:
        try:
            registry.end(run_id, "FAILED")
        except Exception as error:  # what went wrong first is what must be told
            log.warning("Run %s stays open in MLflow: %s", run_id, error)
        raise
    query = f"tags.training_key = '{training_key}' and attributes.status = 'RUNNING'"
    for cut_off in registry.search(experiment_name(pipeline.name, backtest=BACKTEST in tags), query):
        registry.end(cut_off.info.run_id, "KILLED")


def earlier(pipeline: str, space: str, as_of: datetime, registry: Registry, *, backtest: str = "") -> Found | None:
    """Returns what the newest finished run as of an earlier date found in the same space, or None.

    A run as of the same or a later date may know what one as of this date must not. A backtest looks at its own
    policy's runs only, so that neither other policies nor what happened in production make a difference.

    Args:
        pipeline: Whose runs.
        space: What was searched.
        as_of: Runs are as of an earlier moment.
        registry: Where the runs are.
        backtest: The `declaration_key` that the runs of a backtest are tagged with; "" looks at live runs.

    Raises:
        ServiceError: MLflow does not answer.
    """
    query = f"tags.`{SPACE}` = '{space}' and attributes.status = 'FINISHED'"
    if backtest:
        query += f" and tags.{BACKTEST} = '{backtest}'"
    for run in registry.search(experiment_name(pipeline, backtest=bool(backtest)), query, order="tags.as_of DESC"):
        found = Found(run_id=run.info.run_id, as_of=run.data.tags["as_of"], params=json.loads(run.data.tags[BEST]))
        if found.as_of < as_of:
            return found
    return None


def begun_with(tags: Mapping[str, str]) -> Found | None:
    """Returns what the search of a run with these tags began with."""
    return Found.model_validate_json(tags[WARM]) if WARM in tags else None
