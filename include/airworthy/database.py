"""A SQL database by its address: how it is connected to, and what is said when it does not answer."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Generic, Protocol, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError, InterfaceError, OperationalError, ProgrammingError

from airworthy.errors import ConflictError, ServiceError

_GUARD = (
    """CREATE OR REPLACE FUNCTION airworthy_refuse_change_of_{table}() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN RAISE EXCEPTION ''the {name} is append-only''; END'""",
    """CREATE OR REPLACE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}
    FOR EACH STATEMENT EXECUTE FUNCTION airworthy_refuse_change_of_{table}()""",
)
_ATTEMPTS = 50
_CREATE_LOCK = 20130102  # any constant: two processes that create a table at once must queue


class Database:
    """What is kept behind one SQLAlchemy URL; `name` says what that is in errors."""

    def __init__(self, name: str, url: str) -> None:
        self._name = name
        self._url = url

    @contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        """Yields a connection, and commits at the end.

        Raises:
            ServiceError: The database does not answer.
        """
        try:
            with self._engine.begin() as connection:
                yield connection
        except (OperationalError, InterfaceError, ProgrammingError) as error:
            where = sa.make_url(self._url).render_as_string(hide_password=True)
            hint = "Check the database (`make status`), start it with `make up`, and retry"
            raise ServiceError(f"{self._name} at {where}", "must answer", str(error.orig).strip(), hint) from error

    def make(self, table: sa.Table, *, append_only: bool) -> None:
        """Leaves the table in place; on PostgreSQL one that is append-only refuses updates and deletes.

        Raises:
            ServiceError: The database does not answer.
        """
        with self.transaction() as connection:
            if connection.dialect.name != "postgresql":
                table.create(connection, checkfirst=True)
            elif not sa.inspect(connection).has_table(table.name):
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_CREATE_LOCK)))
                table.create(connection, checkfirst=True)
                for statement in _GUARD if append_only else ():
                    connection.execute(sa.text(statement.format(table=table.name, name=self._name)))

    @cached_property
    def _engine(self) -> sa.Engine:
        timeout = {"timeout": 30} if self._url.startswith("sqlite") else {"connect_timeout": 5}
        engine = sa.create_engine(self._url, pool_pre_ping=True, connect_args=timeout)
        weakref.finalize(self, engine.dispose)  # its connections would stay open until the garbage is collected
        return engine


class OwnTable:
    """One table behind a SQLAlchemy URL, which its first use makes, as `Database.make` does."""

    def __init__(self, name: str, url: str, table: sa.Table, *, append_only: bool) -> None:
        self._name = name
        self._database = Database(name, url)
        self._table = table
        self._append_only = append_only

    @contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        """Yields a connection, and commits at the end.

        Raises:
            ServiceError: The database does not answer.
        """
        assert self._made
        with self._database.transaction() as connection:
            yield connection

    @cached_property
    def _made(self) -> bool:
        self._database.make(self._table, append_only=self._append_only)
        return True


class Numbered(Protocol):
    """A row that knows its number among those of its pipeline, as pydantic's models have it."""

    @property
    def sequence(self) -> int: ...

    def model_dump(self) -> dict[str, Any]: ...


Row = TypeVar("Row", bound=Numbered)


class NumberedTable(OwnTable, Generic[Row]):
    """An append-only table whose rows are numbered from 1 for each pipeline, which is its primary key.

    Args:
        read: Makes a row of what a query gives.
    """

    def __init__(self, name: str, url: str, table: sa.Table, read: Callable[[Any], Row]) -> None:
        super().__init__(name, url, table, append_only=True)
        self._read = read

    def rows(self, pipeline: str) -> list[Row]:
        """Returns every row of a pipeline, oldest first.

        Raises:
            ServiceError: The database does not answer.
        """
        with self.transaction() as connection:
            return self._rows(connection, pipeline)

    def append(self, pipeline: str, next_one: Callable[[Sequence[Row]], Row]) -> Row:
        """Returns what follows from the rows there are, once it is one of them; two at once append one by one.

        Args:
            pipeline: Whose rows.
            next_one: Given these, returns the one to come, or one of them if there is none.

        Raises:
            ConflictError: Too many others append at the same moment.
            ServiceError: The database does not answer.
        """
        for _ in range(_ATTEMPTS):
            try:
                with self.transaction() as connection:
                    before = self._rows(connection, pipeline)
                    made = next_one(before)
                    if made.sequence > len(before):
                        connection.execute(sa.insert(self._table).values(made.model_dump()))
                    return made
            except IntegrityError:  # somebody else got this sequence
                continue
        raise ConflictError(f"{self._name}: {pipeline}", "was written by others all the time", hint="Retry")

    def _rows(self, connection: sa.Connection, pipeline: str) -> list[Row]:
        columns = self._table.c
        query = sa.select(self._table).where(columns.pipeline == pipeline).order_by(columns.sequence)
        return [self._read(dict(row)) for row in connection.execute(query).mappings()]
