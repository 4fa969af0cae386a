"""The data of a pipeline: Delta tables whose partitions are replaced whole, and only when their content changes."""

from __future__ import annotations

import json
import random
import time as clock
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
from deltalake import CommitProperties, DeltaTable, Schema, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.fs import DeltaStorageHandler
from pyarrow import fs
from pydantic import BaseModel, ConfigDict

from airworthy.columns import TIMESTAMP, conform
from airworthy.content import PARTITION, Content, Rows, Types, chunks, completed, digest, evolved
from airworthy.errors import ConflictError, DataError
from airworthy.locks import locked
from airworthy.partitions import Partition, utc

ATTEMPTS = 30

# Old versions are what makes a training run reproducible, so the log must never be cleaned up on its own.
_CONFIGURATION = {"delta.logRetentionDuration": "interval 36500 days"}
Facts: TypeAlias = Mapping[str, Any]
_FACTS = "airworthy"  # the key of a commit's metadata


class _Content(BaseModel):
    """What one partition of one table holds at one version.

    Attributes:
        digest: SHA-256 of the rows, in order, typed as in the table.
    """

    model_config = ConfigDict(frozen=True)

    table: str
    partition: str
    version: int
    rows: int
    digest: str


class TableRef(_Content):
    """One partition of one table as it was at one version.

    Attributes:
        changed: Whether the write that returned this reference changed anything.
    """

    changed: bool


class Write(_Content):
    """One time a partition was given its rows; `version` is the table's from then on.

    Attributes:
        at: When, in UTC.
        facts: What the writer said about where the rows came from.
    """

    at: datetime
    facts: dict[str, Any] = {}


class Store:
    """The tables of one pipeline, each at `<uri>/<pipeline>/<table>`.

    Numbers are stored as int64 or float64, timestamps in microseconds of UTC (naive ones are taken as UTC),
    categories as the values they stand for.
    """

    def __init__(self, uri: str, pipeline: str) -> None:
        self._uri = f"{uri.rstrip('/')}/{pipeline}"
        self._versions: dict[tuple[str, int], DeltaTable] = {}  # opened ones; that takes a while

    def __reduce__(self) -> tuple[Any, ...]:
        """Returns how to make it again in another process, where an open table cannot go."""
        return Store, tuple(self._uri.rsplit("/", 1))

    def uri(self, table: str) -> str:
        """Returns the address of a table, as any reader of Delta tables takes it."""
        return f"{self._uri}/{table}"

    def write(
        self,
        table: str,
        partition: Partition,
        rows: Rows,
        *,
        like: str | None = None,
        evolve: bool = False,
        facts: Facts | None = None,
    ) -> TableRef:
        """Leaves exactly these rows, in order, in one partition; no rows leave none.

        Nothing is written when they are there already, and nothing when the chunks end with an
        exception. Of several writers at once one wins, and the others find its rows and adopt them if
        equal, else replace them.

        Args:
            table: The table's name; it is created when it does not exist.
            partition: Which partition to replace.
            rows: A frame, whose index is ignored, or chunks of rows, which are never all in memory.
            facts: What `history` tells of this write, as JSON values.
            like: A table that knows the types of columns in which the first partition holds no value.
            evolve: Whether the table takes over columns it does not have, missing in its other rows, and lets
                int64 become float64; both typed as in `like` where that has the column.

        Raises:
            DataError: A column holds several types, or no rows would have to create the table.
            Problems: The columns are not those of the table, or cannot become them; every difference is named.
            ConflictError: Others kept writing the same partition.
        """
        where = f"{table}[{partition.key}]"
        opened = None if evolve else self._open(table)
        content = self._content(table, partition.key, rows, None if opened is None else _types(opened))
        try:
            for attempt in range(ATTEMPTS):
                try:
                    with self._alone(table):
                        return self._publish(table, partition, content, like, evolve, facts or {})
                except CommitFailedError:
                    clock.sleep(random.uniform(0, 0.05 * (attempt + 1)))
        finally:
            content.remove()
        hint = "Run it again when the other writers are done"
        raise ConflictError(where, f"was written by others {ATTEMPTS} times meanwhile", hint=hint)

    def append(
        self, table: str, keys: str | Sequence[str], rows: pa.Table, *, once: tuple[str, int] | None = None
    ) -> None:
        """Adds rows to a table that only grows; what several writers add at once is all kept.

        The table takes over columns it does not have, and lets int64 become float64.

        Args:
            table: The table's name; it is created when it does not exist.
            keys: The partition of all rows, or of each.
            rows: Typed as the store keeps them.
            once: Names the writer, and counts up with what it adds: nothing is added if that much is there already.

        Raises:
            Problems: A column's type and the table's have nothing in common.
        """
        with self._alone(table):
            found = dict(zip(rows.column_names, rows.schema.types, strict=True))
            opened = self._open(table) or self._create(table, found)
            if once and (opened.transaction_version(once[0]) or 0) >= once[1]:
                return
            self._widen(table, opened, types := evolved(table, _types(opened), found, {}))
            known = pa.array([keys] * rows.num_rows if isinstance(keys, str) else keys, pa.string())
            added = conform(table, rows, pa.schema([*types.items()])).append_column(PARTITION, known)
            said = CommitProperties(app_transactions=[Transaction(*once)] if once else None)
            write_deltalake(opened, added, mode="append", schema_mode="merge", commit_properties=said)

    def appended(self, table: str, writer: str) -> int:
        """Returns how far a writer has come with what it adds `once`; 0 if it has added nothing."""
        opened = self._open(table)
        return 0 if opened is None else opened.transaction_version(writer) or 0

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
        chosen = ds.scalar(True)
        if between is not None:
            start, end = (pa.scalar(utc(moment), TIMESTAMP) for moment in between)
            chosen = (ds.field(time) >= start) & (ds.field(time) < end)
        found = self._dataset(table, self._opened(table, version), partitions, chosen)
        names = [name for name in found.schema.names if name != PARTITION] if columns is None else list(columns)
        try:
            frame: pd.DataFrame = found.to_table(columns=names, filter=chosen).to_pandas()
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise DataError(table, "must have the columns asked for, typed so", str(error)) from None
        return frame

    def scan(self, table: str, *, partitions: Sequence[str] | None = None, version: int | None = None) -> ds.Dataset:
        """Returns rows that are not read yet, in order: see `chunks`.

        The dataset has the files of these partitions only, and the column `partition`.

        Raises:
            DataError: There is no such table or version.
        """
        return self._dataset(table, self._opened(table, version), partitions)

    def history(self, table: str) -> list[Write]:
        """Returns every write of a partition, oldest first; none if the table does not exist."""
        return [*self._writes(table)][::-1]

    def newest(self, table: str, partition_key: str) -> Write | None:
        """Returns the last write of a partition; None if there is none on record."""
        return next((write for write in self._writes(table) if write.partition == partition_key), None)

    def _writes(self, table: str) -> Iterator[Write]:
        """Yields every write of a partition, newest first."""
        opened = self._open(table)
        for entry in [] if opened is None else opened.history():
            if _FACTS in entry:
                yield Write(**json.loads(entry[_FACTS]), version=entry["version"], at=_moment(entry["timestamp"]))

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

    def _opened(self, table: str, version: int | None) -> DeltaTable:
        opened = self._open(table, version)
        if opened is None:
            raise DataError(table, f"must exist at {self.uri(table)}", hint="Run the stage that writes it first")
        return opened

    def _open(self, table: str, version: int | None = None) -> DeltaTable | None:
        if version is not None and (table, version) in self._versions:
            return self._versions[table, version]
        try:
            opened = DeltaTable(self.uri(table), version=version)
        except TableNotFoundError:
            return None
        except DeltaError as error:
            where = table if version is None else f"{table}, version {version}"
            raise DataError(where, f"must be a readable Delta table at {self.uri(table)}", str(error)) from None
        if version is not None:
            self._versions[table, version] = opened
        return opened

    def _content(self, table: str, key: str, rows: Rows, types: Types | None) -> Content:
        return Content(f"{table}[{key}]", rows, f"{PARTITION}={key}", self.filesystem(table), types)

    def _publish(
        self, table: str, partition: Partition, content: Content, like: str | None, evolve: bool, facts: Facts
    ) -> TableRef:
        opened = self._open(table)
        where = f"{table}[{partition.key}]"
        if opened is None:
            if not content.rows:
                raise DataError(where, "must hold rows, because the first partition gives the table its columns")
            content.retype(completed(where, content.types, self._like(like)))
            opened = self._create(table, content.types)
        elif evolve:
            types = evolved(where, _types(opened), content.types, self._like(like))
            self._widen(table, opened, types)
            content.retype(types)
        else:
            content.retype(_types(opened))
        names = {"table": table, "partition": partition.key, "rows": content.rows, "digest": content.digest}
        if digest(self._dataset(table, opened, [partition.key]), content.rows) == content.digest:
            return TableRef(**names, version=opened.version(), changed=False)
        added = content.finish(partition.key)
        with self._offered(content):
            opened.create_write_transaction(
                [] if added is None else [added],
                mode="overwrite",
                schema=_schema(content.types),
                partition_by=[PARTITION],
                partition_filters=[(PARTITION, "=", partition.key)],
                commit_properties=CommitProperties(
                    custom_metadata={_FACTS: json.dumps({**names, "facts": facts})},
                    max_commit_retries=0,  # whoever commits must have seen what the others did
                ),
            )
        return TableRef(**names, version=opened.version() + 1, changed=True)

    def _like(self, table: str | None) -> Types:
        opened = None if table is None else self._open(table)
        return {} if opened is None else _types(opened)

    def _widen(self, table: str, opened: DeltaTable, types: Types) -> None:
        """Leaves all files of a table with the types that its columns are to have; old versions stay as they are.

        A Delta table is one type a column, in every file of a version.
        """
        known = _types(opened)
        if all(types[name] == kind for name, kind in known.items()):
            return
        wide = {name: types[name] for name in known}
        contents: dict[str, Content] = {}
        try:
            for key in self.partitions(table, opened.version()):
                rows = chunks(self._dataset(table, opened, [key]))
                contents[key] = self._content(table, key, rows, wide)
            actions = [content.finish(key) for key, content in contents.items()]
            with self._offered(*contents.values()):
                opened.create_write_transaction(
                    [action for action in actions if action is not None],
                    mode="overwrite",
                    schema=_schema(wide),
                    partition_by=[PARTITION],
                    commit_properties=CommitProperties(max_commit_retries=0),
                )
        finally:
            for content in contents.values():
                content.remove()
        opened.update_incremental()

    @contextmanager
    def _offered(self, *contents: Content) -> Iterator[None]:
        """Leaves files to a table unless it has certainly refused them: one that its log names must not be deleted.

        What is raised may come after the commit, as from a checkpoint that cannot be written. A conflict does not, but
        an object store may tell one where its answer to the commit itself was lost.
        """
        for content in contents:
            content.keep()
        try:
            yield
        except CommitFailedError:
            for content in contents:
                content.keep("://" in self._uri)
            raise

    def filesystem(self, table: str) -> fs.FileSystem:
        """Returns the table's folder as a file system."""
        if "://" in self._uri:
            return fs.PyFileSystem(DeltaStorageHandler(self.uri(table)))
        return fs.SubTreeFileSystem(str(Path(self.uri(table)).absolute()), fs.LocalFileSystem())

    def _dataset(
        self,
        table: str,
        opened: DeltaTable,
        partitions: Sequence[str] | None = None,
        chosen: ds.Expression | None = None,
    ) -> ds.FileSystemDataset:
        """Returns the files that may hold chosen rows of these partitions, in order; a Delta log has none."""
        # Arrow would look at what the log knows of every file, which takes longer than to read one of them.
        among = None if partitions is None else [(PARTITION, "in", list(partitions))]
        whole = opened.to_pyarrow_dataset(filesystem=self.filesystem(table), file_pruning_predicate=among)
        fragments = sorted(
            whole.get_fragments(filter=chosen),
            key=lambda fragment: (ds.get_partition_keys(fragment.partition_expression)[PARTITION], fragment.path),
        )
        return ds.FileSystemDataset(fragments, whole.schema, ds.ParquetFileFormat(), whole.filesystem)

    def _create(self, table: str, types: Types) -> DeltaTable:
        return DeltaTable.create(
            self.uri(table), _schema(types), mode="error", partition_by=[PARTITION], configuration=_CONFIGURATION
        )

    def _alone(self, table: str) -> AbstractContextManager[None]:
        """Lets one writer of this machine after the other at a table.

        They would find each other's commits in their way again and again, even of other partitions; and of two that
        create a table Delta lets both through, so that one's columns are another's.
        """
        return nullcontext() if "://" in self._uri else locked(Path(self.uri(table)))


def _schema(types: Types) -> Schema:
    return Schema.from_arrow(pa.schema([*types.items(), (PARTITION, pa.string())]))


def _types(table: DeltaTable) -> Types:
    schema = pa.schema(table.schema())
    return {field.name: field.type for field in schema if field.name != PARTITION}


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
