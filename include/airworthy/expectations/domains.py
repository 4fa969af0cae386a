"""Which rows an expectation looks at: its `row_condition`, and what it says of missing values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airworthy.expectations.rows import Query, UntranslatableError
from airworthy.expectations.values import bound, members

_MISSING = {"both_values_are_missing": "OR", "all_values_are_missing": "OR"}
_ANY_MISSING = {"either_value_is_missing": "AND", "any_value_is_missing": "AND"}
_NONE_IGNORED = {"neither", "never"}
_COMPARISONS = {"==": "=", "<": "<", "<=": "<=", ">": ">", ">=": ">="}


@dataclass(frozen=True)
class Domain:
    """The columns of a metric, and the rows it is about.

    Attributes:
        kwargs: The metric's own words for it.
        names: The columns, as the dataset calls them.
        columns: The same, as the query calls them.
        chosen: The rows that the `row_condition` chooses, in SQL.
        where: Those of them in which the metric's values are not missing, in SQL.
    """

    kwargs: Mapping[str, Any]
    names: tuple[str, ...]
    columns: tuple[str, ...]
    chosen: str
    where: str


def domain(query: Query, kwargs: Mapping[str, Any]) -> Domain:
    """Returns what the domain arguments of a metric mean.

    Raises:
        UntranslatableError: SQL cannot say it.
    """
    names = _names(kwargs)
    columns = tuple(query.column(name) for name in names)
    if kwargs.get("table"):
        raise UntranslatableError("names another table")
    chosen = _chosen(query, kwargs.get("row_condition"))
    return Domain(kwargs, names, columns, chosen, _and(chosen, _present(kwargs, columns)))


def _names(kwargs: Mapping[str, Any]) -> tuple[str, ...]:
    if "column" in kwargs:
        return (kwargs["column"],)
    if "column_A" in kwargs:
        return (kwargs["column_A"], kwargs["column_B"])
    return tuple(kwargs.get("column_list") or ())


def _present(kwargs: Mapping[str, Any], columns: tuple[str, ...]) -> str:
    if not columns:
        return "true"
    ignored = kwargs.get("ignore_row_if")
    if "column" in kwargs:
        return f"{columns[0]} IS NOT NULL"
    if ignored is None or ignored in _NONE_IGNORED:
        return "true"
    joined = _MISSING.get(ignored) or _ANY_MISSING.get(ignored)
    if joined is None:
        raise UntranslatableError(f"ignore_row_if is {ignored}")
    return "(" + f" {joined} ".join(f"{column} IS NOT NULL" for column in columns) + ")"


def _chosen(query: Query, condition: Any) -> str:
    from great_expectations.expectations import row_conditions as gx

    if isinstance(condition, dict):
        condition = gx.deserialize_row_condition(condition)
    if not condition:
        return "true"
    if isinstance(condition, gx.AndCondition | gx.OrCondition):
        joined = " AND " if isinstance(condition, gx.AndCondition) else " OR "
        return "(" + joined.join(_chosen(query, one) for one in condition.conditions) + ")"
    if isinstance(condition, gx.NullityCondition):
        return f"{query.column(condition.column.name)} IS {'' if condition.is_null else 'NOT '}NULL"
    if isinstance(condition, gx.ComparisonCondition):
        return _comparison(query, condition.column.name, str(condition.operator), condition.parameter)
    raise UntranslatableError("the row_condition is an expression of pandas")


def _comparison(query: Query, name: str, operator: str, value: Any) -> str:
    """Returns a comparison as `DataFrame.query` makes it: a missing value is unequal to all."""
    column = query.column(name)
    if query.family(name) not in ("number", "string"):
        raise UntranslatableError("the row_condition compares neither numbers nor text")
    if operator in ("IN", "NOT_IN"):
        inside = f"coalesce({members(query, name, value)}, false)"
        return inside if operator == "IN" else f"NOT {inside}"
    other = bound(query, name, value)
    if operator == "!=":
        return f"{column} IS DISTINCT FROM {other}"
    if operator not in _COMPARISONS:
        raise UntranslatableError(f"the row_condition has the operator {operator}")
    return f"coalesce({column} {_COMPARISONS[operator]} {other}, false)"


def _and(*conditions: str) -> str:
    return " AND ".join(one for one in conditions if one != "true") or "true"
