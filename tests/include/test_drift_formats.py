"""What a column's new way of writing is called, and what is none."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from airworthy.formatting import FormatChange, pattern, text_change, unit_change
from airworthy.sketches import CategorySketch, NumberSketch, sketch_chunks, sketch_frame

CARRIERS = ["AA", "B6", "DL", "UA", "9E"]
DATES = [f"2013-{month:02}-{day:02}" for month in range(1, 13) for day in range(1, 29)]
WEIGHTS = [f"{number} kg" for number in range(1, 200)]
IDS = [f"ORD-{number}" for number in range(100, 900)]


def category(values: list[str]) -> CategorySketch:
    counts = Counter(values)
    return CategorySketch(rows=len(values), counts=counts)


def change(before: list[str], now: list[str]) -> FormatChange | None:
    return text_change("column", category(before), category(now))


@pytest.mark.parametrize(
    ("before", "now", "told", "example"),
    [
        (CARRIERS, [one.lower() for one in CARRIERS], "values came in lower case", ("AA", "aa")),
        (CARRIERS, [f"US-{one}" for one in CARRIERS], "values have the prefix 'US-'", ("AA", "US-AA")),
        ([f"US-{one}" for one in CARRIERS], CARRIERS, "values lost the prefix 'US-'", ("US-AA", "AA")),
        (CARRIERS, [f"{one}_v2" for one in CARRIERS], "values have the suffix '_v2'", ("AA", "AA_v2")),
        (CARRIERS, [f" {one} " for one in CARRIERS], "values have other spaces around them", ("AA", " AA ")),
        (["007", "012"], ["7", "12"], "values have other leading zeros", ("007", "7")),
        (["1", "2"], ["1.0", "2.0"], "whole numbers have other decimals", ("1", "1.0")),
        (["on time", "too late"], ["on_time", "too_late"], "values have other punctuation", ("on time", "on_time")),
        (DATES, [f"{one[5:7]}/{one[8:]}/{one[:4]}" for one in DATES], "99/99/9999 and no longer as 9999-99-99", None),
        (WEIGHTS, [f"{number * 2.2:.0f} lb" for number in range(1, 200)], "9 lb and no longer as 9 kg", None),
    ],
)
def test_a_new_way_of_writing_is_named(
    before: list[str], now: list[str], told: str, example: tuple[str, str] | None
) -> None:
    found = change(before, now)
    assert found is not None
    assert told in found.change
    assert found.share == 1
    assert example is None or (found.before, found.now) == example
    assert found.reason.startswith("column: ")
    assert "do not train on it" in found.remedy


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (CARRIERS, CARRIERS),
        (CARRIERS, [*CARRIERS, "WN", "XY"]),  # new in substance
        (CARRIERS * 30, [*CARRIERS * 30, "aa"]),  # one row of 151
        (IDS, [f"ORD-{number}" for number in range(900, 2000)]),
        (DATES, [f"2014-{month:02}-01" for month in range(1, 13)]),
        ([], CARRIERS),
        (CARRIERS, []),
        (["alpha", "beta"], ["gamma", "delta"]),
    ],
)
def test_new_values_are_no_new_way_of_writing(before: list[str], now: list[str]) -> None:
    assert change(before, now) is None


def test_some_rows_of_the_new_kind_are_enough() -> None:
    found = change(CARRIERS * 100, CARRIERS * 90 + [one.lower() for one in CARRIERS] * 10)
    assert found is not None
    assert (found.share, found.change) == (0.1, "values came in lower case")


@pytest.mark.parametrize(
    ("turn", "told"),
    [
        (lambda values: values * 1.609344, "miles to kilometres"),
        (lambda values: values / 1000, "ones to thousands"),
        (lambda values: (values - 32) / 1.8, "Fahrenheit to degrees Celsius"),
        (lambda values: values * 1.3, None),
        (lambda values: values + 10, None),
    ],
)
def test_a_changed_unit_is_named(turn, told: str | None) -> None:
    rng = np.random.default_rng(0)
    values = rng.gamma(4, 15, 5_000)
    like = sketch_frame(pd.DataFrame({"x": values}), {"x": "number"})
    now = sketch_chunks([pa.table({"x": turn(rng.gamma(4, 15, 5_000))})], {"x": like["x"].like()})
    before, after = like["x"], now["x"]
    assert isinstance(before, NumberSketch) and isinstance(after, NumberSketch)
    found = unit_change("x", before, after)
    assert (found is None) == (told is None)
    assert told is None or (found is not None and told in found.change)


def test_patterns_keep_what_tells_dates_and_units_apart() -> None:
    written = ["2013-01-05", "05.01.2013", "5 Jan 2013", "12 km", "12.5%", "JFK", "jfk", "N-12345", "Käse"]
    assert [pattern(one) for one in written] == [
        "9999-99-99", "99.99.9999", "9 Aa 9", "9 km", "9%", "A", "a", "A-9", "Aa",
    ]  # fmt: skip
