"""`sqlite`: the latest values in a file next to the other state, for serving on the same machine."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from airworthy.connections import Connections
from airworthy.errors import ServiceError
from airworthy.online import Latest, Online, Opened, nothing_of
from airworthy.profile import home

_CREATE = """
CREATE TABLE IF NOT EXISTS latest (
    view TEXT, entity TEXT, "partition" INTEGER, version INTEGER, time INTEGER, content TEXT,
    PRIMARY KEY (view, entity)
) WITHOUT ROWID
"""
_WRITE = """
INSERT INTO latest VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (view, entity) DO UPDATE SET
    "partition" = excluded."partition", version = excluded.version, time = excluded.time, content = excluded.content
WHERE (excluded."partition", excluded.version) >= (latest."partition", latest.version)
"""
_RETRACT = 'DELETE FROM latest WHERE view = ? AND "partition" = ? AND version < ? RETURNING entity'
_READ = """
SELECT entity, time, content FROM latest WHERE view = ? AND entity IN (SELECT value FROM json_each(?))
"""
_HOLDS = "SELECT 1 FROM latest WHERE view = ? LIMIT 1"


class Sqlite(Online):
    """The embedded store: one file, `online.db`, in the folder of all state."""

    def open(self, connections: Connections) -> Opened:
        return _File(home() / "online.db")


class _File:
    def __init__(self, file: Path) -> None:
        self._file = file
        self._where = f"online store {file.name}"

    def write(self, view: str, rows: Iterable[Latest]) -> None:
        if not self._file.exists():
            self._create()
        with self._connected(self._file, "rw") as connection, connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(_WRITE, ((view, *row) for row in rows))

    def retract(self, view: str, partition: int, version: int) -> list[str]:
        with self._connected(self._file, "rw") as connection, connection:
            return [entity for (entity,) in connection.execute(_RETRACT, (view, partition, version)).fetchall()]

    def read(self, view: str, entities: Sequence[str]) -> dict[str, tuple[int, str]]:
        with self._connected(self._file, "ro") as connection:
            found = connection.execute(_READ, (view, json.dumps(entities))).fetchall()
            if not found and not connection.execute(_HOLDS, (view,)).fetchone():
                raise nothing_of(view, self._where)
        return {entity: (time, content) for entity, time, content in found}

    def _create(self) -> None:
        """Leaves a file that is complete from the moment it is there; of several made at once the first one stays."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".online-", dir=self._file.parent) as folder:
            made = Path(folder, "new.db")
            with self._connected(made, "rwc") as connection:
                connection.execute("PRAGMA journal_mode = WAL")  # readers do not wait for a writer
                connection.execute(_CREATE)
            with contextlib.suppress(FileExistsError):
                os.link(made, self._file)

    @contextmanager
    def _connected(self, file: Path, mode: str) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(f"{file.as_uri()}?mode={mode}", uri=True, timeout=60)) as connection:
                yield connection
        except sqlite3.Error as error:
            rule = "must be a database that a view's rows were published to"
            raise ServiceError(self._where, rule, str(error), "Run the pipeline's ingest") from None
