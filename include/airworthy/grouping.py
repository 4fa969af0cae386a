"""Tells the rows of a table apart by a column: by its values, or by ranges of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Grouping:
    """The groups of a column.

    Attributes:
        column: The column's name.
        names: Each group's, such as `origin=JFK`, `temp 30..41` or `temp missing`.
        code: Shape (n,): each row's position in `names`.
    """

    column: str
    names: tuple[str, ...]
    code: np.ndarray

    def sizes(self) -> np.ndarray:
        return np.bincount(self.code, minlength=len(self.names))


def group(column: pd.Series[Any], *, values: int, ranges: int) -> Grouping:
    """Returns the groups of a column; missing values are a group.

    Args:
        column: Numbers, bools or strings.
        values: The most values that are groups by themselves; of more, the rarest share one group if they are
            strings, and numbers are told apart by range.
        ranges: How many ranges with about as many rows each numbers have.
    """
    name, missing = str(column.name), column.isna().to_numpy()
    held = column[~missing]
    if held.empty:
        return Grouping(name, (f"{name} missing",), np.zeros(len(column), dtype="int64"))
    distinct = held.nunique()
    if distinct > values and pd.api.types.is_numeric_dtype(column.dtype) and column.dtype.kind != "b":
        code, names = _ranges(held.to_numpy("float64"), ranges)
    else:
        code, names = _values(held, distinct, values)
    every = np.full(len(column), len(names), dtype="int64")
    every[~missing] = code
    written = [f"{name}{one}" for one in names]
    return Grouping(name, tuple([*written, f"{name} missing"] if missing.any() else written), every)


def _ranges(held: np.ndarray, ranges: int) -> tuple[np.ndarray, list[str]]:
    edges = np.unique(np.quantile(held, np.linspace(0, 1, ranges + 1)))
    code = np.searchsorted(edges[1:-1], held, side="right")
    code = np.unique(code, return_inverse=True)[1]
    names = []
    for number in range(code.max() + 1):
        inside = held[code == number]
        names.append(f" {inside.min():g}..{inside.max():g}")
    return code, names


def _values(held: pd.Series[Any], distinct: int, values: int) -> tuple[np.ndarray, list[str]]:
    counts = held.value_counts(sort=False)
    kept = counts.sort_values(ascending=False, kind="stable").index[: values - (distinct > values)]
    ordered = sorted(kept, key=lambda one: (str(type(one)), one))
    code = pd.Index(ordered, dtype=object).get_indexer(pd.Index(held.astype(object)))
    names = [f"={one}" for one in ordered]
    if distinct > values:
        names.append(f"=any of {distinct - len(ordered)} others")
        code = np.where(code < 0, len(ordered), code)
    return code, names
