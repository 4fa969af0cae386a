"""Metrics of whole columns and tables: each of Great Expectations' in SQL, meaning the same as on pandas.

What one pass can compute is in `AGGREGATES`, what needs a pass of its own in `QUERIES`. A new one is one
function and one line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from airworthy.expectations.domains import Domain, domain
from airworthy.expectations.rows import Family, Query, Rows, UntranslatableError, plain
from airworthy.expectations.statistics import quantiles
from airworthy.expectations.values import comparable, members, parsed

Kwargs = Mapping[str, Any]

_TIES = 1000
_ORDERED: set[Family] = {"number", "string", "bool", "timestamp"}
_ADDED: set[Family] = {"number", "bool"}


def _rows(query: Query, of: Domain) -> str:
    return "count(*)"


def _max(query: Query, of: Domain) -> str:
    return f"max({_value(query, of, _ORDERED)})"


def _min(query: Query, of: Domain) -> str:
    return f"min({_value(query, of, _ORDERED)})"


def _mean(query: Query, of: Domain) -> str:
    return f"avg({_number(query, of)})"


def _sum(query: Query, of: Domain) -> str:
    return f"coalesce(sum({_number(query, of)}), 0)"


def _deviation(query: Query, of: Domain) -> str:
    return f"stddev_samp({_number(query, of)})"


def _present(query: Query, of: Domain) -> str:
    return f"count({of.columns[0]})"


def _present_share(query: Query, of: Domain) -> str:
    return f"coalesce(count({of.columns[0]}) / nullif(count(*), 0), 0)"


def _value(query: Query, of: Domain, families: set[Family]) -> str:
    if query.family(of.names[0]) not in families:
        raise UntranslatableError("values of this type do not add up or compare")
    return of.columns[0]


def _number(query: Query, of: Domain) -> str:
    _value(query, of, _ADDED)
    return comparable(query, of.names[0])


AGGREGATES: dict[str, Callable[[Query, Domain], str]] = {
    "table.row_count": _rows,
    "column.max": _max,
    "column.min": _min,
    "column.mean": _mean,
    "column.sum": _sum,
    "column.standard_deviation": _deviation,
    "column.non_null_count": _present,
    "column.non_null_proportion": _present_share,
}


def _distinct(rows: Rows, of: Kwargs, kwargs: Kwargs) -> int:
    query = rows.query()
    return int(rows.first(query, f"SELECT count(*) FROM ({_groups(query, of)})")[0])


def _distinct_share(rows: Rows, of: Kwargs, kwargs: Kwargs) -> float:
    query = rows.query()
    groups = _groups(query, of, "count(*) AS n")
    distinct, present = rows.first(query, f"SELECT count(*), coalesce(sum(n), 0) FROM ({groups})")
    return float(distinct / present) if present else 0


def _not_in_set(rows: Rows, of: Kwargs, kwargs: Kwargs) -> list[Any]:
    limit = int(kwargs.get("limit") or 20)
    found = _outside(rows, of, kwargs, lambda column: f"coalesce(min({column}, {limit}), [])")
    return [plain(value) for value in found]


def _not_in_set_count(rows: Rows, of: Kwargs, kwargs: Kwargs) -> int:
    return int(_outside(rows, of, kwargs, lambda column: "count(*)"))


def _outside(rows: Rows, of: Kwargs, kwargs: Kwargs, answer: Callable[[str], str]) -> Any:
    query = rows.query()
    (name,) = domain(query, of).names
    inside = members(query, name, kwargs["value_set"] or [], parse_text=True)
    text = f"SELECT {answer(query.column(name))} FROM ({_groups(query, of)}) WHERE NOT ({inside})"
    return rows.first(query, text)[0]


def _missing(rows: Rows, of: Kwargs, kwargs: Kwargs) -> list[Any]:
    """Returns what the set has and the column has not; also values that it could not have."""
    query = rows.query()
    (name,) = domain(query, of).names
    values = list(kwargs["value_set"] or [])
    inside = members(query, name, values, parse_text=True)
    text = f"SELECT coalesce(list({query.column(name)}), []) FROM ({_groups(query, of)}) WHERE {inside}"
    present = {plain(value) for value in rows.first(query, text)[0]}
    expected = set(map(parsed, values)) if query.family(name) == "timestamp" else set(values)
    return list(expected - present)


def _missing_count(rows: Rows, of: Kwargs, kwargs: Kwargs) -> int:
    return len(_missing(rows, of, kwargs))


def _most_common(rows: Rows, of: Kwargs, kwargs: Kwargs) -> list[Any]:
    query = rows.query()
    found = domain(query, of)
    column = _value(query, found, {"number", "string", "bool"})  # pandas loses the zone of times
    groups = f"SELECT {column} FROM ({_groups(query, of, 'count(*) AS n')}) QUALIFY n = max(n) OVER ()"
    text = f"SELECT coalesce(list({column} ORDER BY {column}), []) FROM ({groups} LIMIT {_TIES + 1})"
    ties = list(rows.first(query, text)[0])
    if len(ties) > _TIES:
        raise UntranslatableError(f"more than {_TIES} values are the most common")
    return ties


def _groups(query: Query, of: Kwargs, counted: str = "") -> str:
    """Returns a query for the distinct values of a column, and what is counted of each."""
    found = domain(query, of)
    (column,) = found.columns
    if query.family(found.names[0]) == "other":
        raise UntranslatableError("values of this type are grouped in ways of pandas")
    chosen = ", ".join(filter(None, (column, counted)))
    return f"SELECT {chosen} FROM {query.source()} WHERE {found.where} GROUP BY {column}"


def _median(rows: Rows, of: Kwargs, kwargs: Kwargs) -> float:
    return _quantiles(rows, of, [0.5], "median", _ADDED)[0]


def _quantile_values(rows: Rows, of: Kwargs, kwargs: Kwargs) -> list[float]:
    interpolation = kwargs.get("allow_relative_error") or "nearest"
    if interpolation not in ("linear", "lower", "higher", "midpoint", "nearest"):
        raise UntranslatableError(f"there is no interpolation {interpolation}")
    return _quantiles(rows, of, kwargs["quantiles"], interpolation, {"number"})


def _quantiles(rows: Rows, of: Kwargs, wanted: list[float], interpolation: str, families: set[Family]) -> list[float]:
    query = rows.query()
    found = domain(query, of)
    _value(query, found, families)
    if not all(isinstance(quantile, int | float) and 0 <= quantile <= 1 for quantile in wanted):
        raise UntranslatableError("a quantile is outside 0 to 1")
    return quantiles(rows, found, wanted, interpolation)


QUERIES: dict[str, Callable[[Rows, Kwargs, Kwargs], Any]] = {
    "column.distinct_values.count": _distinct,
    "column.unique_proportion": _distinct_share,
    "column.distinct_values.not_in_set": _not_in_set,
    "column.distinct_values.not_in_set.count": _not_in_set_count,
    "column.distinct_values.missing_from_column": _missing,
    "column.distinct_values.missing_from_column.count": _missing_count,
    "column.most_common_value": _most_common,
    "column.median": _median,
    "column.quantile_values": _quantile_values,
}
