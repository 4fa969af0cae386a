"""CSV files, plain or packed with gzip.

Each file is read twice: the first time as text to find the narrowest type that holds every cell of a column, the
second time in those types. So the result does not depend on what the first rows look like, nor on how the
rows are cut into files. Only text says what it is worth: `007` and numbers beyond the precision of their type
stay text, and times stay text until ingest parses them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv

from airworthy.errors import DataError
from airworthy.formats import File, Format, require_names, require_same_columns
from airworthy.formats.text import Text

_TRUE, _FALSE = ["true", "True", "TRUE"], ["false", "False", "FALSE"]
_PADDED = r"^-?0[0-9]"
_LONG = r"^-?[0-9]{16,}$"
_EXACT = 2**53  # float64 holds every whole number up to here


class Csv(Format):
    def survey(self, files: Sequence[File]) -> pa.Schema:
        names = [self._names(file) for file in files]
        require_same_columns(files, names)
        held: dict[str, set[str]] = {name: set() for name in names[0]}
        for file, columns in zip(files, names, strict=True):
            self._look(file, columns, held)
        return pa.schema([pa.field(name, _narrowest(found)) for name, found in held.items()])

    def read(self, file: File, schema: pa.Schema) -> Iterator[pa.Table]:
        with Text(file, self) as text:
            types = {field.name: field.type for field in schema}
            for batch in self._batches(file, text, types):
                yield pa.Table.from_batches([batch]).select(schema.names)

    def _names(self, file: File) -> list[str]:
        with Text(file, self) as text:
            names: list[str] = self._open(file, text, {}, []).schema.names
        require_names(file, names)
        return names

    def _look(self, file: File, names: Sequence[str], held: dict[str, set[str]]) -> None:
        last = None
        with Text(file, self) as text:
            for batch in self._batches(file, text, dict.fromkeys(names, pa.string())):
                for name in names:
                    column = batch[name]
                    if (pc.max(pc.binary_length(column)).as_py() or 0) > self.limits.cell:
                        raise self.too_large(file, f"a longer one in {name}")
                    if "text" not in held[name]:
                        held[name] |= _kinds(column.drop_null())
                last = batch if batch.num_rows else last
            if last is not None and text.quotes % 2 and "\n" in (last[names[-1]][-1].as_py() or ""):
                hint = 'A quote within quotes is written as ""'
                raise DataError(file.name, "must close every quote, but the last cell is still open", hint=hint)

    def _batches(self, file: File, text: Text, types: dict[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
        bad: list[Any] = []
        reader = self._open(file, text, types, bad)
        while True:
            try:
                yield reader.read_next_batch()
            except StopIteration:
                return
            except pa.ArrowException as error:
                raise self._explained(file, error, bad) from None

    def _open(self, file: File, text: Text, types: dict[str, pa.DataType], bad: list[Any]) -> Any:
        def refuse(row: Any) -> str:
            bad.append(row)
            return "error"

        try:
            return csv.open_csv(
                pa.PythonFile(text, mode="r"),
                # A row must fit in a block, so the block is what bounds the memory.
                read_options=csv.ReadOptions(block_size=self.limits.cell, use_threads=False),
                parse_options=csv.ParseOptions(newlines_in_values=True, invalid_row_handler=refuse),
                convert_options=csv.ConvertOptions(
                    column_types=types,
                    null_values=self.missing,
                    true_values=_TRUE,
                    false_values=_FALSE,
                    strings_can_be_null=True,
                ),
            )
        except pa.ArrowException as error:
            raise self._explained(file, error, bad) from None

    def _explained(self, file: File, error: Exception, bad: Sequence[Any]) -> DataError:
        if bad:
            where = f"{file.name}: row {bad[0].number}" if bad[0].number else file.name
            rule = f"must have {bad[0].expected_columns} cells, as the header does"
            hint = "Put cells with a comma in quotes"
            return DataError(where, rule, bad[0].actual_columns, hint)
        if "straddling" in str(error):
            return self.too_large(file, "a longer row")
        told = re.sub(r"'.*", "", str(error), flags=re.DOTALL)  # cells may be personal, so none is quoted
        hint = "Write it again in that format, or correct `glob`; nothing was ingested"
        return DataError(file.name, "must be a CSV file", told, hint)


def _kinds(cells: pa.Array) -> set[str]:
    """Returns what the cells of a block are, so that the union over blocks does not depend on their boundaries."""
    if not len(cells):
        return set()
    try:
        numbers = cells.cast(pa.int64())
        if pc.all(pc.equal(numbers.cast(pa.string()), cells)).as_py():
            bounds = pc.min_max(numbers).as_py()
            return {"int", "long"} if max(-bounds["min"], bounds["max"]) > _EXACT else {"int"}
    except pa.ArrowInvalid:
        pass
    try:
        cells.cast(pa.float64())
    except pa.ArrowInvalid:
        return {"bool"} if pc.all(pc.is_in(cells, pa.array(_TRUE + _FALSE))).as_py() else {"text"}
    if pc.any(pc.match_substring_regex(cells, _PADDED)).as_py():
        return {"text"}
    return {"float", "long"} if pc.any(pc.match_substring_regex(cells, _LONG)).as_py() else {"float"}


def _narrowest(held: set[str]) -> pa.DataType:
    if not held:
        return pa.null()
    if held == {"bool"}:
        return pa.bool_()
    if held <= {"int", "long"}:
        return pa.int64()
    return pa.float64() if held <= {"int", "float"} else pa.string()
