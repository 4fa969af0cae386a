"""What a table's columns look like, small enough to be kept with a model, and taken from new rows in one pass.

Of a number: how many values lie between fine quantiles of the training rows, and their sums. Between two edges the
area between two distribution functions follows from these exactly, as long as the functions do not cross there, so
that few edges give Wasserstein's distance closely: with `EDGES`, within 0.002 on shifts of mean, variance and shape
(tests/include/test_drift_verdicts.py measures it). Of a category: how often each value comes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from airworthy.errors import DataError

Kind = Literal["number", "category"]
EDGES = 128
VALUES = 1000  # of a category are told apart; the rarer ones count together
_SAMPLE = 200_000  # values that the edges are taken from
_CHUNK = 100_000
_SPARE = 10  # times `VALUES` that are counted until the rarer ones are put together


@dataclass
class NumberSketch:
    """A column of numbers; infinite ones count as missing.

    Attributes:
        edges: Ascending. Bin i holds the values from edge i - 1 up to, and not with, edge i.
        counts: Of each bin, one more than there are edges.
        sums: Of the values of each bin.
        squares: Of the values' distances from the middle edge, all together.
        low: The least value; with `high` meaningless as long as there is none.
    """

    edges: np.ndarray
    rows: int = 0
    counts: np.ndarray = field(default_factory=lambda: np.zeros(0))
    sums: np.ndarray = field(default_factory=lambda: np.zeros(0))
    squares: float = 0.0
    low: float = np.inf
    high: float = -np.inf

    def __post_init__(self) -> None:
        self.edges = np.asarray(self.edges, dtype="float64")
        for name in ("counts", "sums"):
            held = np.asarray(getattr(self, name), dtype="float64")
            setattr(self, name, held if len(held) else np.zeros(len(self.edges) + 1))

    @property
    def present(self) -> int:
        return int(self.counts.sum())

    @property
    def centre(self) -> float:
        return float(self.edges[len(self.edges) // 2]) if len(self.edges) else 0.0

    @property
    def mean(self) -> float:
        return float(self.sums.sum() / self.present) if self.present else float("nan")

    @property
    def variance(self) -> float:
        away = self.mean - self.centre
        found = self.squares / self.present - away * away if self.present else 0.0
        return max(found, 0.0) if np.isfinite(found) else np.inf  # the squares of 1e200 are too large for a float

    def like(self) -> NumberSketch:
        """Returns an empty one over the same edges."""
        return NumberSketch(self.edges)

    def add(self, column: pa.ChunkedArray) -> None:
        """Takes further rows into account.

        Raises:
            pyarrow.ArrowInvalid: They are no numbers.
        """
        self.rows += len(column)
        numbers = column if pa.types.is_float64(column.type) else _as_float(column)
        values = np.sort(numbers.to_numpy())  # far faster than to look each value up; puts NaN last
        first, last = np.searchsorted(values, [-np.inf, np.inf], side="left")
        first += int(np.searchsorted(values[first:], -np.inf, side="right"))
        values = values[first:last]
        if not len(values):
            return
        places = np.concatenate(([0], np.searchsorted(values, self.edges, side="left")))
        counts = np.diff(places, append=len(values))
        filled = counts > 0
        self.sums[filled] += np.add.reduceat(values, places[filled])
        self.counts += counts
        away = values - self.centre
        self.squares += float(away @ away)
        self.low, self.high = min(self.low, float(values[0])), max(self.high, float(values[-1]))


@dataclass
class CategorySketch:
    """A column of categories, as text.

    Attributes:
        known: Values that are always told apart.
        counts: How often a value comes.
        other: Rows whose value is too rare to be told apart.
    """

    rows: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    other: int = 0
    known: frozenset[str] = frozenset()

    @property
    def present(self) -> int:
        return self.counts.total() + self.other

    def like(self) -> CategorySketch:
        """Returns an empty one that tells the same values apart."""
        return CategorySketch(known=frozenset(self.counts))

    def add(self, column: pa.ChunkedArray) -> None:
        """Takes further rows into account."""
        self.rows += len(column)
        found = pc.value_counts(column)
        for value, count in zip(found.field("values").to_pylist(), found.field("counts").to_pylist(), strict=True):
            if value is not None and value == value:  # NaN is unequal to itself
                self.counts[_text(value)] += count
        if len(self.counts) > len(self.known) + _SPARE * VALUES:
            self.trim()

    def trim(self) -> None:
        """Leaves the most common values and those that are known; ties by their text."""
        rare = sorted((one for one in self.counts.items() if one[0] not in self.known), key=lambda one: (-one[1], one))
        for value, count in rare[VALUES:]:
            self.other += count
            del self.counts[value]


Sketch: TypeAlias = NumberSketch | CategorySketch
Sketches: TypeAlias = dict[str, Sketch]


def sketch_frame(frame: pd.DataFrame, kinds: Mapping[str, Kind]) -> Sketches:
    """Returns the sketches of a frame's columns, with edges of their own.

    Raises:
        DataError: A number column holds something else.
    """
    empty: Sketches = {
        name: NumberSketch(_edges(frame[name])) if kind == "number" else CategorySketch()
        for name, kind in kinds.items()
    }
    found = sketch_chunks(_tables(frame[list(kinds)]), empty)
    for sketch in found.values():
        if isinstance(sketch, CategorySketch):
            sketch.trim()
    return found


def sketch_chunks(rows: Iterable[pa.Table], empty: Sketches) -> Sketches:
    """Returns the sketches after all chunks, which are held one at a time; a column that is not there is all missing.

    Raises:
        DataError: A number column holds something else.
    """
    for chunk in rows:
        for name, sketch in empty.items():
            if name not in chunk.column_names:
                sketch.rows += chunk.num_rows
                continue
            try:
                sketch.add(chunk[name])
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                raise DataError(f"features: {name}", "must hold numbers", str(error)) from None
    return empty


def kind_of(sketch: Sketch) -> Kind:
    return "number" if isinstance(sketch, NumberSketch) else "category"


def to_json(sketches: Sketches) -> dict[str, Any]:
    """Returns the sketches as JSON values."""
    return {name: _plain(sketch) for name, sketch in sketches.items()}


def from_json(content: Mapping[str, Any]) -> Sketches:
    """Returns what `to_json` was given."""
    return {name: _sketch(one) for name, one in content.items()}


def _plain(sketch: Sketch) -> dict[str, Any]:
    if isinstance(sketch, CategorySketch):
        return {"rows": sketch.rows, "counts": dict(sketch.counts), "other": sketch.other}
    arrays = {
        "edges": sketch.edges.tolist(),
        "counts": sketch.counts.astype(int).tolist(),
        "sums": sketch.sums.tolist(),
    }
    limits = {"low": sketch.low, "high": sketch.high} if sketch.present else {}
    return {"rows": sketch.rows, **arrays, "squares": sketch.squares, **limits}


def _sketch(content: Mapping[str, Any]) -> Sketch:
    if "edges" in content:
        return NumberSketch(**content)
    return CategorySketch(content["rows"], Counter(content["counts"]), content["other"])


def _edges(column: pd.Series[Any]) -> np.ndarray:
    """Returns the least value, the greatest one, and between them quantiles and a grid, half of `EDGES` each."""
    try:
        values = column.to_numpy("float64", na_value=np.nan)
    except (ValueError, TypeError) as error:
        raise DataError(f"features: {column.name}", "must hold numbers", str(error)) from None
    values = values[np.isfinite(values)]
    if not len(values):
        return np.empty(0)
    some = values[:: -(-len(values) // _SAMPLE)]
    quantiles = np.quantile(some, np.linspace(0, 1, EDGES // 2 + 1), method="inverted_cdf")
    low, high = np.quantile(some, [0.001, 0.999])
    even = np.linspace(low, high, EDGES // 2)  # new values may come where there were none
    return np.unique([values.min(), *quantiles, *even, values.max()])


def _tables(frame: pd.DataFrame) -> Iterator[pa.Table]:
    for start in range(0, len(frame), _CHUNK):
        part = frame.iloc[start : start + _CHUNK]
        yield pa.table({str(name): pa.chunked_array([_array(part[name])]) for name in frame.columns})


def _array(column: pd.Series[Any]) -> pa.Array:
    """Returns a column as Arrow has it; one of several types as text."""
    try:
        return pa.Array.from_pandas(column)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array(column.astype(object).map(str, na_action="ignore"), pa.string(), from_pandas=True)


def _text(value: Any) -> str:
    # A label of 0 and 1 turns into 0.0 and 1.0 as soon as one is missing; it is the same label.
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _as_float(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_null(column.type):
        return column.cast(pa.float64())
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    return column.cast(pa.float64(), safe=False)
