"""Fills in what a request leaves to be looked up: the latest values of the views that the champion was trained with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pandas as pd

from airworthy.config import Pipeline
from airworthy.connections import Connections, from_environment
from airworthy.encoding import conform
from airworthy.errors import DataError, ModelError
from airworthy.model_files import Contract, Lookup
from airworthy.online import Opened, entity, microseconds
from airworthy.serving.counters import Counters


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

    def fill(self, rows: pd.DataFrame, counters: Counters) -> pd.DataFrame:
        """Returns the rows with the columns of all views; each view is asked once, for all rows.

        A request that has all columns of a view is answered with these, and the view is not asked. A value
        older than the view's `max_age` at the row's time, or now if it has none, counts as missing, and so does
        one of an entity that is not known.

        Raises:
            DataError: A row has some columns of a view, or none and not the key either.
            ServiceError: A store does not answer.
        """
        for lookup in self._contract.lookups:
            sent = [name for name in lookup.columns if name in rows.columns]
            if len(sent) == len(lookup.columns):
                continue
            if sent:
                rule = f"must have all columns of the view {lookup.view} ({', '.join(lookup.columns)}), or none"
                raise DataError("request", rule, sent, "With none, they are looked up")
            if missing := [name for name in lookup.key if name not in rows.columns]:
                rule = f"must have the column(s) {', '.join(missing)}, by which the view {lookup.view} is looked up"
                raise DataError("request", rule, list(map(str, rows.columns)))
            rows = rows.assign(**self._look_up(lookup, rows, counters))
        return rows

    def _look_up(self, lookup: Lookup, rows: pd.DataFrame, counters: Counters) -> dict[str, list[Any]]:
        typed = self._typed(lookup.key, rows)
        entities = [entity(values) for values in zip(*(typed[name].tolist() for name in lookup.key), strict=True)]
        wanted = sorted({name for name in entities if name is not None})
        view = f"{self._pipeline.name}.{lookup.view}"
        found = self._stores[lookup.view].read(view, wanted) if wanted else {}
        values: dict[str, list[Any]] = {name: [] for name in lookup.columns}
        outcomes = dict.fromkeys(("found", "expired", "unknown"), 0)
        for name, moment in zip(entities, self._moments(rows), strict=True):
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
        return values

    def _moments(self, rows: pd.DataFrame) -> list[int]:
        """Returns each row's time, or now where it has none."""
        now = microseconds(datetime.now(UTC))
        name = self._pipeline.time
        if name not in rows.columns:
            return [now] * len(rows)
        return [now if pd.isna(moment) else microseconds(moment) for moment in self._typed([name], rows)[name]]

    def _typed(self, names: Sequence[str], rows: pd.DataFrame) -> pd.DataFrame:
        return conform([column for column in self._contract.inputs if column.name in names], rows)
