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
import pyarrow.fs as fs

MEMORY = "512MB"  # of DuckDB, which writes to disk what is more
BATCH = 65_536
POSITION = "position"

SCANNED = "scanned"  # Arrow reads the rows
FILES = "files"  # DuckDB reads them itself, which takes half the memory

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
        return family(self._schema.field(name).type)

    def source(self, *, numbered: bool = False) -> str:
        """Returns the rows with the columns named so far, as a table of the text.

        Args:
            numbered: Whether they also have their position.
        """
        values = [self._value(number, name) for number, name in sorted(self.columns.items())]
        if numbered:
            values.append(f"row_number() OVER () - 1 AS {POSITION}")
        return f"(SELECT {', '.join(values) or '1'} FROM {self.rows.table})"

    def _value(self, number: int, name: str) -> str:
        value = f"c{number}" if self.rows.table == SCANNED else '"' + name.replace('"', '""') + '"'
        if pa.types.is_floating(self._schema.field(name).type):
            return f"nullif({value}, 'NaN'::DOUBLE) AS c{number}"
        return f"{value} AS c{number}"


class Rows:
    """A dataset that is asked in SQL."""

    def __init__(self, dataset: ds.Dataset, connection: duckdb.DuckDBPyConnection) -> None:
        self._dataset = dataset
        self._connection = connection
        self.table = SCANNED
        if files := _files(dataset):
            self.table = FILES
            connection.read_parquet(files, hive_partitioning=False).create_view(FILES)
        self._known: dict[str, list[Any]] = {}
        self.schema: pa.Schema = dataset.schema

    def query(self) -> Query:
        """Returns a query to be written."""
        return Query(self)

    def run(self, query: Query, text: str) -> pa.Table:
        """Returns the answer to a query that reads `query.source()`."""
        if self.table != SCANNED:
            return self._connection.sql(text, params=query.values).to_arrow_table()
        names = query.columns or {0: self.schema.names[0]}
        scanner = self._dataset.scanner(
            columns={f"c{number}": ds.field(name) for number, name in names.items()},
            batch_size=BATCH,
            batch_readahead=2,
            fragment_readahead=1,
        )
        self._connection.register(SCANNED, scanner)
        try:
            return self._connection.sql(text, params=query.values).to_arrow_table()
        finally:
            self._connection.unregister(SCANNED)

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


def family(kind: pa.DataType) -> Family:
    """Returns how values of a type compare."""
    if pa.types.is_boolean(kind):
        return "bool"
    if pa.types.is_signed_integer(kind) or pa.types.is_float64(kind):
        return "number"
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return "string"
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        return "timestamp"
    return "other"


def _files(dataset: ds.Dataset) -> list[str]:
    """Returns the paths of Parquet files that DuckDB would read as Arrow does; none if there are others."""
    if not isinstance(dataset, ds.FileSystemDataset) or not isinstance(dataset.format, ds.ParquetFileFormat):
        return []
    system = dataset.filesystem
    folder = system.base_path if isinstance(system, fs.SubTreeFileSystem) else ""
    local = system.base_fs if isinstance(system, fs.SubTreeFileSystem) else system
    names = {name.lower() for name in dataset.schema.names}  # in which DuckDB ignores case
    if not isinstance(local, fs.LocalFileSystem) or len(names) < len(dataset.schema.names):
        return []
    wanted = dict(zip(dataset.schema.names, dataset.schema.types, strict=True))
    for fragment in dataset.get_fragments():
        there = dict(zip(fragment.physical_schema.names, fragment.physical_schema.types, strict=True))
        if not wanted.items() <= there.items():
            return []
    paths = [f"{folder}{path}" for path in dataset.files]
    return [] if any(set(path) & set("*?[") for path in paths) else paths


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
