"""Parquet files.

Their types are their own. What bounds the memory: no page is unpacked that is larger than a few values may be,
batches have as few rows as the densest page asks for, and a value that many rows share through a dictionary is
multiplied in pieces.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from airworthy.columns import conform, kept_schema, unified_schema
from airworthy.errors import DataError, Problems
from airworthy.formats import File, Format, require_names, require_same_columns
from airworthy.formats.pages import pages

_ROWS = 65_536
_CHUNK = 64 << 20  # the bytes that a chunk of rows has at most, unless a single row has more
_STREAMED = {"buffer_size": 1 << 20, "pre_buffer": False}
_PAGE = 8  # how many of the largest values a page may hold


class Parquet(Format):
    def survey(self, files: Sequence[File]) -> pa.Schema:
        schemas = []
        for file in files:
            with _opened(file) as opened:
                require_names(file, opened.schema_arrow.names)
                schemas.append(kept_schema(file.name, opened.schema_arrow))
        require_same_columns(files, [schema.names for schema in schemas])
        where = files[0].name if len(files) == 1 else f"{files[0].name} and others"
        return unified_schema(where, schemas)

    def read(self, file: File, schema: pa.Schema) -> Iterator[pa.Table]:
        with _opened(file) as opened:
            shared = _with_dictionary(opened)
        unpacked = 0
        with _opened(file, read_dictionary=shared) as opened:
            for group in range(opened.num_row_groups):
                if not opened.metadata.row_group(group).num_rows:
                    continue  # it has no pages either
                rows = self._batch_rows(file, opened.metadata.row_group(group))
                for batch in opened.iter_batches(batch_size=rows, row_groups=[group]):
                    for chunk in self._pieces(file, pa.Table.from_batches([batch])):
                        found = conform(file.name, chunk, schema)
                        unpacked += found.nbytes
                        self.allow(file, unpacked)
                        yield found

    def _batch_rows(self, file: File, group: Any) -> int:
        """Returns how many rows of a row group may be read at once."""
        densest = 1.0
        with file.path.open("rb") as source:
            for number in range(group.num_columns):
                chunk = group.column(number)
                start = chunk.data_page_offset
                if chunk.has_dictionary_page and chunk.dictionary_page_offset is not None:
                    start = min(start, chunk.dictionary_page_offset)
                try:
                    for page in pages(source, start, chunk.total_compressed_size):
                        if page.unpacked > (most := _PAGE * self.limits.cell):
                            got = f"{page.unpacked:,} bytes in {chunk.path_in_schema}"
                            hint = "Raise `max_cell` if the file is in order, or write it with fewer rows to a page"
                            raise DataError(file.name, f"must not have a page of more than {most:,} bytes", got, hint)
                        densest = max(densest, page.unpacked / max(page.values, 1))
                except ValueError as error:
                    raise _damaged(file, error) from None
        return max(1, min(_ROWS, int(_CHUNK / densest)))

    def _pieces(self, file: File, table: pa.Table) -> Iterator[pa.Table]:
        """Yields the rows with each value by itself, in chunks that have a bounded size."""
        lengths = pa.repeat(pa.scalar(0, pa.int64()), table.num_rows)
        for name in table.column_names:
            column = table[name]
            if pa.types.is_dictionary(column.type):
                part = column.combine_chunks()
                values = pc.fill_null(pc.binary_length(part.dictionary), 0).cast(pa.int64())
                each = pc.fill_null(values.take(part.indices), 0)
            elif kept_as_text(column.type):
                each = pc.fill_null(pc.binary_length(column), 0).cast(pa.int64())
            else:
                continue
            if (pc.max(each).as_py() or 0) > self.limits.cell:
                raise self.too_large(file, f"a longer one in {name}")
            lengths = pc.add(lengths, each)
        total = pc.sum(lengths).as_py() or 0
        if total <= _CHUNK:
            yield table
            return
        ends, start = pc.cumulative_sum(lengths).to_pylist(), 0
        while start < table.num_rows:
            done, stop = ends[start - 1] if start else 0, start + 1
            while stop < table.num_rows and ends[stop] - done <= _CHUNK:
                stop += 1
            yield table.slice(start, stop - start)
            start = stop


def kept_as_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind))


def _with_dictionary(opened: pq.ParquetFile) -> list[str]:
    """Returns the columns of text of which some part is stored through a dictionary."""
    text = [field.name for field in opened.schema_arrow if kept_as_text(field.type)]
    found = set()
    for group in map(opened.metadata.row_group, range(opened.num_row_groups)):
        for number in range(group.num_columns):
            chunk = group.column(number)
            if chunk.has_dictionary_page or any("DICTIONARY" in encoding for encoding in chunk.encodings):
                found.add(chunk.path_in_schema)
    return [name for name in text if name in found]


@contextmanager
def _opened(file: File, **options: Any) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(file.path, page_checksum_verification=True, **_STREAMED, **options) as opened:
            yield opened
    except (DataError, Problems):
        raise
    except (pa.ArrowException, OSError, ValueError, UnicodeDecodeError) as error:
        raise _damaged(file, error) from error


def _damaged(file: File, error: Exception) -> DataError:
    told = str(error).split("\n")[0].replace(str(file.path), file.name)
    hint = "Write it again in that format, or correct `glob`; nothing was ingested"
    return DataError(file.name, "must be a Parquet file", told, hint)
