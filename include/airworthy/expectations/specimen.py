"""A frame of two rows with the types that pandas would give the whole dataset."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import pyarrow as pa

from airworthy.config import Expectation
from airworthy.expectations.pandas_engine import build, validate
from airworthy.expectations.rows import Family, Rows

_SAMPLES: dict[Family, Any] = {
    "number": 1,
    "string": "text",
    "bool": True,
    "timestamp": datetime(2000, 1, 1, tzinfo=UTC),
}


def specimen(rows: Rows) -> pd.DataFrame:
    """Returns two rows, the second missing what is missing anywhere.

    An integer or boolean column gets another type in pandas when a value of it is missing.
    """
    query = rows.query()
    fields = {name: query.family(name) for name in rows.schema.names}
    counted = [name for name, family in fields.items() if family in ("number", "bool")]
    counts = ", ".join(["count(*)", *(f"count({query.column(name)})" for name in counted)])
    total, *present = rows.first(query, f"SELECT {counts} FROM {query.source()}")
    known = dict(zip(counted, present, strict=True))
    arrays = []
    for name, family in fields.items():
        sample = _SAMPLES.get(family) if known.get(name, total) else None
        last = sample if known.get(name, total) == total else None
        arrays.append(pa.array([sample, last][: min(total, 2)], rows.schema.field(name).type))
    frame: pd.DataFrame = pa.table(arrays, rows.schema.names).to_pandas()
    return frame


def is_of_type(rows: Rows, name: str, kwargs: Mapping[str, Any]) -> bool:
    """Returns whether Great Expectations finds the values of a column to be of the wanted type or types."""
    asked = {key: kwargs[key] for key in ("type_", "type_list") if key in kwargs}
    sort = "of_type" if "type_" in asked else "in_type_list"
    expectation = Expectation(type=f"expect_column_values_to_be_{sort}", kwargs={"column": name, **asked})
    return bool(validate(specimen(rows)[[name]], build(expectation)).success)
