"""Judges expectations: Great Expectations says which metrics it needs and what they mean, DuckDB computes them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow.dataset as ds

from airworthy.config import Expectation
from airworthy.expectations import pandas_engine
from airworthy.expectations.failing import SHOWN, find
from airworthy.expectations.outcome import Outcome, columns_of, judge, title
from airworthy.expectations.plan import (
    UNEXPECTED_COUNT,
    UNEXPECTED_POSITIONS,
    UNEXPECTED_VALUES,
    Metric,
    Plan,
    condition_of,
)
from airworthy.expectations.rows import Rows, UntranslatableError, opened
from airworthy.expectations.specimen import specimen

_SUMMARY = {"result_format": "SUMMARY"}
# What DuckDB raises when it cannot do with values or types what pandas perhaps can.
_UNABLE = (UntranslatableError, duckdb.DataError, duckdb.ProgrammingError, duckdb.NotSupportedError)

log = logging.getLogger(__name__)


@dataclass
class Check:
    """One expectation on its way to its outcome.

    Attributes:
        built: Great Expectations' own object; None if the outcome says already why there is none.
        metrics: What it asks for, by name; empty if pandas must judge it.
    """

    outcome: Outcome
    built: Any = None
    metrics: dict[str, Metric] = field(default_factory=dict)

    def stopped(self, error: Exception) -> None:
        """Leaves in the outcome that the expectation could not be judged, and why."""
        self.outcome.status, self.outcome.rows, self.outcome.unexpected = "error", None, 0
        judge(self.outcome, pandas_engine.raised(self.built, error))


def prepared(expectation: Expectation, columns: Sequence[str]) -> Check:
    """Returns a check of rows with these columns, which has its outcome already if it cannot be judged on them."""
    check = Check(Outcome(expectation, title(expectation)))
    check.outcome.is_row_level = pandas_engine.is_row_level(expectation)
    missing = [column for column in columns_of(expectation) if column not in columns]
    if missing and expectation.type != "expect_column_to_exist":
        check.outcome.reason = f"the column {', '.join(missing)} does not exist; there are {', '.join(columns)}"
        return check
    try:
        check.built = pandas_engine.build(expectation)
    except ValueError as error:
        check.outcome.reason = str(error)
        return check
    severity = check.built.severity
    check.outcome.is_warning = str(getattr(severity, "value", severity)) != "critical"
    return check


class Judge:
    """Judges expectations on the rows of one dataset."""

    def __init__(self, rows: Rows, listed: int) -> None:
        self._rows = rows
        self._listed = listed
        self._engine = pandas_engine.engine(rows.schema.empty_table().to_pandas())

    def judge(self, expectations: Sequence[Expectation]) -> list[Outcome]:
        """Returns one outcome per expectation, in order."""
        checks = [prepared(expectation, self._rows.schema.names) for expectation in expectations]
        plan = self._planned(checks)
        plan.compute()
        for check in checks:
            if check.built is not None:
                self._finish(check, plan)
        return [check.outcome for check in checks]

    def _planned(self, checks: list[Check]) -> Plan:
        ready = [check for check in checks if check.built is not None]
        for check in ready:
            check.metrics = self._asked(check)
        types = self._rows.schema.empty_table().to_pandas()
        if any("table.column_types" in check.metrics for check in ready):
            types = specimen(self._rows)
            self._engine = pandas_engine.engine(types)
        plan = Plan(self._rows, types)
        for check in ready:
            try:
                check.metrics = self._asked(check)
                plan.ask(list(check.metrics.values()))
            except UntranslatableError as error:
                log.info("%s is judged on pandas: %s", check.outcome.title, error)
                check.metrics = {}
        return plan

    def _asked(self, check: Check) -> dict[str, Metric]:
        try:
            needed = check.built.get_validation_dependencies(self._engine, {"result_format": dict(_SUMMARY)})
        except Exception as error:
            log.debug("%s asks for no metrics: %s", check.outcome.title, error)
            return {}
        return dict(needed.metric_configurations)

    def _finish(self, check: Check, plan: Plan) -> None:
        try:
            if not check.metrics:
                raise UntranslatableError("no metrics")
            self._judge(check, plan)
        except _UNABLE:
            self._on_pandas(check)
        except Exception as error:
            check.stopped(error)

    def _judge(self, check: Check, plan: Plan) -> None:
        values = {metric.id: plan.answers.get(metric.id) for metric in check.metrics.values()}
        for value in values.values():
            if isinstance(value, Exception):
                raise value
        positions = self._positions(check, values)
        result = check.built.metrics_validate(
            metrics=values, runtime_configuration={"result_format": dict(_SUMMARY)}, execution_engine=self._engine
        )
        judge(check.outcome, result.to_json_dict())
        if check.outcome.status == "failed":
            check.outcome.rows = positions

    def _positions(self, check: Check, values: dict[Any, Any]) -> np.ndarray | None:
        """Completes the values with those of failing rows, and returns where these are."""
        wanted = next((one for name, one in check.metrics.items() if name.endswith(UNEXPECTED_VALUES)), None)
        if wanted is None:
            return None
        condition = condition_of(wanted.metric_name)
        failing = values[check.metrics[condition + UNEXPECTED_COUNT].id]
        all_rows = failing <= self._listed
        positions: np.ndarray = np.array([], dtype="int64")
        first: list[Any] = []
        if failing:
            of, kwargs = wanted.metric_domain_kwargs, wanted.metric_value_kwargs or {}
            positions, first = find(self._rows, condition, of, kwargs, all_rows=all_rows)
            if len(positions) != (failing if all_rows else min(failing, SHOWN)):
                raise RuntimeError(f"{failing} rows fail, but {len(positions)} are found")
        values[wanted.id] = first
        if (places := check.metrics.get(condition + UNEXPECTED_POSITIONS)) is not None:
            values[places.id] = positions[:SHOWN].tolist()
        return positions if all_rows else None

    def _on_pandas(self, check: Check) -> None:
        """Judges with Great Expectations on a frame of all rows."""
        try:
            frame = self._frame(check.outcome.expectation)
            judge(check.outcome, pandas_engine.validate(frame, check.built).to_json_dict())
            outcome = check.outcome
            if outcome.status == "failed" and outcome.is_row_level and outcome.unexpected <= self._listed:
                outcome.rows = pandas_engine.failing_rows(frame, check.built)
        except Exception as error:
            check.stopped(error)

    def _frame(self, expectation: Expectation) -> pd.DataFrame:
        columns = columns_of(expectation)
        return self._rows.frame(columns if columns and pandas_engine.needs_only_its_columns(expectation) else None)


def run(rows: ds.Dataset, expectations: Sequence[Expectation], *, listed: int) -> list[Outcome]:
    """Returns one outcome per expectation, in order.

    Args:
        rows: What to check.
        expectations: Under Great Expectations' own names.
        listed: More failing rows than this are counted, but not listed.
    """
    with opened(rows) as source:
        return Judge(source, listed).judge(expectations)
