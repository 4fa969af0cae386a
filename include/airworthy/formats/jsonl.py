"""JSON lines, plain or packed with gzip: one object a line. A key that a line leaves out is missing there.

As with CSV the types are those that hold every value of all files: whole and decimal numbers become
decimals, text stays text also where it says a time. A number that would lose whole digits is refused, because
the file says it is none of text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from decimal import Decimal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as js

from airworthy.columns import EXACT, kept_schema, unified_schema
from airworthy.errors import DataError
from airworthy.formats import File, Format
from airworthy.formats.text import blocks

_DECODER = json.JSONDecoder(parse_int=Decimal)
_SPACE = re.compile(r"\s*")
_LONG = re.compile(rb"\d{16}")
_ROW = re.compile(r"in row (\d+)")


class JsonLines(Format):
    def survey(self, files: Sequence[File]) -> pa.Schema:
        schemas = []
        for file in files:
            seen: list[pa.Schema] = []
            for chunk in self._chunks(file, None):
                schema = kept_schema(file.name, _as_written(chunk.schema))
                if schema not in seen:
                    seen.append(schema)
            schemas.append(unified_schema(file.name, seen))
        return unified_schema(files[0].name if len(files) == 1 else f"{files[0].name} and others", schemas)

    def read(self, file: File, schema: pa.Schema) -> Iterator[pa.Table]:
        for chunk in self._chunks(file, schema):
            yield chunk.select(schema.names)

    def _chunks(self, file: File, schema: pa.Schema | None) -> Iterator[pa.Table]:
        options = js.ParseOptions(explicit_schema=schema)
        rows = 0
        for block in blocks(file, self, quotes=False):
            reading = js.ReadOptions(use_threads=False, block_size=len(block) + 1)
            try:
                chunk = js.read_json(pa.BufferReader(block), reading, options)
            except pa.ArrowException as error:
                raise _explained(file, error, rows) from None
            _require_exact(file, chunk, block, rows)
            rows += chunk.num_rows
            yield chunk


def _require_exact(file: File, chunk: pa.Table, block: bytes, rows: int) -> None:
    """Raises DataError if a whole number of a block became another one, because its column holds decimals."""
    floats = [name for name in chunk.column_names if pa.types.is_floating(chunk.schema.field(name).type)]
    large = [name for name in floats if (pc.max(pc.abs(chunk[name])).as_py() or 0) >= EXACT]
    text, place = block.decode() if large and _LONG.search(block) else "", 0
    for row in range(chunk.num_rows if text else 0):
        record, place = _DECODER.raw_decode(text, _SPACE.match(text, place).end())  # type: ignore[union-attr]
        for name in large:
            if isinstance(value := record.get(name), Decimal) and value != chunk[name][row].as_py():
                where = f"{file.name}: row {rows + row + 1}: {name}"
                rule = "must be no whole number that loses digits next to decimals, or beyond 64 bits"
                told = f"one of {len(value.as_tuple().digits)} digits"  # which may be personal
                raise DataError(where, rule, told, f'Write {name} as text everywhere, e.g. "12345"')


def _as_written(schema: pa.Schema) -> pa.Schema:
    """Returns the schema with text where the reader took it for a time."""
    return pa.schema(
        [pa.field(field.name, pa.string() if pa.types.is_temporal(field.type) else field.type) for field in schema]
    )


def _explained(file: File, error: Exception, rows: int) -> DataError:
    told = str(error).removeprefix("JSON parse error: ")
    found = _ROW.search(told)
    where = f"{file.name}: row {rows + int(found[1]) + 1}" if found else file.name
    told = _ROW.sub("", told).strip(" .")
    return DataError(where, "must be one JSON object with values of one type each", told, "Write that line again")
