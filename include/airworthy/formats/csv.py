"""CSV files, plain or packed with gzip.

Each file is read twice: the first time as text to find the narrowest type that holds every cell of a column, the
second time in those types. So the result does not depend on what the first rows look like, nor on how the
rows are cut into files. Only text says what it is worth: `007` and numbers beyond the precision of their type
stay text, and times stay text until ingest parses them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv

from airworthy.columns import EXACT
from airworthy.errors import DataError
from airworthy.formats import File, Format, require_names, require_same_columns
from airworthy.formats.text import blocks

_TRUE, _FALSE = ["true", "True", "TRUE"], ["false", "False", "FALSE"]
_PADDED = r"^\+|^-?0[0-9]"  # a telephone or article number, say
_LONG = r"^-?[0-9]{16,}$"


class Csv(Format):
    def survey(self, files: Sequence[File]) -> pa.Schema:
        names: list[list[str]] = []
        held: dict[str, set[str]] = {}
        for file in files:
            columns: list[str] = []
            for table in self._tables(file, None):
                columns = columns or table.column_names
                self._look(file, table, held)
            names.append(columns)
        require_same_columns(files, names)
        return pa.schema([pa.field(name, _narrowest(held[name])) for name in names[0]])

    def read(self, file: File, schema: pa.Schema) -> Iterator[pa.Table]:
        for table in self._tables(file, {field.name: field.type for field in schema}):
            yield table.select(schema.names)

    def _look(self, file: File, table: pa.Table, held: dict[str, set[str]]) -> None:
        for name in table.column_names:
            column = table[name].combine_chunks()
            if (pc.max(pc.binary_length(column)).as_py() or 0) > self.limits.cell:
                raise self.too_large(file, f"a longer one in {name}")
            if "text" not in held.setdefault(name, set()):
                held[name] |= _kinds(column.drop_null(), held[name])

    def _tables(self, file: File, types: Mapping[str, pa.DataType] | None) -> Iterator[pa.Table]:
        """Yields the rows in the given types, or as text."""
        names: list[str] | None = None
        above = 0
        for block in blocks(file, self, quotes=True):
            if names is None:
                found = _parsed(file, block, above, self._options(None))
                require_names(file, found.column_names)
                options = self._options(types or dict.fromkeys(found.column_names, pa.string()))
            table = _parsed(file, block, above, options, names)
            above += table.num_rows + (names is None)
            names = table.column_names
            yield table

    def _options(self, types: Mapping[str, pa.DataType] | None) -> csv.ConvertOptions:
        return csv.ConvertOptions(
            column_types=types,
            null_values=self.missing,
            true_values=_TRUE,
            false_values=_FALSE,
            strings_can_be_null=True,
        )


def _parsed(
    file: File, block: bytes, above: int, options: csv.ConvertOptions, names: Sequence[str] | None = None
) -> pa.Table:
    """Returns the rows of a block, of which the first names the columns unless names are given."""
    bad: list[Any] = []

    def refuse(row: Any) -> str:
        bad.append(row)
        return "error"

    parsing = csv.ParseOptions(newlines_in_values=True, invalid_row_handler=refuse)
    for threads in (True, False):  # only without does the reader know the row's number
        reading = csv.ReadOptions(column_names=names, block_size=len(block) + 1, use_threads=threads)
        try:
            return csv.read_csv(pa.BufferReader(block), reading, parsing, options)
        except pa.ArrowException as error:
            told = re.sub(r"'.*", "", str(error), flags=re.DOTALL)  # cells may be personal, so none is quoted
    if bad:
        where = file.name if bad[-1].number is None else f"{file.name}: row {above + bad[-1].number}"
        rule = f"must have {bad[-1].expected_columns} cells, as the header does"
        raise DataError(where, rule, bad[-1].actual_columns, "Put a cell that has a comma in it in quotes")
    hint = "Write it again in that format, or correct `glob`; nothing was ingested"
    raise DataError(file.name, "must be a CSV file", told, hint)


def _kinds(cells: pa.Array, held: Collection[str]) -> set[str]:
    """Returns what the cells of a block are, so that the union over blocks does not depend on their boundaries.

    Args:
        cells: Those that are not missing.
        held: What is known of the column: where there are decimals, whole numbers add nothing to it.
    """
    if not len(cells):
        return set()
    whole = None if "float" in held else _numbers(cells, pa.int64())
    if whole is not None and pc.all(pc.equal(whole.cast(pa.string()), cells)).as_py():
        return {"int", "long"} if _inexact(whole) else {"int"}
    if _numbers(cells, pa.float64()) is None:
        return {"bool"} if pc.all(pc.is_in(cells, pa.array(_TRUE + _FALSE))).as_py() else {"text"}
    odd = cells.filter(pc.match_substring_regex(cells, f"{_PADDED}|{_LONG}"))
    if not len(odd):
        return {"float"}
    if pc.any(pc.match_substring_regex(odd, _PADDED)).as_py():
        return {"text"}
    whole = _numbers(odd, pa.int64())
    return {"float", "long"} if whole is None or _inexact(whole) else {"float"}


def _numbers(cells: pa.Array, kind: pa.DataType) -> pa.Array | None:
    for part in (cells[:64], cells):  # a cast words an error for every single cell, which takes its time
        try:
            found = part.cast(kind)
        except pa.ArrowInvalid:
            return None
    return found


def _inexact(numbers: pa.Array) -> bool:
    """Returns whether float64 cannot hold one of these whole numbers."""
    bounds = pc.min_max(numbers).as_py()
    return bool(max(-bounds["min"], bounds["max"]) > EXACT)


def _narrowest(held: set[str]) -> pa.DataType:
    if not held:
        return pa.null()
    if held == {"bool"}:
        return pa.bool_()
    if held <= {"int", "long"}:
        return pa.int64()
    return pa.float64() if held <= {"int", "float"} else pa.string()
