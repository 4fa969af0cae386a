"""What one partition of raw data looks like, gathered chunk by chunk in bounded memory."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from airworthy.columns import TIMESTAMP, normal
from airworthy.contracts.casts import Column, cast, type_name
from airworthy.masking import MASK

CATEGORIES = 50  # a string column with more values than this is not taken for one of categories
_LONGEST = 100  # characters of a category
_REPEATS = 5  # times that a category comes on average, or the values are names and not categories
_SAMPLE = 4096  # the most values of a column that the percentiles are taken from


@dataclass
class ColumnSummary:
    """What one column holds.

    Attributes:
        type: Of the values, as in a contract; None as long as there is none.
        declared: The type of the column, which says little as long as there is no value: an empty one may be any.
        valid: How many values are not missing.
        values: The distinct values of a string column, while they are few; None of other columns.
        misfits: How many values cannot have the contract's type without a loss.
        example: One of those; masked in a personal column.
        sample: Every `step`-th of a number's values.
    """

    type: str | None = None
    declared: str | None = None
    valid: int = 0
    values: set[str] | None = None
    misfits: int = 0
    example: str = ""
    sample: list[np.ndarray] = field(default_factory=list)
    step: int = 1

    @property
    def usual(self) -> tuple[float, float] | None:
        """Returns the 5th and the 95th percentile of a number's values."""
        values = np.concatenate([*self.sample, np.empty(0)])
        if not len(values := values[np.isfinite(values)]):
            return None
        low, high = np.quantile(values, [0.05, 0.95])
        return float(f"{low:.6g}"), float(f"{high:.6g}")

    def add(self, values: np.ndarray) -> None:
        """Takes into the sample what belongs there of further values, the same however they are cut into chunks."""
        seen = self.valid - len(values)
        self.sample.append(values[-seen % self.step :: self.step].astype("float64"))
        while self.valid > _SAMPLE * self.step:
            self.sample = [np.concatenate(self.sample)[::2]]
            self.step *= 2

    def categories(self) -> list[str] | None:
        """Returns the values of a column of categories, sorted."""
        few = self.values is not None and 0 < len(self.values) * _REPEATS <= self.valid
        return sorted(self.values or ()) if few else None


@dataclass
class Summary:
    """What the rows of one partition look like.

    Args:
        hidden: Columns of which no value is kept: personal ones.
        unlisted: Columns that are none of categories: key and time.
        limits: How many distinct values are kept of a column, if not `CATEGORIES`.
    """

    hidden: Collection[str] = ()
    unlisted: Collection[str] = ()
    limits: dict[str, int] = field(default_factory=dict)
    rows: int = 0
    columns: dict[str, ColumnSummary] = field(default_factory=dict)

    def nulls(self, name: str) -> float:
        """Returns the share of rows in which a column is missing."""
        return (self.rows - self.columns[name].valid) / self.rows if self.rows else 0.0

    def add(self, chunk: pa.Table) -> None:
        """Takes a chunk of rows into account; its columns are as `columns.normal` makes them."""
        self.rows += chunk.num_rows
        for name, column in zip(chunk.column_names, chunk.columns, strict=True):
            found = self.columns.setdefault(name, ColumnSummary())
            found.declared = _wider(found.declared, type_name(column.type))
            found.valid += len(column) - column.null_count
            if column.null_count < len(column):
                found.type = _wider(found.type, type_name(column.type))
            if name not in self.hidden:
                self._look_into(name, found, column)

    def add_misfits(self, name: str, column: Column, misfits: Column) -> None:
        """Takes into account which values of a column do not have its contract's type."""
        found = self.columns[name]
        found.misfits += pc.sum(misfits).as_py()
        if not found.example:
            value = column.filter(misfits)[0].as_py()
            found.example = MASK if name in self.hidden else repr(value)[:80]

    def _look_into(self, name: str, found: ColumnSummary, column: Column) -> None:
        if pa.types.is_string(column.type) and name not in self.unlisted:
            first = found.valid == len(column) - column.null_count
            if first or found.values is not None:
                found.values = _distinct(column, found.values or set(), self.limits.get(name, CATEGORIES))
        elif pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
            found.add(column.drop_null().to_numpy())


def summarise(where: str, chunks: Iterable[pa.Table], summary: Summary, time: str = "") -> Summary:
    """Returns the summary after all chunks; times that are written as text are read."""
    for chunk in chunks:
        rows = normal(where, chunk)
        if time in rows.column_names:
            times, _ = cast(rows[time], TIMESTAMP)
            rows = rows.set_column(rows.column_names.index(time), time, times)
        summary.add(rows)
    return summary


def _distinct(column: Column, seen: set[str], limit: int) -> set[str] | None:
    found = pc.drop_null(pc.unique(column))
    longest = pc.max(pc.utf8_length(found)).as_py() or 0
    if longest > _LONGEST or len(found) > limit:
        return None
    values = seen | set(found.to_pylist())
    return values if len(values) <= limit else None


def _wider(one: str | None, other: str | None) -> str | None:
    if one is None or other is None or one == other:
        return one or other
    return "float64" if {one, other} == {"int64", "float64"} else f"{one} and {other}"
