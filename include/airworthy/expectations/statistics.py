"""What a rule must know of a whole column before it can judge a value of it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from airworthy.expectations.domains import Domain, domain
from airworthy.expectations.rows import Rows, UntranslatableError
from airworthy.expectations.values import comparable


def moments(rows: Rows, of: Domain) -> tuple[float | None, float | None]:
    """Returns the mean and the sample standard deviation of a column; None where there are too few values."""
    query = rows.query()
    found = domain(query, of.kwargs)
    value = comparable(query, of.names[0])
    text = f"SELECT avg({value}), stddev_samp({value}) FROM {query.source()} WHERE {found.where}"
    mean, deviation = rows.first(query, text)
    return mean, deviation


def quantiles(rows: Rows, of: Domain, wanted: Sequence[float], interpolation: str) -> list[float]:
    """Returns exact quantiles of a column, as pandas interpolates them; NaN of no values.

    The values are sorted, on disk if they are many, and only those asked for are fetched.
    """
    query = rows.query()
    found = domain(query, of.kwargs)
    value = comparable(query, of.names[0])
    (count,) = rows.first(query, f"SELECT count(*) FROM {query.source()} WHERE {found.where}")
    if not count:
        return [math.nan for _ in wanted]
    places = [(count - 1) * float(quantile) for quantile in wanted]
    needed = sorted({0, count - 1, *(side for place in places for side in (math.floor(place), math.ceil(place)))})
    text = (
        f"SELECT list(value ORDER BY number) FROM (SELECT {value} AS value, row_number() OVER (ORDER BY {value}) - 1 "
        f"AS number FROM {query.source()} WHERE {found.where}) WHERE number IN ({', '.join(map(str, needed))})"
    )
    (values,) = rows.first(query, text)
    ranked = dict(zip(needed, values, strict=True))
    if interpolation in ("linear", "midpoint") and math.isinf(values[-1] - values[0]):
        raise UntranslatableError("NumPy interpolates next to an infinity in its own way")
    return [_between(ranked[math.floor(place)], ranked[math.ceil(place)], place, interpolation) for place in places]


def _between(low: float, high: float, place: float, interpolation: str) -> float:
    if interpolation == "lower" or low == high:
        return low
    if interpolation == "higher":
        return high
    if interpolation == "nearest":
        return low if round(place) == math.floor(place) else high  # Python rounds halves to even, as NumPy does
    if interpolation in ("midpoint", "median"):
        return (low + high) / 2
    if interpolation == "linear":
        share = place - math.floor(place)
        return float(np.float64(low) + (np.float64(high) - np.float64(low)) * share)
    raise UntranslatableError(f"there is no interpolation {interpolation}")
