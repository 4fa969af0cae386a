"""The content of one partition on its way into a table: in chunks, typed as stored, held outside memory when large."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Collection, Iterable, Iterator
from types import TracebackType
from typing import Any, Self, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from airworthy.errors import DataError, Problems

CHUNK = 131_072  # rows; of 50 columns they take about 50 MB
PARTITION = "partition"
TIMESTAMP = pa.timestamp("us", tz="UTC")

Rows: TypeAlias = pd.DataFrame | pa.Table | Iterable[pa.Table]
Types = dict[str, pa.DataType]

_IN_MEMORY = 64 << 20


class Content:
    """The rows of one partition, to be read several times; what exceeds 64 MB lies in a temporary file.

    Args:
        where: What to name in errors.
        rows: A frame, a table, or chunks with the same columns, which are read once.

    Raises:
        DataError: A column holds several types.
        Problems: Columns are repeated, reserved, or not the same in all chunks.
    """

    def __init__(self, where: str, rows: Rows) -> None:
        self._where = where
        self._kept: list[pa.Table] = []
        self._file: Any = None
        self._spilled: list[tuple[int, int]] = []
        self.rows = 0
        self.types: Types = {}
        try:
            for chunk in _chunks(where, rows):
                self._add(chunk)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def typed(self, types: Types) -> Iterator[pa.Table]:
        """Yields the rows in chunks whose columns are cast to `types` without a loss.

        Raises:
            Problems: Values do not fit; every column is named.
        """
        for chunk in self._read():
            yield _cast(self._where, chunk, types)

    def _add(self, chunk: pa.Table) -> None:
        if self.types and (differing := sorted(self.types.keys() ^ set(chunk.column_names))):
            rule = "must have the same columns in all chunks"
            raise DataError(self._where, rule, differing, "These are missing in some; give every chunk all columns")
        for name, kind in zip(chunk.column_names, chunk.schema.types, strict=True):
            self.types[name] = _wider(f"{self._where}: {name}", self.types.get(name, kind), kind)
        self.rows += chunk.num_rows
        self._kept.append(chunk)
        if sum(kept.nbytes for kept in self._kept) > _IN_MEMORY:
            self._spill()

    def _spill(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="airworthy-")  # noqa: SIM115  # closed by close()
        for chunk in self._kept:
            start = self._file.tell()
            with pa.ipc.new_stream(self._file, chunk.schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as out:
                out.write_table(chunk)
            self._spilled.append((start, self._file.tell() - start))
        self._kept.clear()

    def _read(self) -> Iterator[pa.Table]:
        for start, size in self._spilled:
            self._file.seek(start)
            yield pa.ipc.open_stream(self._file.read(size)).read_all()
        yield from self._kept


def digest(chunks: Iterable[pa.Table], names: Collection[str]) -> str:
    """Returns the SHA-256 of the rows, in order: of names, types and values, and of nothing else.

    Not of how they are chunked, of offsets, or of what lies under a null.
    """
    columns = {name: hashlib.sha256(name.encode()) for name in names}
    for block in _blocks(chunks):
        for name, found in columns.items():
            for part in _canonical(block[name]):
                found.update(part)
    return hashlib.sha256(b"".join(found.digest() for found in columns.values())).hexdigest()


def _blocks(chunks: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Yields the same rows in chunks that all but the last have `CHUNK` rows."""
    waiting: list[pa.Table] = []
    count = 0
    for chunk in chunks:
        start = 0
        while chunk.num_rows - start >= CHUNK - count:
            part = chunk.slice(start, CHUNK - count)
            yield pa.concat_tables([*waiting, part])
            start += part.num_rows
            waiting, count = [], 0
        if start < chunk.num_rows:
            waiting.append(chunk.slice(start))
            count += chunk.num_rows - start
    if waiting:
        yield pa.concat_tables(waiting)


def _canonical(column: pa.ChunkedArray) -> Iterator[bytes]:
    yield f"{column.type}\0{len(column)}\0".encode()
    if column.null_count:
        yield np.packbits(pc.is_null(column).to_numpy()).tobytes()
        column = column.drop_null()
    values = column.combine_chunks()
    if pa.types.is_boolean(values.type):
        values = values.cast(pa.uint8())  # the spare bits of a bitmap's last byte hold anything
    yield pa.record_batch([values], ["values"]).serialize().to_pybytes()


def _chunks(where: str, rows: Rows) -> Iterator[pa.Table]:
    if isinstance(rows, pd.DataFrame):
        yield _from_frame(where, rows)
        return
    for chunk in [rows] if isinstance(rows, pa.Table) else rows:
        _check_names(where, chunk.column_names)
        yield pa.table({name: normal(chunk[name]) for name in chunk.column_names})


def _from_frame(where: str, frame: pd.DataFrame) -> pa.Table:
    names = [str(name) for name in frame.columns]
    _check_names(where, names)
    arrays, problems = {}, []
    for position, name in enumerate(names):
        try:
            arrays[name] = normal(pa.array(frame.iloc[:, position], from_pandas=True))
        except pa.ArrowException as error:
            problems.append(DataError(f"{where}: {name}", "must hold values of one type", str(error)))
    if problems:
        raise Problems(where, problems)
    return pa.table(arrays)


def _check_names(where: str, names: list[str]) -> None:
    problems = []
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        problems.append(DataError(where, "must have each column once", repeated))
    if PARTITION in names:
        problems.append(DataError(where, f"must not have a column named {PARTITION!r}; the store adds it"))
    if problems:
        raise Problems(where, problems)


def normal(column: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Returns the values in the one type that the store keeps for their sort of value; NaN becomes missing."""
    if pa.types.is_dictionary(column.type):
        column = pc.dictionary_decode(column)
    kind = column.type
    if pa.types.is_integer(kind):
        return column.cast(pa.int64())
    if pa.types.is_floating(kind):
        wide = column.cast(pa.float64())
        missing = pc.is_nan(wide)
        return pc.if_else(missing, None, wide) if pc.any(missing).as_py() else wide
    if pa.types.is_timestamp(kind):
        return column.cast(TIMESTAMP, safe=False)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return column.cast(pa.string())
    return column


def _wider(where: str, one: pa.DataType, other: pa.DataType) -> pa.DataType:
    if one == other or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    if _is_number(one) and _is_number(other):
        return pa.float64()
    raise DataError(where, "must hold values of one type", f"{one} and {other}")


def _cast(where: str, chunk: pa.Table, types: Types) -> pa.Table:
    columns, problems = {}, []
    for name, wanted in types.items():
        try:
            columns[name] = _cast_column(f"{where}: {name}", chunk[name], wanted)
        except DataError as error:
            problems.append(error)
    if problems:
        raise Problems(where, problems)
    return pa.table(columns)


def _cast_column(where: str, column: pa.ChunkedArray, wanted: pa.DataType) -> pa.ChunkedArray:
    found = column.type
    if found == wanted:
        return column
    if pa.types.is_null(found) or (_is_number(found) and _is_number(wanted)):
        try:
            return column.cast(wanted)
        except pa.ArrowInvalid as error:
            raise DataError(where, f"must hold {wanted}, as the table does", str(error)) from None
    raise DataError(where, f"must hold {wanted}, as the table does", str(found))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))
