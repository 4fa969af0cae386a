"""When a row meets an expectation: each condition of Great Expectations in SQL, meaning the same as on pandas.

A condition is a function of the query, the domain and the metric's own arguments. It says what holds of
the rows in which `Domain.where` holds; in all others it may be anything. A new one is one function and
one line in `CONDITIONS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from airworthy.expectations.domains import Domain
from airworthy.expectations.regex import re2
from airworthy.expectations.rows import Query, UntranslatableError
from airworthy.expectations.specimen import is_of_type
from airworthy.expectations.statistics import moments, quantiles
from airworthy.expectations.values import bound, comparable, members

Kwargs = Mapping[str, Any]
Condition = Callable[[Query, Domain, Kwargs], str]


def _nonnull(query: Query, of: Domain, kwargs: Kwargs) -> str:
    return f"{of.columns[0]} IS NOT NULL"


def _null(query: Query, of: Domain, kwargs: Kwargs) -> str:
    return f"{of.columns[0]} IS NULL"


def _between(query: Query, of: Domain, kwargs: Kwargs) -> str:
    (name,) = of.names
    column = comparable(query, name)
    return _within(column, kwargs, lambda value: bound(query, name, value))


def _length_between(query: Query, of: Domain, kwargs: Kwargs) -> str:
    return _within(_length(query, of), kwargs, lambda value: _size(query, value))


def _length_equals(query: Query, of: Domain, kwargs: Kwargs) -> str:
    return f"{_length(query, of)} = {_size(query, kwargs['value'])}"


def _within(value: str, kwargs: Kwargs, bind: Callable[[Any], str]) -> str:
    least, most = kwargs.get("min_value"), kwargs.get("max_value")
    if least is None and most is None:
        raise UntranslatableError("there is neither min_value nor max_value")
    conditions = []
    if least is not None:
        conditions.append(f"{value} {'>' if kwargs.get('strict_min') else '>='} {bind(least)}")
    if most is not None:
        conditions.append(f"{value} {'<' if kwargs.get('strict_max') else '<='} {bind(most)}")
    if least is not None and most is not None:
        _ordered(least, most)
    return " AND ".join(conditions)


def _ordered(least: Any, most: Any) -> None:
    try:
        wrong = bool(least > most)
    except TypeError:
        wrong = True
    if wrong:
        raise UntranslatableError("min_value is greater than max_value")


def _length(query: Query, of: Domain) -> str:
    return f"length({_text(query, of)})"


def _size(query: Query, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UntranslatableError("a length is compared with no number")
    return query.bind(value)


def _text(query: Query, of: Domain) -> str:
    """Returns the column if it holds text; numbers are written by pandas in its own way."""
    if query.family(of.names[0]) != "string":
        raise UntranslatableError("the column holds no text")
    return of.columns[0]


def _in_set(query: Query, of: Domain, kwargs: Kwargs) -> str:
    return members(query, of.names[0], kwargs["value_set"])


def _not_in_set(query: Query, of: Domain, kwargs: Kwargs) -> str:
    if kwargs["value_set"] is None:
        return "true"
    return f"NOT ({members(query, of.names[0], kwargs['value_set'], parse_text=True)})"


def _regex(query: Query, of: Domain, kwargs: Kwargs) -> str:
    return _finds(query, _text(query, of), kwargs["regex"])


def _regex_list(query: Query, of: Domain, kwargs: Kwargs) -> str:
    joined = {"any": " OR ", None: " OR ", "all": " AND "}.get(kwargs.get("match_on"))
    if joined is None or not kwargs["regex_list"]:
        raise UntranslatableError("match_on must be any or all, of at least one")
    return joined.join(_finds(query, _text(query, of), one) for one in kwargs["regex_list"])


def _not_regex(query: Query, of: Domain, kwargs: Kwargs) -> str:
    return f"NOT {_regex(query, of, kwargs)}"


def _not_regex_list(query: Query, of: Domain, kwargs: Kwargs) -> str:
    return f"NOT ({_regex_list(query, of, {'regex_list': kwargs['regex_list']})})"


def _finds(query: Query, text: str, pattern: Any) -> str:
    if not isinstance(pattern, str):
        raise UntranslatableError("the regular expression is no text")
    return f"regexp_matches({text}, {query.bind(re2(pattern))})"


def _is_of_type(query: Query, of: Domain, kwargs: Kwargs) -> str:
    """All values of a column are of one type in Arrow, so one of them stands for all."""
    return "true" if is_of_type(query.rows, of.names[0], kwargs) else "false"


def _z_score(query: Query, of: Domain, kwargs: Kwargs) -> str:
    _alike(query, of, {"number"})
    mean, deviation = moments(query.rows, of)
    if not deviation or math.isnan(deviation):
        return "true"
    score = f"({of.columns[0]} - {query.bind(mean)}) / {query.bind(deviation)}"
    if kwargs["double_sided"]:
        return f"abs({score}) < {query.bind(abs(kwargs['threshold']))}"
    return f"{score} < {query.bind(kwargs['threshold'])}"


def _not_outlier(query: Query, of: Domain, kwargs: Kwargs) -> str:
    _alike(query, of, {"number"})
    (column,), multiplier = of.columns, kwargs.get("multiplier", 1.5)
    if kwargs.get("method", "iqr") == "iqr":
        low, high = quantiles(query.rows, of, [0.25, 0.75], "linear")
        reach = multiplier * (high - low)
        if not math.isfinite(reach):
            return "true"
        return f"{column} BETWEEN {query.bind(low - reach)} AND {query.bind(high + reach)}"
    mean, deviation = moments(query.rows, of)
    if kwargs["method"] != "std" or mean is None or deviation is None or not math.isfinite(mean + deviation):
        return _no_outliers(kwargs)
    if multiplier * deviation <= 0:
        return f"{column} = {query.bind(mean)}"
    return f"abs({column} - {query.bind(mean)}) < {query.bind(multiplier * deviation)}"


def _no_outliers(kwargs: Kwargs) -> str:
    if kwargs["method"] != "std":
        raise UntranslatableError(f"method is {kwargs['method']}")
    return "true"


def _like(query: Query, of: Domain, kwargs: Kwargs) -> str:
    return _likes(query, _text(query, of), kwargs["like_pattern"], kwargs)


def _like_list(query: Query, of: Domain, kwargs: Kwargs) -> str:
    joined = " AND " if kwargs.get("match_on") == "all" else " OR "
    patterns = kwargs["like_pattern_list"]
    if not patterns:
        raise UntranslatableError("there is no pattern")
    return joined.join(_likes(query, _text(query, of), one, kwargs) for one in patterns)


def _not_like(query: Query, of: Domain, kwargs: Kwargs) -> str:
    return f"NOT ({_like(query, of, kwargs)})"


def _not_like_list(query: Query, of: Domain, kwargs: Kwargs) -> str:
    return f"NOT ({_like_list(query, of, {**kwargs, 'match_on': 'any'})})"


def _likes(query: Query, text: str, pattern: str, kwargs: Kwargs) -> str:
    escape = kwargs.get("escape")
    return f"({text} LIKE {query.bind(pattern)}{f' ESCAPE {query.bind(escape)}' if escape else ''})"


def _pair_equal(query: Query, of: Domain, kwargs: Kwargs) -> str:
    _alike(query, of, {"number", "string", "bool", "timestamp"})
    return "coalesce({} = {}, false)".format(*of.columns)


def _pair_greater(query: Query, of: Domain, kwargs: Kwargs) -> str:
    _alike(query, of, {"number", "timestamp"})  # pandas raises where text is missing
    left, right = of.columns
    return f"coalesce({left} {'>=' if kwargs.get('or_equal') else '>'} {right}, false)"


def _pair_in_set(query: Query, of: Domain, kwargs: Kwargs) -> str:
    pairs = kwargs.get("value_pairs_set")
    if pairs is None:
        return "true"
    conditions = []
    for pair in pairs:
        sides = [_same(query, name, value) for name, value in zip(of.names, pair, strict=True)]
        conditions.append(f"({' AND '.join(sides)})")
    return " OR ".join(conditions) or "false"


def _same(query: Query, name: str, value: Any) -> str:
    if value is None:
        return f"{query.column(name)} IS NULL"
    if query.family(name) == "timestamp":
        raise UntranslatableError("times are compared as pandas reads them")
    return f"coalesce({members(query, name, [value])}, false)"


def _sum_equals(query: Query, of: Domain, kwargs: Kwargs) -> str:
    _alike(query, of, {"number"})
    total = bound(query, of.names[0], kwargs["sum_total"])
    return f"coalesce({' + '.join(of.columns)} = {total}, false)"


def _all_equal(query: Query, of: Domain, kwargs: Kwargs) -> str:
    _alike(query, of, {"number", "string", "bool", "timestamp"})
    first, *others = of.columns
    return " AND ".join(f"{other} IS NOT DISTINCT FROM {first}" for other in others)


def _all_different(query: Query, of: Domain, kwargs: Kwargs) -> str:
    _alike(query, of, {"number", "string", "timestamp"})
    pairs = [(left, right) for number, left in enumerate(of.columns) for right in of.columns[number + 1 :]]
    return " AND ".join(f"{left} IS DISTINCT FROM {right}" for left, right in pairs)


def _alike(query: Query, of: Domain, allowed: set[str]) -> None:
    """Makes sure that the columns are of one family, and of one of these."""
    families = {query.family(name) for name in of.names}
    if len(families) > 1 or not families <= allowed:
        raise UntranslatableError("the columns compare in ways of pandas")


CONDITIONS: dict[str, Condition] = {
    "column_values.nonnull": _nonnull,
    "column_values.null": _null,
    "column_values.between": _between,
    "column_values.value_length.between": _length_between,
    "column_values.value_length.equals": _length_equals,
    "column_values.in_set": _in_set,
    "column_values.not_in_set": _not_in_set,
    "column_values.match_regex": _regex,
    "column_values.match_regex_list": _regex_list,
    "column_values.not_match_regex": _not_regex,
    "column_values.not_match_regex_list": _not_regex_list,
    "column_values.match_like_pattern": _like,
    "column_values.match_like_pattern_list": _like_list,
    "column_values.not_match_like_pattern": _not_like,
    "column_values.not_match_like_pattern_list": _not_like_list,
    "column_values.of_type": _is_of_type,
    "column_values.in_type_list": _is_of_type,
    "column_values.z_score.under_threshold": _z_score,
    "column_values.not_outliers": _not_outlier,
    "column_pair_values.equal": _pair_equal,
    "column_pair_values.a_greater_than_b": _pair_greater,
    "column_pair_values.in_set": _pair_in_set,
    "multicolumn_sum.equal": _sum_equals,
    "multicolumn_values.equal": _all_equal,
    "select_column_values.unique.within_record": _all_different,
}
# These look at all rows; every other condition of a column at those that hold a value.
OF_ALL_ROWS = {"column_values.nonnull", "column_values.null"}
