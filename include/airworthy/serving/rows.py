"""Reads the rows of a request: the formats of MLflow's and SageMaker's scoring contract."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection
from typing import Any

import pandas as pd

from airworthy.errors import DataError

_BOOLEANS = {"true": True, "false": False, "1": True, "0": False}
_KEYS = ("dataframe_split", "dataframe_records", "instances")


def read_rows(body: bytes, content_type: str, booleans: Collection[str] = ()) -> pd.DataFrame:
    """Returns the rows as they were written; types are the model's business.

    Args:
        body: JSON with one of `dataframe_split`, `dataframe_records` and `instances`, or CSV with a header.
        content_type: As in the request's header; JSON when it is empty.
        booleans: The columns in which CSV's `true` and `false` are no text.

    Raises:
        DataError: The body is none of these, or holds no rows.
    """
    kind = content_type.partition(";")[0].strip().lower() or "application/json"
    if kind == "application/json":
        frame = _json(body)
    elif kind == "text/csv":
        frame = _csv(body, booleans)
    else:
        raise DataError("request: Content-Type", "must be application/json or text/csv", content_type)
    if frame.empty:
        raise DataError("request", "must hold at least one row")
    if not frame.columns.is_unique:
        raise DataError("request", "must not name a column twice", sorted(frame.columns[frame.columns.duplicated()]))
    for name, column in frame.items():
        if (nested := column.map(lambda value: isinstance(value, list | dict))).any():
            raise DataError(f"request: {name}", "must hold single values", column[nested].iloc[0])
    return frame


def _json(body: bytes) -> pd.DataFrame:
    try:
        content = json.loads(body)
    except ValueError as error:
        raise DataError("request", "must be JSON", hint=str(error)) from None
    keys = sorted(set(_KEYS) & set(content)) if isinstance(content, dict) else []
    if len(keys) != 1:
        got = sorted(content) if isinstance(content, dict) else content
        raise DataError("request", f"must be an object with one of {', '.join(_KEYS)}", got)
    rows = content[keys[0]]
    return _split(rows) if keys[0] == "dataframe_split" else _records(keys[0], rows)


def _split(rows: Any) -> pd.DataFrame:
    rule = "must be an object with `columns`, a list of names, and `data`, a list of rows as long"
    columns, data = (rows.get("columns"), rows.get("data")) if isinstance(rows, dict) else (None, None)
    if not isinstance(columns, list) or not isinstance(data, list):
        raise DataError("request: dataframe_split", rule, rows)
    for number, row in enumerate(data):
        if not isinstance(row, list) or len(row) != len(columns):
            raise DataError(f"request: dataframe_split.data[{number}]", f"must be a list of {len(columns)} values", row)
    return pd.DataFrame(data, columns=pd.Index(columns, dtype=object), dtype=object)


def _records(key: str, rows: Any) -> pd.DataFrame:
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"request: {key}", "must be a list of objects, one per row", rows)
    return pd.DataFrame(rows, dtype=object)


def _csv(body: bytes, booleans: Collection[str]) -> pd.DataFrame:
    """Reads CSV as text, so that a code such as 007 stays what it is; an empty cell is a missing value."""
    try:
        header, *rows = csv.reader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True)
    except (UnicodeDecodeError, csv.Error, ValueError) as error:
        raise DataError("request", "must be CSV in UTF-8 with a header", hint=str(error)) from None
    rows = [row for row in rows if row]
    for number, row in enumerate(rows, start=1):
        if len(row) != len(header):
            raise DataError(f"request: row {number}", f"must have {len(header)} fields, as the header", len(row))
    frame = pd.DataFrame([[cell or None for cell in row] for row in rows], columns=pd.Index(header), dtype=object)
    for name in set(booleans) & set(header):
        frame[name] = frame[name].map(lambda cell: _BOOLEANS.get(str(cell).lower(), cell))
    return frame
