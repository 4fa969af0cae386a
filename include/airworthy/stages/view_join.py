"""Joins feature views to raw rows as of each row's own time, so that no feature knows more than was known then.

Chunks of raw rows pass through one by one. DuckDB's ASOF JOIN would sort the whole view again for each of them; here it
is sorted once.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds

from airworthy.config import Pipeline
from airworthy.content import CHUNK, Types, chunks
from airworthy.errors import DataError, Problems
from airworthy.online import microseconds
from airworthy.partitions import Partition, parse_key, partition_at
from airworthy.store import Store
from airworthy.views import View, view_table

VIEWS = "views"  # the fact of a partition of `features` that holds `ViewJoin.versions`
MEMORY = "1GB"  # of DuckDB; what does not fit goes to a temporary folder

_MICROSECOND = 1_000_000


class ViewJoin:
    """Gives chunks of a partition's raw rows the columns of the pipeline's views.

    Attributes:
        versions: The version of each view's table that it reads, by table.
    """

    def __init__(self, pipeline: Pipeline, readers: Sequence[_Reader]) -> None:
        self._pipeline = pipeline
        self._readers = readers
        self.versions = {reader.table: reader.version for reader in readers}

    def __call__(self, chunk: pa.Table) -> pa.Table:
        """Returns the same rows in the same order, with a column more for each column of a view.

        A row at time t gets the newest values of its entity with a time <= t, of several of one time those
        written last. They are missing when there are none, none young enough, or a part of the key is missing.

        Raises:
            Problems: A column of a view is one of the raw rows' own, or a key is missing or of another type.
        """
        self._check(chunk)
        for reader in self._readers:
            chunk = reader.join(chunk, self._pipeline.time)
        return chunk

    def _check(self, chunk: pa.Table) -> None:
        problems = []
        for reader in self._readers:
            for name in reader.view.columns:
                if name in chunk.column_names:
                    rule = f"must not be a column of the raw rows of {self._pipeline.name} too"
                    hint = "Rename it in the view's source, or in the pipeline's"
                    problems.append(DataError(f"{reader.table}: {name}", rule, hint=hint))
            for name in reader.view.key:
                kind = chunk.schema.field(name).type if name in chunk.column_names else None
                if kind is None:
                    rule = f"must be a column of the raw rows of {self._pipeline.name}, because it is the view's key"
                    problems.append(DataError(f"{reader.table}: {name}", rule, chunk.column_names))
                elif not _comparable(kind, reader.types[name]):
                    rule = f"must be of one type in the view, where it is {reader.types[name]}, and in the raw rows"
                    problems.append(DataError(f"{reader.table}: {name}", rule, str(kind)))
        if problems:
            raise Problems(self._pipeline.name, problems)


@contextmanager
def join_views(
    pipeline: Pipeline, partition: Partition, store: Store, versions: Mapping[str, int] | None = None
) -> Iterator[ViewJoin]:
    """Yields what joins the views to raw rows of a partition; it reads one version of each view from start to end.

    Args:
        pipeline: Declares the views.
        partition: Whose raw rows are to be joined.
        store: Has the views' tables.
        versions: Of the views' tables, to repeat a join exactly. Default: the newest.

    Raises:
        DataError: A view has had no rows yet.
    """
    if not pipeline.views:
        yield ViewJoin(pipeline, ())
        return
    import duckdb

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="airworthy-")))
        settings: dict[str, Any] = {
            "memory_limit": MEMORY,
            "temp_directory": str(folder),
            "threads": os.cpu_count() or 1,
        }
        connection = stack.enter_context(duckdb.connect(":memory:", config=settings))
        readers = []
        for number, (name, view) in enumerate(pipeline.views.items()):
            version = (versions or {}).get(view_table(name))
            reader = _Reader(connection, folder, f"view_{number}", view, view_table(name), store, version)
            reader.load(pipeline, partition, store)
            readers.append(reader)
        yield ViewJoin(pipeline, readers)


def view_versions(pipeline: Pipeline, store: Store) -> dict[str, int]:
    """Returns the newest version of each view's table, by table.

    Raises:
        DataError: A view has had no rows yet.
    """
    return {view_table(name): _newest(view_table(name), store) for name in pipeline.views}


def _newest(table: str, store: Store) -> int:
    version = store.version(table)
    if version is None:
        hint = "The first partition with rows gives its columns their types: ingest that one first"
        raise DataError(table, "must have had rows before it can be joined", hint=hint)
    return version


def joined_as_processed(pipeline: Pipeline, raw: pd.DataFrame, store: Store, version: int) -> pd.DataFrame:
    """Returns raw rows of several partitions with the values that a version of `features` was made with.

    Each partition's facts say which version of a view it saw; the newest does as well when nothing that the
    partition may see was written since. So most often one join serves all of them.
    """
    if not pipeline.views or raw.empty:
        return raw
    made = store.history("features")
    seen = {write.partition: write.facts.get(VIEWS, {}) for write in made if write.version <= version}
    written = [write for name in pipeline.views for write in store.history(view_table(name))]
    keys = raw[pipeline.time].map(lambda moment: partition_at(pipeline.partition, moment).key)
    groups: dict[str, list[str]] = {}
    for key in sorted(keys.unique()):
        corrected = any(
            write.partition <= key and write.version > seen[key].get(write.table, write.version) for write in written
        )
        groups.setdefault(json.dumps(seen[key]) if corrected else "", []).append(key)
    parts = []
    for versions, members in groups.items():
        first, last = (parse_key(pipeline.partition, key) for key in (members[0], members[-1]))
        span = Partition(last.key, first.start, last.end)
        with join_views(pipeline, span, store, json.loads(versions) if versions else None) as join:
            rows = raw[keys.isin(members)]
            parts.append(join(pa.Table.from_pandas(rows, preserve_index=False)).to_pandas().set_index(rows.index))
    found: pd.DataFrame = pd.concat(parts).loc[raw.index]
    return found


class _Reader:
    """One view: per entity what was known last before the partition, and what became known in it.

    DuckDB sorts this once, by entity and time, into a file that is mapped and not read into memory; then each row of
    a chunk is searched for in it. Columns go by number there, so that no name can break a query; moments are whole
    microseconds, so no time zone has a say.
    """

    def __init__(
        self, connection: Any, folder: Path, name: str, view: View, table: str, store: Store, version: int | None
    ) -> None:
        version = _newest(table, store) if version is None else version
        self._connection = connection
        self._file = folder / name
        self._name = name
        self._keys = [f"k{number}" for number in range(len(view.key))]
        self._values = [f"c{number}" for number in range(len(view.columns))]
        self._age = None if view.age is None else int(view.age.total_seconds()) * _MICROSECOND
        self.view = view
        self.table = table
        self.version = version
        self.types: Types = {}

    def load(self, pipeline: Pipeline, partition: Partition, store: Store) -> None:
        """Leaves the rows that the partition's raw rows may see sorted, and each entity's place among them."""
        start, end = microseconds(partition.start), microseconds(partition.end)
        oldest = "" if self.view.age is None else partition_at(pipeline.partition, partition.start - self.view.age).key
        wanted = [key for key in store.partitions(self.table, self.version) if oldest <= key <= partition.key]
        rows = store.scan(self.table, partitions=wanted, version=self.version)
        self.types = {field.name: field.type for field in rows.schema}
        if missing := [name for name in (*self.view.key, *self.view.columns) if name not in self.types]:
            hint = "They are declared since: ingest the partition again"
            raise DataError(f"{self.table}, version {self.version}", "must have the view's columns", missing, hint)
        keys = ", ".join(self._keys)
        known = " AND ".join([*(f"{key} IS NOT NULL" for key in self._keys), f"t < {end}"])
        if self._age is not None:
            known += f" AND t >= {start - self._age}"
        values = ", ".join(f"{name} := {name}" for name in self._values)
        self._connection.register("given", self._numbered(rows))
        self._connection.execute(f"""
            CREATE TABLE known AS
            SELECT {keys}, max(t) AS t, arg_max(struct_pack({values}), (t, "row")) AS v
            FROM given WHERE {known} GROUP BY {keys}, CASE WHEN t >= {start} THEN t END
        """)
        self._connection.unregister("given")
        self._connection.execute(f"""
            CREATE TABLE {self._name} AS
            SELECT {keys}, (sum(n) OVER (ORDER BY {keys}) - n)::BIGINT AS "first", n
            FROM (SELECT {keys}, count(*) AS n FROM known GROUP BY {keys})
        """)
        chosen = ", ".join(f"v.{name}" for name in self._values)
        self._keep(self._connection.sql(f"SELECT t, {chosen} FROM known ORDER BY {keys}, t"))
        self._connection.execute("DROP TABLE known")

    def _numbered(self, rows: ds.Dataset) -> pa.RecordBatchReader:
        names = [*self.view.key, *self.view.columns]
        fields = [*zip([*self._keys, *self._values], (self.types[name] for name in names), strict=True)]
        schema = pa.schema([*fields, ("t", pa.int64()), ("row", pa.int64())])

        def batches() -> Iterator[pa.RecordBatch]:
            row = 0
            for chunk in chunks(rows, [*names, self.view.time]):
                columns = [chunk[name] for name in names]
                moments = chunk[self.view.time].cast(pa.int64())
                numbers = pa.array(np.arange(row, row + chunk.num_rows))
                yield from pa.table([*columns, moments, numbers], schema=schema).to_batches()
                row += chunk.num_rows

        return pa.RecordBatchReader.from_batches(schema, batches())

    def _keep(self, rows: Any) -> None:
        schema = pa.schema([("t", pa.int64()), *((name, self.types[name]) for name in self.view.columns)])
        with pa.OSFile(str(self._file), "wb") as sink, pa.ipc.new_file(sink, schema) as out:
            for batch in rows.to_arrow_reader(CHUNK):
                out.write_table(pa.Table.from_batches([batch]).rename_columns(schema.names).cast(schema))
        kept = pa.ipc.open_file(pa.memory_map(str(self._file))).read_all()
        self._times = kept["t"].to_numpy()
        self._known = kept.drop_columns("t")

    def join(self, chunk: pa.Table, time: str) -> pa.Table:
        columns = [chunk[name] for name in self.view.key]
        given = pa.table([*columns, pa.array(np.arange(chunk.num_rows))], names=[*self._keys, "row"])
        same = " AND ".join(f"given.{key} = known.{key}" for key in self._keys)
        self._connection.register("given", given)
        found = self._connection.sql(f"""
            SELECT coalesce(known."first", 0) AS "first", coalesce(known.n, 0) AS n
            FROM given LEFT JOIN {self._name} AS known ON {same} ORDER BY given."row"
        """).to_arrow_table()
        self._connection.unregister("given")
        first, moments = found["first"].to_numpy(), chunk[time].cast(pa.int64()).to_numpy()
        place = _search(self._times, first, first + found["n"].to_numpy(), moments)
        missing = place < first
        if self._age is not None and len(self._times):
            missing |= moments - self._times[place] > self._age
        values = self._known.take(pa.array(place, mask=missing))
        for name in self.view.columns:
            chunk = chunk.append_column(name, values[name])
        return chunk


def _search(times: np.ndarray, first: np.ndarray, end: np.ndarray, moments: np.ndarray) -> np.ndarray:
    """Returns the last place in `[first, end)` whose time is not after the moment, or `first - 1`: a binary search.

    Args:
        times: Ascending in each of the ranges.
        first: Shape (n,).
        end: Shape (n,).
        moments: Shape (n,).
    """
    low, high = first.copy(), end.copy()
    while (searched := np.flatnonzero(low < high)).size:
        middle = (low[searched] + high[searched]) // 2
        known = times[middle] <= moments[searched]
        low[searched[known]] = middle[known] + 1
        high[searched[~known]] = middle[~known]
    return low - 1


def _comparable(one: pa.DataType, other: pa.DataType) -> bool:
    # Whole numbers become float64 where one is missing.
    numbers = [pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in (one, other)]
    return all(numbers) or bool(one == other)
