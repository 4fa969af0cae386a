"""JSON lines, plain or packed with gzip: one object a line. A key that a line leaves out is missing there.

As with CSV the types are those that hold every value of all files: whole and decimal numbers become
decimals, text stays text also where it says a time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.json as js

from airworthy.columns import kept_schema, unified_schema
from airworthy.errors import DataError
from airworthy.formats import File, Format
from airworthy.formats.text import blocks

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
            rows += chunk.num_rows
            yield chunk


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
