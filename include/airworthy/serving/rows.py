"""Reads the rows of a request into columns: the formats of MLflow's and SageMaker's scoring contract."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from airworthy.errors import DataError

_KEYS = ("dataframe_split", "dataframe_records", "instances")


@dataclass(frozen=True)
class Rows:
    """The rows of one request, as they were written; types are the model's business.

    Attributes:
        columns: The values of each column, in the order of the rows; None where one is missing.
        count: How many rows there are.
        text: Whether the values are text that stands for numbers, times and the like, as in CSV.
    """

    columns: dict[str, list[Any]]
    count: int
    text: bool = False


def read_rows(body: bytes, content_type: str) -> Rows:
    """Returns the rows of a request.

    Args:
        body: JSON with one of `dataframe_split`, `dataframe_records` and `instances`, or CSV with a header.
        content_type: As in the request's header; JSON when it is empty.

    Raises:
        DataError: The body is none of these, or holds no rows.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind in ("application/json", ""):
        return _json(body)
    if kind == "text/csv":
        return _csv(body)
    raise DataError("request: Content-Type", "must be application/json or text/csv", content_type)


def _json(body: bytes) -> Rows:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise DataError("request", "must be JSON", hint=str(error)) from None
    keys = sorted(set(_KEYS) & content.keys()) if isinstance(content, dict) else []
    if len(keys) != 1:
        got = sorted(content) if isinstance(content, dict) else content
        raise DataError("request", f"must be an object with one of {', '.join(_KEYS)}", got)
    rows = content[keys[0]]
    return _split(rows) if keys[0] == "dataframe_split" else _records(keys[0], rows)


def _split(rows: Any) -> Rows:
    rule = "must be an object with `columns`, a list of names, and `data`, a list of rows as long"
    names, data = (rows.get("columns"), rows.get("data")) if isinstance(rows, dict) else (None, None)
    if not isinstance(names, list) or not isinstance(data, list) or {*map(type, names)} - {str}:
        raise DataError("request: dataframe_split", rule, rows)
    for number, row in enumerate(data):
        if not isinstance(row, list) or len(row) != len(names):
            raise DataError(f"request: dataframe_split.data[{number}]", f"must be a list of {len(names)} values", row)
    return by_column(names, data)


def _records(key: str, rows: Any) -> Rows:
    if not isinstance(rows, list) or {*map(type, rows)} - {dict}:
        raise DataError(f"request: {key}", "must be a list of objects, one per row", rows)
    names = rows[0].keys() if rows else ()
    for number, row in enumerate(rows):
        if row.keys() != names:
            (name,) = sorted(row.keys() ^ names)[:1]
            first = "must be given, as in row 0" if name in names else "must be given in row 0 too"
            raise DataError(f"request: row {number}: {name}", first, hint="A value that is missing is null")
    columns = {name: [row[name] for row in rows] for name in names}
    return _some(Rows(columns, len(rows)))


def _csv(body: bytes) -> Rows:
    """Reads CSV as text, so that a code such as 007 stays what it is; an empty cell is a missing value."""
    try:
        header, *rows = csv.reader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True)
    except (UnicodeDecodeError, csv.Error, ValueError) as error:
        raise DataError("request", "must be CSV in UTF-8 with a header", hint=str(error)) from None
    rows = [row for row in rows if row]
    for number, row in enumerate(rows):
        if len(row) != len(header):
            raise DataError(f"request: row {number}", f"must have {len(header)} fields, as the header", len(row))
    return by_column(header, [[cell or None for cell in row] for row in rows], text=True)


def by_column(names: Sequence[str], data: Sequence[Sequence[Any]], *, text: bool = False) -> Rows:
    """Returns the columns of rows that are as long as there are names.

    Raises:
        DataError: A column is named twice, or there are no rows.
    """
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise DataError("request", "must not name a column twice", twice)
    columns = dict(zip(names, map(list, zip(*data, strict=True)), strict=False))
    return _some(Rows(columns, len(data), text))


def _some(rows: Rows) -> Rows:
    if not rows.count:
        raise DataError("request", "must hold at least one row")
    return rows
