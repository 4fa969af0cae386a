"""`postgres: {connection: online}`: the latest values in a table of a PostgreSQL database."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from airworthy.connections import Connections
from airworthy.errors import ServiceError
from airworthy.online import BATCH, Latest, Online, Opened, nothing_of

if TYPE_CHECKING:
    import sqlalchemy as sa

_TABLE = "airworthy_online"
_CREATE = f"""
CREATE TABLE IF NOT EXISTS {_TABLE} (
    view TEXT, entity TEXT, "partition" BIGINT NOT NULL, version BIGINT NOT NULL, time BIGINT NOT NULL,
    content TEXT NOT NULL, PRIMARY KEY (view, entity)
)
"""
_COLUMNS = 'entity, "partition", version, time, content'
# In the order of their entities, so that writers who meet lock the rows in the same order.
_WRITE = f"""
INSERT INTO {_TABLE} (view, {_COLUMNS})
SELECT :view, {_COLUMNS}
FROM unnest(CAST(:entity AS text[]), CAST(:partition AS bigint[]), CAST(:version AS bigint[]), CAST(:time AS bigint[]),
    CAST(:content AS text[])) AS given ({_COLUMNS})
ORDER BY entity
ON CONFLICT (view, entity) DO UPDATE SET
    "partition" = excluded."partition", version = excluded.version, time = excluded.time, content = excluded.content
WHERE (excluded."partition", excluded.version) >= ({_TABLE}."partition", {_TABLE}.version)
"""
_RETRACT = f"""
DELETE FROM {_TABLE} WHERE view = :view AND "partition" = :partition AND version < :version RETURNING entity
"""
_READ = f"SELECT entity, time, content FROM {_TABLE} WHERE view = :view AND entity = ANY(CAST(:entities AS text[]))"
_HOLDS = f"SELECT 1 FROM {_TABLE} WHERE view = :view LIMIT 1"


class Postgres(Online):
    """A PostgreSQL database; the table `airworthy_online` is made when it is first written to.

    Attributes:
        connection: The id of the connection.
    """

    connection: str

    def open(self, connections: Connections) -> Opened:
        import sqlalchemy as sa

        uri = connections(self.connection).uri
        return _Database(
            self.connection, sa.create_engine(uri, pool_pre_ping=True, connect_args={"connect_timeout": 5})
        )


class _Database:
    def __init__(self, connection: str, engine: sa.Engine) -> None:
        self._where = f"online store: connection {connection}"
        self._engine = engine

    def write(self, view: str, rows: Iterable[Latest]) -> None:
        import sqlalchemy as sa

        with self._begun() as open_:
            # Two creators at once make one of them fail, IF NOT EXISTS or not.
            open_.execute(sa.text(f"SELECT pg_advisory_xact_lock(hashtext('{_TABLE}'))"))
            open_.execute(sa.text(_CREATE))
        remaining = iter(rows)
        while batch := list(itertools.islice(remaining, BATCH)):
            given = {name: list(values) for name, values in zip(Latest._fields, zip(*batch, strict=True), strict=True)}
            with self._begun() as open_:
                open_.execute(sa.text(_WRITE), {"view": view, **given})

    def retract(self, view: str, partition: int, version: int) -> list[str]:
        import sqlalchemy as sa

        with self._begun() as open_:
            given = {"view": view, "partition": partition, "version": version}
            return list(open_.execute(sa.text(_RETRACT), given).scalars())

    def read(self, view: str, entities: Sequence[str]) -> dict[str, tuple[int, str]]:
        import sqlalchemy as sa

        with self._begun() as open_:
            found = open_.execute(sa.text(_READ), {"view": view, "entities": list(entities)}).all()
            if not found and not open_.execute(sa.text(_HOLDS), {"view": view}).first():
                raise nothing_of(view, self._where)
        return {entity: (time, content) for entity, time, content in found}

    @contextmanager
    def _begun(self) -> Iterator[sa.Connection]:
        import sqlalchemy as sa

        try:
            with self._engine.begin() as open_:
                yield open_
        except sa.exc.SQLAlchemyError as error:
            cause = getattr(error, "orig", None) or error  # without the statement and the values in it
            rule = "must be a PostgreSQL database that a view's rows were published to"
            raise ServiceError(self._where, rule, str(cause).strip()) from None
