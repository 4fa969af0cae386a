"""The rows that fail: how many, where, and the first of their values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from airworthy.expectations.conditions import CONDITIONS, OF_ALL_ROWS
from airworthy.expectations.domains import Domain, domain
from airworthy.expectations.rows import POSITION, Query, Rows, UntranslatableError, plain

Kwargs = Mapping[str, Any]

SHOWN = 20  # the values in a result of Great Expectations


def _rising(sign: str) -> Callable[[str, bool], str]:
    def ordered(value: str, strictly: bool) -> str:
        # pandas subtracts neighbours, and what is between two infinities is not a number, which passes.
        return f"value {sign} previous OR (value = previous AND {_endless(value) if strictly else 'true'})"

    return ordered


def _endless(value: str) -> str:
    return f"coalesce(isinf(TRY_CAST({value} AS DOUBLE)), false)"


# Conditions between a value and the one before it, and those between a row and all others.
NEIGHBOURS = {"column_values.increasing": _rising(">"), "column_values.decreasing": _rising("<")}
REPEATED = {"column_values.unique", "compound_columns.unique"}
KNOWN = {*CONDITIONS, *NEIGHBOURS, *REPEATED}


def domain_of(query: Query, name: str, kwargs: Kwargs) -> tuple[Domain, str]:
    """Returns the domain of a condition, and the rows it judges, in SQL."""
    found = domain(query, kwargs)
    return found, found.chosen if name in OF_ALL_ROWS else found.where


def unexpected(query: Query, name: str, of: Kwargs, kwargs: Kwargs) -> str:
    """Returns the condition that a row fails, of those conditions that look at one row alone."""
    found, where = domain_of(query, name, of)
    return f"{where} AND NOT ({CONDITIONS[name](query, found, kwargs)})"


def relation(query: Query, name: str, of: Kwargs, kwargs: Kwargs) -> str:
    """Returns a query for all failing rows with their positions."""
    if name in CONDITIONS:
        condition = unexpected(query, name, of, kwargs)
        return f"SELECT * FROM {query.source(numbered=True)} WHERE {condition}"
    found, where = domain_of(query, name, of)
    if name in NEIGHBOURS:
        return _out_of_order(query, name, found, where, kwargs)
    return _repeated_rows(query, found, where)


def count(rows: Rows, name: str, of: Kwargs, kwargs: Kwargs) -> int:
    """Returns how many rows fail a condition that looks at several rows."""
    query = rows.query()
    if name in NEIGHBOURS:
        text = f"SELECT count(*) FROM ({relation(query, name, of, kwargs)})"
    else:
        found, where = domain_of(query, name, of)
        text = f"SELECT coalesce(sum(n), 0) FROM (SELECT count(*) AS n {_repeated(query, found, where)})"
    return int(rows.first(query, text)[0])


def find(rows: Rows, name: str, of: Kwargs, kwargs: Kwargs, *, all_rows: bool) -> tuple[np.ndarray, list[Any]]:
    """Returns the positions of failing rows, sorted, and the values of the first of them.

    Args:
        rows: Where they are.
        name: The condition they fail.
        of: Its domain.
        kwargs: Its other arguments.
        all_rows: Whether all positions are wanted, or the first `SHOWN` only.
    """
    query = rows.query()
    failing = relation(query, name, of, kwargs)
    found = domain(rows.query(), of)
    values = ", ".join(f"v{number}: {column}" for number, column in enumerate(found.columns))
    listed = f"list({POSITION})" if all_rows else f"min({POSITION}, {SHOWN})"
    answer = rows.run(query, f"SELECT {listed}, arg_min({{{values}}}, {POSITION}, {SHOWN}) FROM ({failing})")
    positions, first = (column.combine_chunks()[0] for column in answer.columns)
    return np.sort(positions.values.to_numpy()), [_value(found, row) for row in first.as_py()]


def _value(of: Domain, row: dict[str, Any]) -> Any:
    """Returns what a result shows of a row: a value, a pair, or several under their names."""
    values = [plain(value) for value in row.values()]
    if "column" in of.kwargs:
        return values[0]
    return tuple(values) if "column_A" in of.kwargs else dict(zip(of.names, values, strict=True))


def _out_of_order(query: Query, name: str, of: Domain, where: str, kwargs: Kwargs) -> str:
    if query.family(of.names[0]) not in ("number", "timestamp"):
        raise UntranslatableError("neighbours are subtracted")
    source = f"SELECT *, {of.columns[0]} AS value FROM {query.source(numbered=True)} WHERE {where}"
    ordered = NEIGHBOURS[name]("value", bool(kwargs.get("strictly")))
    return f"SELECT * FROM (SELECT *, lag(value) OVER () AS previous FROM ({source})) WHERE NOT ({ordered})"


def _repeated(query: Query, of: Domain, where: str) -> str:
    keys = ", ".join(of.columns)
    return f"FROM {query.source()} WHERE {where} GROUP BY {keys} HAVING count(*) > 1"


def _repeated_rows(query: Query, of: Domain, where: str) -> str:
    same = " AND ".join(f"one.{column} IS NOT DISTINCT FROM many.{column}" for column in of.columns)
    many = f"SELECT {', '.join(of.columns)} {_repeated(query, of, where)}"
    one = f"SELECT * FROM {query.source(numbered=True)} WHERE {where}"
    return f"SELECT one.* FROM ({one}) AS one SEMI JOIN ({many}) AS many ON {same}"
