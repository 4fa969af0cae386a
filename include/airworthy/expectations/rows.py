"""A dataset as DuckDB reads it: in order, a few batches at a time, and only the columns of a query."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds

MEMORY = "512MB"  # of DuckDB, which writes to disk what is more
BATCH = 65_536
POSITION = "position"

Family = Literal["number", "string", "bool", "timestamp", "other"]


class UntranslatableError(Exception):
    """Great Expectations' own code must judge this, because SQL would not mean exactly the same."""


class Query:
    """One SQL text over some of the columns, with the values it is bound to.

    Neither names nor values are ever part of the text: a column is called by its number, and NaN,
    which pandas does not tell from a missing value, is NULL.
    """

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self._schema = rows.schema
        self.columns: dict[int, str] = {}
        self.values: dict[str, Any] = {}

    def column(self, name: str) -> str:
        """Returns what a column is called in the text.

        Raises:
            UntranslatableError: There is no such column.
        """
        number = self._schema.get_field_index(name)
        if number < 0:
            raise UntranslatableError(f"there is no column {name}")
        self.columns[number] = name
        return f"c{number}"

    def bind(self, value: Any) -> str:
        """Returns what a value is called in the text."""
        name = f"v{len(self.values)}"
        self.values[name] = value
        return f"${name}"

    def family(self, name: str) -> Family:
        """Returns how the values of a column compare."""
        kind = self._schema.field(name).type
        if pa.types.is_boolean(kind):
            return "bool"
        if pa.types.is_signed_integer(kind) or pa.types.is_float64(kind):
            return "number"
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            return "string"
        if pa.types.is_timestamp(kind) and kind.tz is not None:
            return "timestamp"
        return "other"

    def source(self, *, numbered: bool = False) -> str:
        """Returns the rows with the columns named so far, as a table of the text.

        Args:
            numbered: Whether they also have their position.
        """
        names = [self._value(number, name) for number, name in sorted(self.columns.items())]
        if numbered:
            names.append(f"row_number() OVER () - 1 AS {POSITION}")
        return f"(SELECT {', '.join(names) or '1'} FROM rows)"

    def _value(self, number: int, name: str) -> str:
        if pa.types.is_floating(self._schema.field(name).type):
            return f"nullif(c{number}, 'NaN'::DOUBLE) AS c{number}"
        return f"c{number}"


class Rows:
    """A dataset that is asked in SQL."""

    def __init__(self, dataset: ds.Dataset, connection: duckdb.DuckDBPyConnection) -> None:
        self._dataset = dataset
        self._connection = connection
        self._known: dict[str, list[Any]] = {}
        self.schema: pa.Schema = dataset.schema

    def query(self) -> Query:
        """Returns a query to be written."""
        return Query(self)

    def run(self, query: Query, text: str) -> pa.Table:
        """Returns the answer to a query that reads `query.source()`."""
        names = query.columns or {0: self.schema.names[0]}
        scanner = self._dataset.scanner(
            columns={f"c{number}": ds.field(name) for number, name in names.items()},
            batch_size=BATCH,
            batch_readahead=2,
            fragment_readahead=1,
        )
        self._connection.register("rows", scanner)
        try:
            return self._connection.sql(text, params=query.values).to_arrow_table()
        finally:
            self._connection.unregister("rows")

    def first(self, query: Query, text: str) -> list[Any]:
        """Returns the values of the first row of the answer, which is asked for once only."""
        key = repr((text, query.columns, query.values))
        if key not in self._known:
            answer = self.run(query, text)
            self._known[key] = [plain(column[0].as_py()) for column in answer.columns]
        return self._known[key]

    def count(self) -> int:
        """Returns how many rows there are, which files know without being read."""
        return int(self._dataset.count_rows())

    def frame(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Returns all rows, in memory."""
        frame: pd.DataFrame = self._dataset.to_table(columns=None if columns is None else list(columns)).to_pandas()
        return frame


@contextmanager
def opened(dataset: ds.Dataset) -> Iterator[Rows]:
    """Yields the rows of a dataset, and leaves nothing behind."""
    with tempfile.TemporaryDirectory(prefix="airworthy-") as folder:
        settings: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": MEMORY,
            "temp_directory": folder,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
        with duckdb.connect(":memory:", config=settings) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            yield Rows(dataset, connection)


def plain(value: Any) -> Any:
    """Returns a value of an answer as pandas has it."""
    if isinstance(value, datetime):
        return pd.Timestamp(value)
    if isinstance(value, Decimal):  # the sum of integers, which DuckDB adds up in 128 bits
        return int(value)
    return value
