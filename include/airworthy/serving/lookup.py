"""Fills in what a request leaves to be looked up: the latest values of the views that the champion was trained with."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from airworthy.config import Pipeline
from airworthy.connections import Connections, from_environment
from airworthy.errors import DataError, ModelError, Problems, ServiceError
from airworthy.model_files import Contract, Lookup
from airworthy.online import Opened, entity, microseconds
from airworthy.serving.counters import Counters
from airworthy.serving.inputs import typed
from airworthy.serving.rows import Rows


class Lookups:
    """The views of one champion and the stores they are looked up in.

    Raises:
        ModelError: The pipeline file no longer declares a view that the model was trained with.
        ConfigError: A store's connection is not defined.
    """

    def __init__(self, pipeline: Pipeline, contract: Contract, connections: Connections = from_environment) -> None:
        self._pipeline = pipeline
        self._contract = contract
        self._stores: dict[str, Opened] = {}
        for lookup in contract.lookups:
            if lookup.view not in pipeline.views:
                rule = f"must declare the view {lookup.view}, which the model was trained with"
                raise ModelError(f"{pipeline.name}: views", rule, list(pipeline.views), "Train the model again")
            self._stores[lookup.view] = pipeline.views[lookup.view].online.open(connections)

    def fill(self, columns: dict[str, list[Any]], rows: int, counters: Counters) -> dict[str, list[Any]]:
        """Returns the columns with those of all views; each view is asked once, for all rows.

        A request that has all columns of a view is answered with these, and the view is not asked. A value
        older than the view's `max_age` at the row's time, or now if it has none, counts as missing, and so does
        one of an entity that is not known.

        Args:
            columns: Values of the declared types by column.
            rows: How many each column has.
            counters: Told what was found.

        Raises:
            DataError: A row has some columns of a view, or none and not the key either.
            ServiceError: A store does not answer, or with values of other types.
        """
        for lookup in self._contract.lookups:
            sent = [name for name in lookup.columns if name in columns]
            if len(sent) == len(lookup.columns):
                continue
            if sent:
                rule = f"must have all columns of the view {lookup.view} ({', '.join(lookup.columns)}), or none"
                raise DataError("request", rule, sent, "With none, they are looked up")
            if missing := [name for name in lookup.key if name not in columns]:
                rule = f"must have the column(s) {', '.join(missing)}, by which the view {lookup.view} is looked up"
                raise DataError("request", rule, list(columns))
            columns = columns | self._look_up(lookup, columns, rows, counters)
        return columns

    def _look_up(
        self, lookup: Lookup, columns: dict[str, list[Any]], rows: int, counters: Counters
    ) -> dict[str, list[Any]]:
        entities = [entity(values) for values in zip(*(columns[name] for name in lookup.key), strict=True)]
        wanted = sorted({name for name in entities if name is not None})
        view = f"{self._pipeline.name}.{lookup.view}"
        found = self._stores[lookup.view].read(view, wanted) if wanted else {}
        values: dict[str, list[Any]] = {name: [] for name in lookup.columns}
        outcomes = dict.fromkeys(("found", "expired", "unknown"), 0)
        for name, moment in zip(entities, self._moments(columns, rows), strict=True):
            outcome, content = "unknown", {}
            if name in found:
                known, text = found[name]
                expired = lookup.max_age is not None and moment - known > lookup.max_age * 1e6
                outcome, content = ("expired", {}) if expired else ("found", json.loads(text))
            outcomes[outcome] += 1
            for column in lookup.columns:
                values[column].append(content.get(column))
        for outcome, count in outcomes.items():
            counters.add("airworthy_lookups", count, pipeline=self._pipeline.name, view=lookup.view, outcome=outcome)
        inputs = [column for column in self._contract.inputs if column.name in values]
        try:
            return typed(inputs, Rows(values, rows))
        except Problems as problems:
            raise ServiceError(view, "must hold values of the types in training", hint=str(problems)) from None

    def _moments(self, columns: dict[str, list[Any]], rows: int) -> list[int]:
        """Returns each row's time, or now where it has none."""
        now = microseconds(datetime.now(UTC))
        times = columns.get(self._pipeline.time) or [None] * rows
        return [now if moment is None else microseconds(moment) for moment in times]
