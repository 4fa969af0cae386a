"""The values that a rule compares a column with."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import numpy as np
from dateutil.parser import parse

from airworthy.expectations.rows import Query, UntranslatableError

_LISTED = 50


def comparable(query: Query, name: str) -> str:
    """Returns a column as a value that has an order: `false` and `true` are 0 and 1, as in Python."""
    column = query.column(name)
    return f"CAST({column} AS BIGINT)" if query.family(name) == "bool" else column


def bound(query: Query, name: str, value: Any) -> str:
    """Returns a value that the values of a column can be compared with.

    Raises:
        UntranslatableError: They cannot, or not in the same way as in pandas.
    """
    family = query.family(name)
    if family in ("number", "bool") and _is_number(value):
        return query.bind(_number(value))
    if family == "string" and isinstance(value, str):
        return query.bind(value)
    if family == "timestamp":
        return query.bind(_moment(value))
    raise UntranslatableError(f"a {family} is compared with {type(value).__name__}")


def members(query: Query, name: str, values: Iterable[Any] | None, *, parse_text: bool = False) -> str:
    """Returns the condition that a value of a column is one of `values`; those of other types match nothing.

    Args:
        query: Where the column is.
        name: The column.
        values: What `value_set` says; None means any value.
        parse_text: Whether text among them is read as a time when the column holds times.

    Raises:
        UntranslatableError: pandas might read these values in its own way.
    """
    column = query.column(name)
    if values is None:
        return "true"
    chosen = _members(query.family(name), list(values), parse_text=parse_text)
    if not chosen:
        return "false"
    column = comparable(query, name)
    if len(chosen) <= _LISTED:
        return f"{column} IN ({', '.join(map(query.bind, chosen))})"
    return f"{column} IN (SELECT unnest({query.bind(chosen)}))"


def _members(family: str, values: list[Any], *, parse_text: bool) -> list[Any]:
    if any(not (value is None or isinstance(value, str | datetime) or _is_number(value)) for value in values):
        raise UntranslatableError("the set holds values of other types")
    if family in ("number", "bool") and not any(isinstance(value, datetime) for value in values):
        return [_number(value) for value in values if _is_number(value) and not _is_nan(value)]
    if family == "string" and not any(isinstance(value, datetime) for value in values):
        return [value for value in values if isinstance(value, str)]
    if family == "timestamp" and (parse_text or not any(isinstance(value, str) for value in values)):
        return [_moment(value) for value in values if value is not None]
    raise UntranslatableError("the set may be read in a way of pandas")


def parsed(value: Any) -> Any:
    """Returns the time that a text says, and anything else as it is."""
    return _moment(value) if isinstance(value, str) else value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating)


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _number(value: Any) -> int | float:
    """Returns a number as DuckDB compares it with numbers."""
    number: int | float = value.item() if hasattr(value, "item") else value
    if _is_nan(number):
        raise UntranslatableError("NaN compares with nothing")
    return int(number) if isinstance(number, bool) else number


def _moment(value: Any) -> datetime:
    try:
        moment = parse(value) if isinstance(value, str) else value
    except (ValueError, OverflowError):
        raise UntranslatableError("is no time") from None
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        raise UntranslatableError("is no time with a time zone")
    return moment
