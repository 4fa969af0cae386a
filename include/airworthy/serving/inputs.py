"""Holds the rows of a request to what the model's contract says: every column, every value, nothing more."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from math import isfinite, nan
from typing import Any, Literal

from airworthy.encoding import Input
from airworthy.errors import AirworthyError, DataError, Problems
from airworthy.serving.rows import Rows

_RULES = {
    "integer": "must be a whole number of 64 bits, or null",
    "number": "must be a finite number, or null",
    "boolean": "must be true or false, or null",
    "timestamp": "must be text with a timestamp in ISO 8601, or null",
    "string": "must be text, or null",
}
_BOOLEANS = {"true": True, "false": False, "1": True, "0": False}
_WHOLE = range(-(2**63), 2**63)
_PLAIN: dict[str, set[type]] = {
    "integer": {int},
    "number": {int, float},
    "boolean": {bool},
    "timestamp": {str},
    "string": {str},
}
_NONE = type(None)


def typed(
    inputs: Sequence[Input], rows: Rows, optional: Collection[str] = (), set_aside: Collection[str] = ()
) -> dict[str, list[Any]]:
    """Returns the columns with Python values of the declared types, in the order of `inputs`; None where missing.

    A timestamp is a `datetime` in UTC, one without a zone counts as UTC. A whole number may be written as 3.0.

    Args:
        inputs: What the model takes.
        rows: What was sent.
        optional: The columns that a request may leave out; they are left out of what is returned too.
        set_aside: The columns that a request may have for nothing, as other versions may have taken them.

    Raises:
        Problems: Columns are missing or not known, or values are not of their column's type; of each column the
            first such value is named.
    """
    problems: list[AirworthyError] = []
    known = {column.name for column in inputs}
    if missing := [column.name for column in inputs if column.name not in rows.columns and column.name not in optional]:
        got = list(rows.columns)
        problems.append(DataError("request", f"must have the column(s) {', '.join(missing)}", got))
    if extra := [name for name in rows.columns if name not in known and name not in set_aside]:
        hint = f"It takes {', '.join(column.name for column in inputs)}"
        problems.append(DataError("request", "must have no column that the model does not take", extra, hint))
    found = {}
    for column in inputs:
        if column.name in rows.columns:
            values = rows.columns[column.name]
            if rows.text and column.type != "string":
                values = [_read(column.type, value) for value in values]
            try:
                found[column.name] = _convert(column.type, values)
            except (ValueError, OverflowError):
                problems.append(_offending(column, rows.columns[column.name], values))
    if problems:
        raise Problems("request", problems)
    return found


def _convert(kind: Literal["integer", "number", "boolean", "timestamp", "string"], values: list[Any]) -> list[Any]:
    """Returns the values in the declared type; raises ValueError or OverflowError if one is of another."""
    types = {*map(type, values)} - {_NONE}
    if kind == "integer" and float in types:
        values = [_whole(value) for value in values]
        types = types - {float} | {int}
    if types - _PLAIN[kind]:
        raise ValueError
    if kind == "timestamp":
        return [value if value is None else _moment(value) for value in values]
    given = values if None not in values else [value for value in values if value is not None]
    if kind == "number" and not all(map(isfinite, given)):
        raise ValueError
    if kind == "integer" and not all(value in _WHOLE for value in given):
        raise OverflowError
    return values


def _whole(value: Any) -> Any:
    if isinstance(value, float):
        if not value.is_integer():  # neither is NaN or an infinity
            raise ValueError
        return int(value)
    return value


def _moment(value: str) -> datetime:
    found = datetime.fromisoformat(value)
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def _read(kind: str, value: str | None) -> Any:
    """Returns what a cell of CSV stands for, or the cell itself where it stands for nothing of this kind."""
    if value is None or kind == "timestamp":
        return value
    if kind == "boolean":
        return _BOOLEANS.get(value.lower(), value)
    convert: Callable[[str], Any] = int if kind == "integer" else float
    for attempt in (convert, float):
        try:
            return value if "_" in value else attempt(value)  # Python takes 1_000 for a number, nobody else does
        except ValueError:
            continue
    return value


def _offending(column: Input, sent: Sequence[Any], values: Sequence[Any]) -> DataError:
    """Returns what is wrong with the first value of a column that is not of its type."""
    for row, value in enumerate(values):
        try:
            _convert(column.type, [value])
        except (ValueError, OverflowError):
            got = sent[row]
            break
    return DataError(f"request: row {row}: {column.name}", _RULES[column.type], nan if got != got else got)
