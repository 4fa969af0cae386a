"""The content of one partition on its way into a table: taken in by chunks, typed as stored, never all in memory."""

from __future__ import annotations

import hashlib
import json
import math
import time
import uuid
from collections.abc import Collection, Iterable, Iterator
from datetime import datetime
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake.transaction import AddAction
from pyarrow import fs

from airworthy import columns
from airworthy.errors import DataError, Problems

CHUNK = 131_072  # rows; of 50 columns they take about 50 MB
PARTITION = "partition"
_BLOCK = 16_384  # rows that are put through a digest at once; of long text they take much more than numbers do

Rows: TypeAlias = pd.DataFrame | pa.Table | Iterable[pa.Table]
Types = dict[str, pa.DataType]


class Content:
    """The rows of one partition, in a Parquet file beside their table that no reader of the table sees yet.

    Args:
        where: What to name in errors.
        rows: A frame, a table, or chunks with the same columns, which are read once.
        folder: Where to write the file, in `filesystem`.
        filesystem: The table's folder.
        types: The columns to have and what to cast them to, without a loss. None: what all chunks have in common.

    Raises:
        DataError: A column holds several types.
        Problems: Columns are repeated, reserved, or not those of `types`, or values do not fit.
    """

    def __init__(self, where: str, rows: Rows, folder: str, filesystem: fs.FileSystem, types: Types | None) -> None:
        self.types = types or {}
        self.rows = 0
        self._where, self._folder, self._filesystem = where, folder, filesystem
        self._path = ""
        self._kept = False
        self._writer: pq.ParquetWriter | None = None
        self._digest = Digest(self.types)
        try:
            for chunk in _chunks(where, rows):
                self._add(chunk, self._widened(chunk) if types is None else types)
        except BaseException:
            self.remove()
            raise

    def retype(self, types: Types) -> None:
        """Leaves the rows in a file whose columns are in the order and of the types of `types`.

        Raises:
            Problems: Values do not fit; every column is named.
        """
        if list(types.items()) == list(self.types.items()):
            return
        written, kept = self._path, self._kept
        if written:
            self._finish()
            try:
                with self._filesystem.open_input_file(written) as source:
                    self._open(types)
                    for batch in pq.ParquetFile(source).iter_batches(CHUNK):
                        self._add(pa.Table.from_batches([batch]), types)
            finally:  # also when values do not fit: only the newest file is known from here on
                if not kept:
                    self._filesystem.delete_file(written)
        self.types = types

    def finish(self, key: str) -> AddAction | None:
        """Returns what a Delta log says of the file of the partition with this key, or None if there are no rows."""
        if not self.rows:
            return None
        metadata = self._finish()
        return AddAction(
            path=self._path,
            size=self._filesystem.get_file_info(self._path).size,
            partition_values={PARTITION: key},
            modification_time=round(time.time() * 1000),
            data_change=True,
            stats=json.dumps(_statistics(metadata)),
        )

    def keep(self, kept: bool = True) -> None:
        """Leaves the file to the table, or takes it back."""
        self._kept = kept

    def remove(self) -> None:
        """Leaves no file behind but one that was kept."""
        if self._path and not self._kept:
            if self._writer is not None:
                self._writer.close()
            self._filesystem.delete_file(self._path)
            self._path = ""

    @property
    def digest(self) -> str:
        """SHA-256 of the rows, in order."""
        return self._digest.hexdigest()

    def _add(self, chunk: pa.Table, types: Types) -> None:
        if problems := _name_problems(self._where, chunk.column_names, types):
            raise Problems(self._where, problems)
        if self._writer is None:
            self._open(types)
        else:
            self.retype(types)
        assert self._writer is not None
        typed = _cast(self._where, chunk, types)
        self._digest.add(typed)
        if typed.num_rows:  # a row group without rows has no statistics, and without them a filter finds no row
            self._writer.write_table(typed, row_group_size=CHUNK)
        self.rows += typed.num_rows

    def _open(self, types: Types) -> None:
        self.types, self.rows = types, 0
        self._digest = Digest(types)
        self._filesystem.create_dir(self._folder)
        path = f"{self._folder}/part-{uuid.uuid4()}.parquet"
        self._metadata: list[pq.FileMetaData] = []
        schema = pa.schema(types.items())
        self._writer = pq.ParquetWriter(path, schema, filesystem=self._filesystem, metadata_collector=self._metadata)
        self._path, self._kept = path, False

    def _finish(self) -> pq.FileMetaData:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        return self._metadata[0]

    def _widened(self, chunk: pa.Table) -> Types:
        found = dict(zip(chunk.column_names, chunk.schema.types, strict=True))
        if not self.types:
            return found
        if differing := sorted(self.types.keys() ^ found.keys()):
            rule = "must have the same columns in all chunks"
            raise DataError(self._where, rule, differing, "These are missing in some; give every chunk all columns")
        return {name: _wider(f"{self._where}: {name}", kind, found[name]) for name, kind in self.types.items()}


def completed(where: str, found: Types, known: Types) -> Types:
    """Returns the types of columns, those without a value typed as they are known elsewhere.

    Raises:
        Problems: They are not known there; every such column is named.
    """
    types = {name: known.get(name, kind) if pa.types.is_null(kind) else kind for name, kind in found.items()}
    hint = "Give it a type in the code that makes it, e.g. astype('float64')"
    rule = "must hold a value, because the first partition gives a column its type"
    if untyped := [name for name, kind in types.items() if pa.types.is_null(kind)]:
        raise Problems(where, [DataError(f"{where}: {name}", rule, hint=hint) for name in untyped])
    return types


def evolved(where: str, there: Types, found: Types, known: Types) -> Types:
    """Returns the types of a table's columns once it has taken over what was found.

    Columns are added, and int64 becomes float64; both as they are known elsewhere, if they are. A column that
    neither has a value nor is known adds nothing to a table that has it.

    Raises:
        DataError: A new column has the name of another one but for upper and lower case.
        Problems: A new column has no value, and is not known; every such column is named.
    """
    new = {name: known.get(name, kind) for name, kind in found.items() if name not in there}
    if repeated := columns.alike([*there, *new]):
        hint = "Rename the new one where the rows come from"
        raise DataError(where, "must not get a column that differs in upper and lower case only", repeated, hint)
    wider = {
        name: pa.float64()
        for name, kind in found.items()
        if there.get(name) == pa.int64() and known.get(name, kind) == pa.float64()
    }
    return {**there, **wider, **completed(where, new, known)}


class Digest:
    """SHA-256 of rows in order: of names, types and values, not of chunks, offsets, or what lies under a null."""

    def __init__(self, names: Iterable[str]) -> None:
        self._columns = {name: hashlib.sha256(name.encode()) for name in names}
        self._waiting: list[pa.Table] = []
        self._count = 0

    def add(self, rows: pa.Table) -> None:
        """Takes the rows in, in blocks of one size, so that it does not matter how they come."""
        start = 0
        while rows.num_rows - start >= _BLOCK - self._count:
            part = rows.slice(start, _BLOCK - self._count)
            start += part.num_rows
            _update(self._columns, pa.concat_tables([*self._waiting, part]))
            self._waiting, self._count = [], 0
        if start < rows.num_rows:
            self._waiting.append(rows.slice(start))
            self._count += rows.num_rows - start

    def hexdigest(self) -> str:
        found = {name: column.copy() for name, column in self._columns.items()}
        if self._waiting:
            _update(found, pa.concat_tables(self._waiting))
        return hashlib.sha256(b"".join(column.digest() for column in found.values())).hexdigest()


def _update(digests: dict[str, Any], block: pa.Table) -> None:
    for name, column in digests.items():
        for part in _canonical(block[name]):
            column.update(part)


def _canonical(column: pa.ChunkedArray) -> Iterator[bytes]:
    yield f"{column.type}\0{len(column)}\0".encode()
    if column.null_count:
        yield np.packbits(pc.is_null(column).to_numpy()).tobytes()
        column = column.drop_null()
    values = column.combine_chunks()
    if pa.types.is_boolean(values.type):
        values = values.cast(pa.uint8())  # the spare bits of a bitmap's last byte hold anything
    yield pa.record_batch([values], ["values"]).serialize().to_pybytes()


def _chunks(where: str, rows: Any) -> Iterator[pa.Table]:
    if isinstance(rows, pd.DataFrame):
        rows = columns.from_frame(where, rows)
    for chunk in [rows] if isinstance(rows, pa.Table) else rows:
        if PARTITION in chunk.column_names:
            raise DataError(where, f"must not have a column named {PARTITION!r}; the store adds it")
        yield columns.normal(where, chunk)


def _wider(where: str, one: pa.DataType, other: pa.DataType) -> pa.DataType:
    if (found := columns.unified([one, other])) is None:
        raise DataError(where, "must hold values of one type", f"{one} and {other}")
    return found


def _cast(where: str, chunk: pa.Table, types: Types) -> pa.Table:
    cast, problems = {}, []
    for name, wanted in types.items():
        found = chunk[name].type
        rule = f"must hold {wanted}, as the table does"
        if columns.unified([found, wanted]) is None:
            problems.append(DataError(f"{where}: {name}", rule, str(found)))
            continue
        try:
            cast[name] = columns.lossless(chunk[name], wanted)
        except pa.ArrowInvalid as error:
            problems.append(DataError(f"{where}: {name}", rule, str(error)))
    if problems:
        raise Problems(where, problems)
    return pa.table(cast)


def _name_problems(where: str, names: Collection[str], wanted: Collection[str]) -> list[DataError]:
    hint = "A changed set of columns needs a new table: move the old one away and fill it again"
    lost = [name for name in wanted if name not in names]
    added = [name for name in names if name not in wanted]
    return [
        *(DataError(f"{where}: {name}", "is a column of the table, but missing here") for name in lost),
        *(DataError(f"{where}: {name}", "is not a column of the table", hint=hint) for name in added),
    ]


def _statistics(file: pq.FileMetaData) -> dict[str, Any]:
    """Returns bounds of numbers and times, by which readers leave whole files out."""
    found: dict[str, Any] = {"numRecords": file.num_rows, "minValues": {}, "maxValues": {}, "nullCount": {}}
    for position in range(file.num_columns):
        groups = [file.row_group(number).column(position) for number in range(file.num_row_groups)]
        name, statistics = groups[0].path_in_schema, [group.statistics for group in groups]
        if any(one is None or not one.has_null_count for one in statistics):
            continue
        found["nullCount"][name] = sum(one.null_count for one in statistics)
        try:
            bounds = [(one.min, one.max) for one in statistics if one.has_min_max]
        except OverflowError:  # a year that Python does not know
            continue
        if bounds and isinstance(bounds[0][0], int | float | datetime) and not isinstance(bounds[0][0], bool):
            found["minValues"][name] = _plain(min(low for low, _ in bounds))
            found["maxValues"][name] = _plain(max(high for _, high in bounds))
    return found


def _plain(value: float | datetime) -> float | str | None:
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return value if math.isfinite(value) else None
