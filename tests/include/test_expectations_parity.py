"""What DuckDB computes is what Great Expectations computes on pandas, for all kinds of values."""

from __future__ import annotations

import datetime as dt
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from airworthy.config import Expectation
from airworthy.expectations import Outcome, run
from airworthy.expectations.pandas_engine import build, validate

WORDS = [
    "a",
    "b",
    "alpha",
    "Beta",
    "",
    " ",
    "é",
    "日本",
    "a\n",
    "a1",
    "10",
    "2020-01-01",
    "o'x\"",
    "%_",
    "\u0661",
    "x" * 40,
]
NUMBERS = [0.0, -0.0, 1.0, 1.5, -3.0, 1e300, 5e-324, math.nan, math.inf, -math.inf, 2.0, 7.25]
DAYS = [dt.datetime(2020, 1, day, 3, tzinfo=dt.UTC) for day in range(1, 5)]


def values(rng: np.random.Generator, pool: list[Any], rows: int, missing: float) -> list[Any]:
    return [None if rng.random() < missing else pool[rng.integers(len(pool))] for _ in range(rows)]


def table(seed: int) -> pa.Table:
    """Returns rows of all types; the seed also chooses how many, and how much of them is missing."""
    rng = np.random.default_rng(seed)
    rows = [0, 1, 2, 30, 400][seed % 5]
    missing = [0.2, 0.0, 1.0][seed // 5 % 3]
    small = [int(number) for number in range(-3, 9)]
    finite = [number for number in NUMBERS if math.isfinite(number) and abs(number) < 10]
    columns = {
        "n": (pa.int64(), values(rng, small, rows, missing)),
        "m": (pa.int64(), values(rng, small, rows, 0)),
        "big": (pa.int64(), [int(number) for number in rng.integers(-(10**15), 10**15, rows)]),
        "f": (pa.float64(), values(rng, NUMBERS, rows, missing)),
        "g": (pa.float64(), values(rng, finite, rows, missing)),
        "h": (pa.float64(), [float(number) for number in rng.normal(size=rows)]),
        "s": (pa.string(), values(rng, WORDS, rows, missing)),
        "t": (pa.string(), values(rng, WORDS[:4], rows, 0)),
        "b": (pa.bool_(), values(rng, [True, False], rows, missing)),
        "c": (pa.bool_(), values(rng, [True, False], rows, 0)),
        "d": (pa.timestamp("us", tz="UTC"), values(rng, DAYS, rows, missing)),
        "e": (pa.timestamp("us", tz="UTC"), values(rng, DAYS, rows, 0)),
        'or"der; --': (pa.int64(), values(rng, small, rows, missing)),
    }
    return pa.table({name: pa.array(found, kind) for name, (kind, found) in columns.items()})


def column(name: str, kwargs: dict[str, Any], *columns: str) -> list[Expectation]:
    return [Expectation(type=f"expect_column_{name}", kwargs={"column": one, **kwargs}) for one in columns]


ALL = ("n", "m", "big", "f", "g", "h", "s", "t", "b", "c", "d", "e", 'or"der; --')
NUMERIC = ("n", "m", "f", "g", 'or"der; --')
DAY = DAYS[1].isoformat()
ROW_LEVEL = [
    *column("values_to_not_be_null", {}, *ALL),
    *column("values_to_not_be_null", {"mostly": 0.7}, "n", "f", "s"),
    *column("values_to_be_null", {}, *ALL),
    *column("values_to_be_between", {"min_value": 0, "max_value": 2}, *NUMERIC, "b", "c", "s"),
    *column("values_to_be_between", {"min_value": 0, "strict_min": True}, *NUMERIC, "b", "c"),
    *column("values_to_be_between", {"max_value": 1.5, "strict_max": True}, *NUMERIC),
    *column("values_to_be_between", {"min_value": 0.5, "max_value": 2, "mostly": 0.5}, *NUMERIC),
    *column("values_to_be_between", {"min_value": 0, "max_value": math.inf}, "f"),
    *column("values_to_be_between", {"min_value": -math.inf, "strict_min": True}, "f"),
    *column("values_to_be_between", {"min_value": 3, "max_value": 1}, "n"),
    *column("values_to_be_between", {"min_value": "a", "max_value": "b"}, "s", "t", "n"),
    *column("values_to_be_between", {"min_value": DAY, "max_value": DAYS[2]}, "d", "e"),
    *column("values_to_be_between", {"min_value": "2020-01-02"}, "d", "e"),
    *column("values_to_be_in_set", {"value_set": [1, 2.0, True, "a"]}, *NUMERIC, "b", "c", "s", "t"),
    *column("values_to_be_in_set", {"value_set": []}, "n", "s"),
    *column("values_to_be_in_set", {"value_set": list(range(-200, 2))}, *NUMERIC),
    *column("values_to_be_in_set", {"value_set": [f"{number}" for number in range(99)] + ["a", "é"]}, "s", "t"),
    *column("values_to_be_in_set", {"value_set": [DAY]}, "d", "e"),
    *column("values_to_be_in_set", {"value_set": DAYS[:2]}, "d", "e"),
    *column("values_to_not_be_in_set", {"value_set": [0, 1.5, None, "a", ""]}, *NUMERIC, "b", "c", "s", "t"),
    *column("values_to_not_be_in_set", {"value_set": [DAY]}, "d", "e"),
    *column("values_to_be_unique", {}, *ALL),
    *column("values_to_be_increasing", {}, *ALL),
    *column("values_to_be_increasing", {"strictly": True}, "n", "f", "h", "e"),
    *column("values_to_be_decreasing", {}, "n", "f", "d"),
    *column("values_to_be_decreasing", {"strictly": True}, "n", "f", "e"),
    *column("value_lengths_to_be_between", {"min_value": 1, "max_value": 2}, "s", "t", "n", "b"),
    *column("value_lengths_to_be_between", {"min_value": 1, "strict_min": True}, "s"),
    *column("value_lengths_to_equal", {"value": 1}, "s", "t", "f"),
    *column("values_to_match_regex", {"regex": r"^\w+$"}, "s", "t", "n"),
    *column("values_to_match_regex", {"regex": r"\d"}, "s", "t"),
    *column("values_to_match_regex", {"regex": r"^(?:a|b|[^a-z\s]{2,})$"}, "s", "t"),
    *column("values_to_match_regex", {"regex": r"^a(?=l)"}, "s", "t"),
    *column("values_to_match_regex", {"regex": r"(?i)BETA"}, "s", "t"),
    *column("values_to_match_regex", {"regex": r"("}, "s", "t"),
    *column("values_to_not_match_regex", {"regex": r"^.\W?$"}, "s", "t"),
    *column("values_to_match_regex_list", {"regex_list": ["^a", "1$"]}, "s", "t"),
    *column("values_to_match_regex_list", {"regex_list": ["^a", r"\D"], "match_on": "all"}, "s", "t"),
    *column("values_to_not_match_regex_list", {"regex_list": ["^a", r"\s"]}, "s", "t"),
    *column("values_to_be_of_type", {"type_": "int64"}, *ALL),
    *column("values_to_be_of_type", {"type_": "float"}, "n", "m", "f"),
    *column("values_to_be_of_type", {"type_": "str"}, "s", "b", "n"),
    *column("values_to_be_of_type", {"type_": "bool", "mostly": 0.5}, "b", "c", "s"),
    *column("values_to_be_in_type_list", {"type_list": ["str", "float64"]}, *ALL),
    *column("value_z_scores_to_be_less_than", {"threshold": 1, "double_sided": True}, "n", "m", "f", "g", "h", "s"),
    *column("value_z_scores_to_be_less_than", {"threshold": 0.5, "double_sided": False}, "n", "g", "h"),
    *column("values_to_not_be_outliers", {"method": "iqr", "multiplier": 0.3}, "n", "m", "f", "g", "h", "s"),
    *column("values_to_not_be_outliers", {"method": "std", "multiplier": 0.9}, "n", "m", "f", "g", "h"),
    *column("values_to_be_dateutil_parseable", {}, "s", "t"),
    *column("values_to_be_json_parseable", {}, "s", "t", "n"),
    *column("values_to_match_strftime_format", {"strftime_format": "%Y-%m-%d"}, "s", "t"),
    *column("values_to_match_json_schema", {"json_schema": {"type": "integer"}}, "s"),
    *column("values_to_match_like_pattern", {"like_pattern": "a%"}, "n"),
]
PAIRS = [("n", "m"), ("f", "g"), ("n", "f"), ("s", "t"), ("b", "c"), ("d", "e"), ("n", "s"), ("n", 'or"der; --')]
IGNORED = ("both_values_are_missing", "either_value_is_missing", "neither")
PAIR_LEVEL = [
    Expectation(type=f"expect_column_pair_values_{name}", kwargs={"column_A": a, "column_B": b, **kwargs, **ignored})
    for name, kwargs in (
        ("to_be_equal", {}),
        ("a_to_be_greater_than_b", {}),
        ("a_to_be_greater_than_b", {"or_equal": True, "mostly": 0.4}),
        ("to_be_in_set", {"value_pairs_set": [(1, 1), (1.5, None), ("a", "b"), (True, False), (None, 2)]}),
    )
    for a, b in PAIRS
    for ignored in ({}, *({"ignore_row_if": one} for one in IGNORED))
]
LISTS = [["n", "m"], ["f", "g", "h"], ["n", "f", 'or"der; --'], ["s", "t"], ["b", "c"], ["d", "e"], ["n", "s"]]
MANY = [
    Expectation(type=f"expect_{name}", kwargs={"column_list": columns, **kwargs, **ignored})
    for name, kwargs in (
        ("compound_columns_to_be_unique", {}),
        ("multicolumn_sum_to_equal", {"sum_total": 3}),
        ("multicolumn_values_to_be_equal", {}),
        ("select_column_values_to_be_unique_within_record", {}),
    )
    for columns in LISTS
    for ignored in ({}, {"ignore_row_if": "any_value_is_missing"}, {"ignore_row_if": "never"})
]
RANGE = {"min_value": 0, "max_value": 2}
COLUMN_LEVEL = [
    *column("min_to_be_between", RANGE, *NUMERIC, "c", "h"),
    *column("max_to_be_between", {**RANGE, "strict_max": True}, *NUMERIC, "c", "h"),
    *column("min_to_be_between", {"min_value": "a"}, "t"),
    *column("max_to_be_between", {"max_value": DAY}, "d", "e"),
    *column("mean_to_be_between", RANGE, *NUMERIC, "b", "c", "h", "s", "big"),
    *column("sum_to_be_between", RANGE, *NUMERIC, "c", "h", "big", "t"),
    *column("stdev_to_be_between", RANGE, *NUMERIC, "c", "h", "s"),
    *column("median_to_be_between", RANGE, *NUMERIC, "b", "c", "h", "s", "d"),
    *column("unique_value_count_to_be_between", RANGE, *ALL),
    *column("proportion_of_unique_values_to_be_between", {"min_value": 0.2, "max_value": 0.9}, *ALL),
    *column("proportion_of_non_null_values_to_be_between", {"min_value": 0.2, "max_value": 0.9}, *ALL),
    *column("most_common_value_to_be_in_set", {"value_set": [1, "a", True], "ties_okay": True}, *ALL),
    *column("most_common_value_to_be_in_set", {"value_set": [1, "a", False]}, *ALL),
    *column("distinct_values_to_be_in_set", {"value_set": [0, 1, 2.0, "a", "b"]}, *NUMERIC, "b", "c", "s", "t"),
    *column("distinct_values_to_contain_set", {"value_set": [1, 2.0, "a", "b"]}, *NUMERIC, "b", "c", "s", "t"),
    *column("distinct_values_to_equal_set", {"value_set": [True, False]}, *NUMERIC, "b", "c", "s", "t"),
    *column("distinct_values_to_equal_set", {"value_set": [DAY, DAYS[2]]}, "d", "e"),
    *column("type_to_be", {"type_": "int64"}, *ALL),
    *column("type_to_be", {"type_": "object"}, *ALL),
    *column("to_exist", {}, "n", "none"),
    *column("kl_divergence_to_be_less_than", {"partition_object": {"values": ["a", "b"], "weights": [0.5, 0.5]}}, "t"),
    *[
        expectation
        for error in (False, "linear", "lower", "higher", "midpoint")
        for expectation in column(
            "quantile_values_to_be_between",
            {
                "quantile_ranges": {"quantiles": [0, 0.1, 0.25, 0.5, 0.99, 1], "value_ranges": [[None, 1]] * 6},
                "allow_relative_error": error,
            },
            *NUMERIC, "h", "b",
        )
    ],
    Expectation(type="expect_table_row_count_to_be_between", kwargs={"min_value": 1, "max_value": 30}),
    Expectation(type="expect_table_row_count_to_equal", kwargs={"value": 30}),
    Expectation(type="expect_table_column_count_to_equal", kwargs={"value": 13}),
    Expectation(type="expect_table_column_count_to_be_between", kwargs={"max_value": 3}),
    Expectation(type="expect_table_columns_to_match_set", kwargs={"column_set": ["n"], "exact_match": False}),
    Expectation(type="expect_table_columns_to_match_ordered_list", kwargs={"column_list": ["n"]}),
]  # fmt: skip
CONDITIONS: list[Any] = [
    {"type": "comparison", "column": {"name": "n"}, "operator": ">", "parameter": 1},
    {"type": "comparison", "column": {"name": "g"}, "operator": "!=", "parameter": 1.5},
    {"type": "comparison", "column": {"name": "s"}, "operator": "IN", "parameter": ["a", "é"]},
    {"type": "comparison", "column": {"name": "t"}, "operator": "NOT_IN", "parameter": ["a"]},
    {"type": "nullity", "column": {"name": "f"}, "is_null": True},
    {
        "type": "and",
        "conditions": [
            {"type": "comparison", "column": {"name": "m"}, "operator": "<=", "parameter": 4},
            {"type": "nullity", "column": {"name": "d"}, "is_null": False},
        ],
    },
    'n > 1 and t == "a"',
]
CONDITIONAL = [
    expectation.model_copy(update={"kwargs": {**expectation.kwargs, "row_condition": condition, **parser}})
    for condition in CONDITIONS
    for parser in ({"condition_parser": "pandas"} if isinstance(condition, str) else {},)
    for expectation in (
        *column("values_to_be_between", {"min_value": 0, "max_value": 2}, "n", "f"),
        *column("values_to_be_unique", {}, "s", "m"),
        *column("values_to_not_be_null", {}, "f"),
        *column("mean_to_be_between", RANGE, "g"),
        *column("median_to_be_between", RANGE, "g"),
        *column("values_to_be_increasing", {}, "m"),
        *column("value_z_scores_to_be_less_than", {"threshold": 1, "double_sided": True}, "h"),
        *column("unique_value_count_to_be_between", RANGE, "s"),
        Expectation(type="expect_compound_columns_to_be_unique", kwargs={"column_list": ["m", "t"]}),
        Expectation(type="expect_column_pair_values_to_be_equal", kwargs={"column_A": "n", "column_B": "m"}),
        Expectation(type="expect_table_row_count_to_be_between", kwargs={"min_value": 1}),
    )
]
GROUPS = {"rows": ROW_LEVEL, "pairs": PAIR_LEVEL, "lists": MANY, "columns": COLUMN_LEVEL, "conditions": CONDITIONAL}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("seed", [0, 3, 8])
def test_results_are_those_of_great_expectations_on_pandas(seed: int, group: str) -> None:
    rows = table(seed)
    outcomes = run(ds.dataset(rows), GROUPS[group], listed=10**6)
    differing = [text for outcome in outcomes if (text := difference(rows, outcome))]
    assert not differing, "\n".join(differing)


def difference(rows: pa.Table, outcome: Outcome) -> str:
    """Returns in what an outcome differs from Great Expectations on pandas; nothing if in nothing."""
    frame = rows.to_pandas()
    where = f"{outcome.title} {outcome.expectation.kwargs}"
    try:
        built = build(outcome.expectation)
    except ValueError:
        return "" if outcome.status == "error" else f"{where}: must not be built"
    wanted = validate(frame, built, "COMPLETE").to_json_dict()
    raised = "'raised_exception': True" in str(wanted["exception_info"])
    if raised or outcome.status == "error":
        same = raised and outcome.status == "error"
        return "" if same else f"{where}: {outcome.status} {outcome.reason}; wanted {wanted}"
    found = {"success": outcome.result["success"], **outcome.result["result"]}
    wanted = {"success": wanted["success"], **wanted["result"]}
    if outcome.status == "failed" and outcome.is_row_level:
        found["rows"] = None if outcome.rows is None else outcome.rows.tolist()
        wanted["rows"] = sorted(wanted["unexpected_index_list"])
    for result in (found, wanted):  # which is in the order of a set
        result.get("partial_missing_list", []).sort(key=str)
    differing = [
        f"{key}: {found.get(key)}, wanted {wanted.get(key)}"
        for key in found
        if key != "partial_unexpected_counts" and not alike(found.get(key), wanted.get(key))
    ]
    return f"{where}: {'; '.join(differing)}" if differing else ""


def alike(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(alike, one, other))
    if isinstance(one, float | int) and isinstance(other, float | int):
        return one == other or math.isclose(one, other, rel_tol=1e-9) or (math.isnan(one) and math.isnan(other))
    return moment(one) == moment(other)


def moment(value: Any) -> Any:
    """Returns a time as both show it: Great Expectations writes it in three ways."""
    if isinstance(value, str) and value.startswith("2020-01-0"):
        return value[:19]
    return None if value == "NaT" else value
