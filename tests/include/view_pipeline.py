"""A small pipeline with a feature view, and rows for both."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
import pyarrow as pa

from airworthy.columns import TIMESTAMP
from airworthy.config import Pipeline
from airworthy.partitions import Partition, parse_key
from airworthy.stages.view_join import join_views
from airworthy.store import Store

START = datetime(2024, 1, 1, tzinfo=UTC)
DAYS = [parse_key("day", f"2024-01-0{number}") for number in range(1, 6)]
TABLE = "view_weather"


def pipeline(**weather: Any) -> Pipeline:
    """Returns a pipeline whose rows get `temp` of their `origin`."""
    declared = {
        "source": {"files": {"glob": "weather/{partition}.parquet"}},
        "key": ["origin"],
        "time": "observed_at",
        "columns": ["temp"],
    }
    return Pipeline(
        name="flights",
        description="Flights",
        start=START,
        source={"files": {"glob": "flights/{partition}.parquet"}},
        time="time",
        key=("flight",),
        label={"column": "late"},
        model={"xgboost": {}},
        views={"weather": {**declared, **weather}},
    )


def at(hours: float) -> datetime:
    return START + timedelta(hours=hours)


def weather(rows: Sequence[tuple[Any, datetime, Any]]) -> pa.Table:
    """Returns rows of origin, observed_at and temp."""
    origin, observed_at, temp = zip(*rows, strict=True) if rows else ((), (), ())
    types = {"origin": pa.string(), "observed_at": TIMESTAMP, "temp": pa.int64()}
    return pa.table(dict(zip(types, map(list, (origin, observed_at, temp)), strict=True)), pa.schema(types))


def flights(rows: Sequence[tuple[Any, datetime]]) -> pa.Table:
    """Returns rows of flight, origin and time."""
    types = {"flight": pa.int64(), "origin": pa.string(), "time": TIMESTAMP}
    content = [range(len(rows)), [origin for origin, _ in rows], [moment for _, moment in rows]]
    return pa.table(dict(zip(types, map(list, content), strict=True)), pa.schema(types))


def fill(store: Store, rows: Sequence[tuple[Any, datetime, Any]]) -> None:
    """Leaves the rows in the view's table, those of each day in the order they are given."""
    for day in DAYS:
        if chosen := [row for row in rows if day.start <= row[1] < day.end]:
            store.write(TABLE, day, weather(chosen))


def joined(
    declared: Pipeline, store: Store, day: Partition, rows: Sequence[tuple[Any, datetime]], **versions: int
) -> list[Any]:
    """Returns the temperature that each flight gets."""
    with join_views(declared, day, store, versions or None) as join:
        found = join(flights(rows))
    assert found.drop_columns("temp") == flights(rows)
    return list(found["temp"].to_pylist())


def frame(rows: Sequence[tuple[Any, datetime, Any]]) -> pd.DataFrame:
    return weather(rows).to_pandas()
