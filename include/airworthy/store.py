"""The data of a pipeline: Delta tables whose partitions are replaced whole, and only when their content changes."""

from __future__ import annotations

import fcntl
import hashlib
import os
import random
import time as clock
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from pydantic import BaseModel, ConfigDict

from airworthy.errors import ConflictError, DataError, Problems
from airworthy.partitions import Partition, utc

PARTITION = "partition"
ATTEMPTS = 12

_TIMESTAMP = pa.timestamp("us", tz="UTC")
# Old versions are what makes a training run reproducible, so the log must never be cleaned up on its own.
_CONFIGURATION = {"delta.logRetentionDuration": "interval 36500 days"}


class TableRef(BaseModel):
    """One partition of one table as it was at one version.

    Attributes:
        digest: SHA-256 of the rows, in order, typed as in the table.
        changed: Whether the write that returned this reference changed anything.
    """

    model_config = ConfigDict(frozen=True)

    table: str
    partition: str
    version: int
    rows: int
    digest: str
    changed: bool


class Store:
    """The tables of one pipeline, each at `<uri>/<pipeline>/<table>`.

    Numbers are stored as int64 or float64, timestamps in microseconds of UTC (naive ones are taken as UTC),
    categories as the values they stand for.
    """

    def __init__(self, uri: str, pipeline: str) -> None:
        self._uri = f"{uri.rstrip('/')}/{pipeline}"

    def uri(self, table: str) -> str:
        """Returns the address of a table, as any reader of Delta tables takes it."""
        return f"{self._uri}/{table}"

    def write(self, table: str, partition: Partition, frame: pd.DataFrame, *, like: str | None = None) -> TableRef:
        """Leaves exactly the rows of `frame`, in order, in one partition; an empty frame leaves none.

        Nothing is written when they are there already. Of several writers at once one wins, and the
        others find its rows and adopt them if equal, else replace them.

        Args:
            table: The table's name; it is created when it does not exist.
            partition: Which partition to replace.
            frame: The rows. Its index is ignored.
            like: A table that knows the types of columns in which the first partition holds no value.

        Raises:
            DataError: A column holds several types, or an empty frame would have to create the table.
            Problems: The columns are not those of the table; every difference is named.
            ConflictError: Others kept writing the same partition.
        """
        for attempt in range(ATTEMPTS):
            try:
                return self._write(table, partition, frame, like)
            except CommitFailedError:
                clock.sleep(random.uniform(0, 0.05 * (attempt + 1)))
        hint = "Run it again when the other writers are done"
        raise ConflictError(f"{table}[{partition.key}]", f"was written by others {ATTEMPTS} times meanwhile", hint=hint)

    def read(
        self,
        table: str,
        *,
        partitions: Sequence[str] | None = None,
        between: tuple[datetime, datetime] | None = None,
        time: str | None = None,
        columns: Sequence[str] | None = None,
        version: int | None = None,
    ) -> pd.DataFrame:
        """Returns rows by partition, and within a partition in the order they were written.

        Args:
            table: The table's name.
            partitions: Only these; one that holds no rows adds none.
            between: Only rows whose column `time` is in `[start, end)`.
            time: The timestamp column that `between` is about.
            columns: Only these; `partition` may be among them. Default: all but `partition`.
            version: As of this version of the table. Default: the newest.

        Raises:
            DataError: There is no such table, version or column.
        """
        opened = self._open(table, version)
        if opened is None:
            raise DataError(table, f"must exist at {self.uri(table)}", hint="Run the stage that writes it first")
        chosen = ds.scalar(True)
        if partitions is not None:
            chosen &= ds.field(PARTITION).isin(list(partitions))
        if between is not None:
            start, end = (pa.scalar(utc(moment), _TIMESTAMP) for moment in between)
            chosen &= (ds.field(time) >= start) & (ds.field(time) < end)
        try:
            frame: pd.DataFrame = _read(opened, chosen, columns).to_pandas()
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise DataError(table, "must have the columns asked for, typed so", str(error)) from None
        return frame

    def version(self, table: str) -> int | None:
        """Returns the newest version of a table, or None if it does not exist."""
        opened = self._open(table)
        return None if opened is None else opened.version()

    def partitions(self, table: str, version: int | None = None) -> list[str]:
        """Returns the keys of the partitions that hold rows, sorted; none if the table does not exist."""
        opened = self._open(table, version)
        return [] if opened is None else sorted({found[PARTITION] for found in opened.partitions()})

    def has(self, table: str, partition_key: str) -> bool:
        """Returns whether a partition holds rows."""
        return partition_key in self.partitions(table)

    def _open(self, table: str, version: int | None = None) -> DeltaTable | None:
        try:
            return DeltaTable(self.uri(table), version=version)
        except TableNotFoundError:
            return None
        except DeltaError as error:
            where = table if version is None else f"{table}, version {version}"
            raise DataError(where, f"must be a readable Delta table at {self.uri(table)}", str(error)) from None

    def _write(self, table: str, partition: Partition, frame: pd.DataFrame, like: str | None) -> TableRef:
        where = f"{table}[{partition.key}]"
        opened = self._open(table)
        if opened is None and frame.empty:
            raise DataError(where, "must hold rows, because the first partition gives the table its columns")
        model = opened if opened is not None or like is None else self._open(like)
        types = {} if model is None else {f.name: f.type for f in _schema(model) if f.name != PARTITION}
        content = _conform(where, frame, types, fixed=opened is not None)
        digest = _digest(content)

        def reference(version: int, changed: bool) -> TableRef:
            names = {"table": table, "partition": partition.key, "digest": digest}
            return TableRef(**names, version=version, rows=content.num_rows, changed=changed)

        if opened is None:
            opened = self._create(table, content.schema.append(pa.field(PARTITION, pa.string())))
        elif _digest(_read(opened, ds.field(PARTITION) == partition.key)) == digest:
            return reference(opened.version(), False)
        whole = content.append_column(PARTITION, pa.array([partition.key] * content.num_rows, pa.string()))
        write_deltalake(opened, whole, mode="overwrite", predicate=f"{PARTITION} = '{partition.key}'")
        return reference(opened.version(), True)

    def _create(self, table: str, schema: pa.Schema) -> DeltaTable:
        """Returns a new table without rows.

        Raises:
            CommitFailedError: Another writer created it meanwhile.
        """
        with _alone(self._uri):
            if self._open(table) is not None:
                raise CommitFailedError(f"{table} exists by now")
            return DeltaTable.create(
                self.uri(table), schema, mode="error", partition_by=[PARTITION], configuration=_CONFIGURATION
            )


@contextmanager
def _alone(folder: str) -> Iterator[None]:
    """Keeps other processes of this machine out: Delta lets two creators through, and the last one's schema wins."""
    if "://" in folder:
        yield
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _schema(table: DeltaTable) -> pa.Schema:
    return pa.schema(table.schema())


def _read(table: DeltaTable, chosen: ds.Expression, columns: Sequence[str] | None = None) -> pa.Table:
    """Returns the chosen rows, ordered by partition; a Delta log lists its files in no useful order."""
    whole = table.to_pyarrow_dataset()
    fragments = sorted(
        whole.get_fragments(filter=chosen),
        key=lambda fragment: (ds.get_partition_keys(fragment.partition_expression)[PARTITION], fragment.path),
    )
    names = [name for name in whole.schema.names if name != PARTITION] if columns is None else list(columns)
    if not fragments:
        return whole.schema.empty_table().select(names)
    ordered = ds.FileSystemDataset(fragments, whole.schema, fragments[0].format, fragments[0].filesystem)
    return ordered.to_table(columns=names, filter=chosen)


def _conform(where: str, frame: pd.DataFrame, types: dict[str, pa.DataType], *, fixed: bool) -> pa.Table:
    """Returns the frame's columns typed as in `types`.

    Args:
        where: What to name in errors.
        frame: The rows.
        types: Column types by name.
        fixed: Whether they are the table's own, so that the columns must be exactly these. Else they only
            type columns without a value.
    """
    names = [str(name) for name in frame.columns]
    if problems := _name_problems(where, names, types if fixed else None):
        raise Problems(where, problems)
    arrays = {}
    for position, name in enumerate(names):
        try:
            arrays[name] = _column(f"{where}: {name}", frame.iloc[:, position], types.get(name), fixed=fixed)
        except DataError as error:
            problems.append(error)
    if problems:
        raise Problems(where, problems)
    return pa.table({name: arrays[name] for name in (types if fixed else names)})


def _name_problems(where: str, names: list[str], wanted: Collection[str] | None) -> list[DataError]:
    problems = []
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        problems.append(DataError(where, "must have each column once", repeated))
    if PARTITION in names:
        problems.append(DataError(where, f"must not have a column named {PARTITION!r}; the store adds it"))
    if wanted is None:
        return problems
    lost = [name for name in wanted if name not in names]
    added = [name for name in names if name not in wanted]
    hint = "A changed set of columns needs a new table: move the old one away and fill it again"
    problems += [DataError(f"{where}: {name}", "is a column of the table, but missing here") for name in lost]
    problems += [DataError(f"{where}: {name}", "is not a column of the table", hint=hint) for name in added]
    return problems


def _column(where: str, values: pd.Series[Any], wanted: pa.DataType | None, *, fixed: bool) -> pa.Array:
    try:
        found = _normal(pa.array(values, from_pandas=True))
    except pa.ArrowException as error:
        raise DataError(where, "must hold values of one type", str(error)) from None
    if pa.types.is_null(found.type) and wanted is None:
        hint = "Give it a type in the code that makes it, e.g. astype('float64')"
        raise DataError(where, "must hold a value, because the first partition gives a column its type", hint=hint)
    if found.type == wanted or not (fixed or pa.types.is_null(found.type)):
        return found
    if pa.types.is_null(found.type) or (_is_number(found.type) and _is_number(wanted)):
        try:
            return found.cast(wanted)
        except pa.ArrowInvalid as error:
            raise DataError(where, f"must hold {wanted}, as the table does", str(error)) from None
    raise DataError(where, f"must hold {wanted}, as the table does", str(found.type))


def _normal(array: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Returns the values in the one type that the store keeps for their sort of value."""
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    kind = array.type
    if pa.types.is_integer(kind):
        return array.cast(pa.int64())
    if pa.types.is_floating(kind):
        return array.cast(pa.float64())
    if pa.types.is_timestamp(kind):
        return array.cast(_TIMESTAMP, safe=False)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return array.cast(pa.string())
    return array


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _digest(content: pa.Table) -> str:
    return hashlib.sha256(b"".join(_canonical(content))).hexdigest()


def _canonical(content: pa.Table) -> Iterator[bytes]:
    """Yields bytes that depend on names, types and values only, not on chunks, offsets or what lies under a null."""
    for name in content.column_names:
        column = content[name].combine_chunks()
        yield f"{name}\0{column.type}\0{len(column)}\0".encode()
        yield np.packbits(pc.is_null(column).to_numpy(zero_copy_only=False)).tobytes()
        values = column.drop_null()
        if pa.types.is_boolean(values.type):
            values = values.cast(pa.uint8())  # the spare bits of a bitmap's last byte hold anything
        yield pa.record_batch([values], [name]).serialize().to_pybytes()
