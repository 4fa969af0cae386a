"""The metrics that expectations ask for: each computed once, and as many as possible in one pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import duckdb
import pandas as pd

from airworthy.expectations.aggregates import AGGREGATES, QUERIES
from airworthy.expectations.conditions import CONDITIONS
from airworthy.expectations.domains import domain
from airworthy.expectations.failing import KNOWN, count, unexpected
from airworthy.expectations.rows import Query, Rows, UntranslatableError, plain

UNEXPECTED_COUNT = ".unexpected_count"
UNEXPECTED_VALUES = ".unexpected_values"
UNEXPECTED_POSITIONS = ".unexpected_index_list"
_DOMAIN_COUNT = ".filtered_row_count"
_LATER = (UNEXPECTED_VALUES, UNEXPECTED_POSITIONS, ".unexpected_index_query")

Metric = Any  # a MetricConfiguration of Great Expectations


class Plan:
    """What is asked of a dataset, and the answers.

    Attributes:
        answers: By a metric's id: its value, or the exception that its computation raised.
    """

    def __init__(self, rows: Rows, types: pd.DataFrame) -> None:
        self._rows = rows
        self._types = types
        self._shared: dict[Any, Metric] = {}
        self._single: dict[Any, Callable[[], Any]] = {}
        self.answers: dict[Any, Any] = {}

    def ask(self, metrics: Sequence[Metric]) -> None:
        """Leaves these metrics to be computed.

        Raises:
            UntranslatableError: One of them is not known, or SQL would not mean exactly the same; then
                none is left.
        """
        shared: dict[Any, Metric] = {}
        single: dict[Any, Callable[[], Any]] = {}
        for metric in metrics:
            name = metric.metric_name
            if self._is_shared(metric):
                _aggregate(self._rows.query(), metric)
                shared[metric.id] = metric
            elif not name.endswith(_LATER):
                single[metric.id] = self._alone(metric)
            elif condition_of(name) not in KNOWN:
                raise UntranslatableError(f"the metric {name} is not known")
        self._shared |= shared
        self._single |= single

    def compute(self) -> None:
        """Leaves an answer to every metric that was asked for."""
        self._pass(list(self._shared.values()))
        for key, metric in self._single.items():
            try:
                self.answers[key] = metric()
            except Exception as error:
                self.answers[key] = error

    def _is_shared(self, metric: Metric) -> bool:
        name, of = metric.metric_name, metric.metric_domain_kwargs
        if name == "table.row_count" and not of.get("row_condition") and not of.get("table"):
            return False  # files know it
        condition = condition_of(name)
        local = name.endswith(UNEXPECTED_COUNT) and condition in CONDITIONS
        return name in AGGREGATES or local or (name.endswith(_DOMAIN_COUNT) and condition in KNOWN)

    def _alone(self, metric: Metric) -> Callable[[], Any]:
        name, of, kwargs = metric.metric_name, metric.metric_domain_kwargs, metric.metric_value_kwargs or {}
        if name == "table.row_count":
            return self._rows.count
        if name == "table.columns":
            return lambda: list(self._types.columns)
        if name == "table.column_count":
            return lambda: len(self._types.columns)
        if name == "table.column_types":
            return lambda: [{"name": name, "type": kind} for name, kind in self._types.dtypes.items()]
        domain(self._rows.query(), of)
        if name.endswith(UNEXPECTED_COUNT) and condition_of(name) in KNOWN:
            return lambda: count(self._rows, condition_of(name), of, kwargs)
        if name in QUERIES:
            return lambda: QUERIES[name](self._rows, of, kwargs)
        raise UntranslatableError(f"the metric {name} is not known")

    def _pass(self, metrics: list[Metric]) -> None:
        """Computes metrics in one pass; if one of them makes it fail, the others in passes of their own."""
        if not metrics:
            return
        query = self._rows.query()
        try:
            parts = [_aggregate(query, metric) for metric in metrics]
            answer = self._rows.run(query, f"SELECT {', '.join(parts)} FROM {query.source()}")
        except duckdb.Error as error:
            if len(metrics) == 1:
                self.answers[metrics[0].id] = error
                return
            half = len(metrics) // 2
            self._pass(metrics[:half])
            self._pass(metrics[half:])
        except Exception as error:
            self.answers |= {metric.id: error for metric in metrics}
        else:
            values = (plain(column[0].as_py()) for column in answer.columns)
            self.answers |= dict(zip((metric.id for metric in metrics), values, strict=True))


def condition_of(name: str) -> str:
    """Returns the condition that a metric of failing rows is about."""
    return name.rpartition(".")[0]


def _aggregate(query: Query, metric: Metric) -> str:
    name, of, kwargs = metric.metric_name, metric.metric_domain_kwargs, metric.metric_value_kwargs or {}
    if name in AGGREGATES:
        found = domain(query, of)
        chosen = "" if found.chosen == "true" else f" FILTER (WHERE {found.chosen})"
        aggregate = AGGREGATES[name](query, found)
        return aggregate + chosen
    if name.endswith(_DOMAIN_COUNT):
        return _count(domain(query, of).where)
    return _count(unexpected(query, condition_of(name), of, kwargs))


def _count(condition: str) -> str:
    # For each aggregate with a FILTER DuckDB copies all columns: a pass of ninety takes three times as long.
    return f"count(CASE WHEN {condition} THEN 1 END)"
