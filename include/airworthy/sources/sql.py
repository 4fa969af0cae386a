"""`sql: {connection: warehouse, query: "select * from orders where t >= :start and t < :end"}`: rows of a query."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from airworthy.connections import Connections
from airworthy.errors import DataError, ServiceError
from airworthy.explain import problem
from airworthy.partitions import Partition
from airworthy.sources import Extracted, Origin, Source

if TYPE_CHECKING:
    import pyarrow as pa

_PARAMETERS = ("start", "end", "partition")
_BOUND = re.compile(r"(?<![:\w\\]):(\w+)(?!:)")  # as SQLAlchemy finds them


class Sql(Source):
    """Reads the rows of a query; the partition's `:start`, `:end` (UTC) and key `:partition` are bound, not pasted.

    The rows come in the order of the query, so it should say `order by`: without, a database may give the same
    rows in another order the next time, which is another content.

    Attributes:
        query: One SELECT with at least one of the parameters.
        connection: The id of an Airflow connection to a database; or else
        url: A SQLAlchemy URL without a password, e.g. sqlite:////data/orders.db.
        ready: A query whose first value says whether the partition is complete. Default: `query` has a row.
        chunk_rows: How many rows are in memory at once.
    """

    query: str = Field(min_length=1)
    connection: str | None = None
    url: str | None = None
    ready: str | None = None
    chunk_rows: int = Field(default=50_000, ge=1)

    @field_validator("query", "ready")
    @classmethod
    def _bound(cls, value: str | None) -> str | None:
        found = set(_BOUND.findall(value or ""))
        if value is not None and not found & set(_PARAMETERS):
            raise problem(
                "must use :start and :end, or :partition, or each partition would get all rows",
                value,
                hint="e.g. where ordered_at >= :start and ordered_at < :end",
            )
        if unknown := sorted(found - set(_PARAMETERS)):
            raise problem("has the parameters :start, :end and :partition only", unknown, hint="Write \\: for a colon")
        return value

    @field_validator("url")
    @classmethod
    def _without_password(cls, value: str | None) -> str | None:
        if value is not None and "://" not in value:
            raise ValueError("must be a SQLAlchemy URL, e.g. postgresql+psycopg2://host/database")
        if value is not None and (urlsplit(value).password or "password=" in value.lower()):
            shown = re.sub(r"(//[^:/]*:)[^@]*@", r"\1***@", value).partition("?")[0]
            hint = "Define an Airflow connection and name it: `connection: <id>`"
            raise problem("must not hold a password", shown, hint=hint)
        return value

    @model_validator(mode="after")
    def _one_database(self) -> Self:
        if (self.connection is None) == (self.url is None):
            raise problem("must say `connection` or `url`, one of the two", {"connection": self.connection})
        return self

    def extract(self, partition: Partition, connections: Connections) -> Extracted:
        url, where = self._url(connections), self._where(partition)
        asked = f"{self.url or self.connection}\0{self.query}\0{partition}"
        origin = Origin(f"query on {self.url or self.connection}", hashlib.sha256(asked.encode()).hexdigest())
        return Extracted(self._chunks(url, where, partition), (origin,))

    def available(self, partition: Partition, connections: Connections) -> bool:
        with self._asked(self._url(connections), self.ready or self.query, self._where(partition), partition) as rows:
            first = rows.first()
        return first is not None and (self.ready is None or bool(first[0]))

    def awaited(self, partition: Partition) -> str:
        return f"a row of `{self.query}`" if self.ready is None else f"`{self.ready}` to be true"

    def connection_ids(self) -> tuple[str, ...]:
        return () if self.connection is None else (self.connection,)

    def _where(self, partition: Partition) -> str:
        return f"sql[{partition.key}]"

    def _url(self, connections: Connections) -> str:
        return self.url if self.connection is None else connections(self.connection).uri  # type: ignore[return-value]

    def _chunks(self, url: str, where: str, partition: Partition) -> Iterator[pa.Table]:
        with self._asked(url, self.query, where, partition) as rows:
            names, first = list(rows.keys()), True
            for found in rows.partitions(self.chunk_rows):
                yield _table(where, names, found)
                first = False
            if first:
                yield _table(where, names, [])

    @contextmanager
    def _asked(self, url: str, query: str, where: str, partition: Partition) -> Iterator[Any]:
        """Gives the rows of a query, which the server hands out in pieces."""
        import sqlalchemy as sa

        hint = "Try the query by hand"
        try:
            engine = sa.create_engine(url, poolclass=sa.NullPool)
            with engine.connect() as open_:
                if engine.dialect.name == "postgresql":
                    open_.execute(sa.text("SET TIME ZONE 'UTC'"))  # else times without a zone are taken as local
                given = {name: _moment(engine.dialect.name, value) for name, value in _parameters(partition).items()}
                bound = {name: given[name] for name in _BOUND.findall(query)}
                pieces = {"stream_results": True, "yield_per": self.chunk_rows}
                yield open_.execute(sa.text(query), bound, execution_options=pieces)
        except (sa.exc.OperationalError, sa.exc.InterfaceError) as error:
            # how SQLite says what is wrong with a query
            if "syntax" in str(error.orig) or "no such" in str(error.orig):
                raise DataError(where, "the database must understand the query", str(error.orig), hint) from None
            raise ServiceError(where, "the database must answer", _told(error), "Check the connection") from None
        except sa.exc.DBAPIError as error:
            raise DataError(where, "the database must understand the query", _told(error), hint) from None
        except (sa.exc.SQLAlchemyError, ImportError) as error:
            raise DataError(where, "needs a database that SQLAlchemy can reach", str(error)) from None


def _parameters(partition: Partition) -> dict[str, Any]:
    return {"start": partition.start, "end": partition.end, "partition": partition.key}


def _moment(dialect: str, value: Any) -> Any:
    """Returns a bound value as a database compares it: most have no times with a time zone, SQLite none at all."""
    if not isinstance(value, datetime) or dialect == "postgresql":
        return value
    plain = value.astimezone(UTC).replace(tzinfo=None)
    return plain.strftime("%Y-%m-%d %H:%M:%S") if dialect == "sqlite" else plain


def _table(where: str, names: list[str], rows: Any) -> pa.Table:
    import pyarrow as pa

    from airworthy.columns import normal

    arrays = []
    for position, name in enumerate(names):
        try:
            arrays.append(pa.array([row[position] for row in rows]))
        except (pa.ArrowException, OverflowError) as error:
            hint = f"Cast it in the query, e.g. cast({name} as text)"
            told = f"{type(error).__name__} among {sorted({type(row[position]).__name__ for row in rows})}"
            raise DataError(f"{where}: {name}", "must hold values of one type", told, hint) from None
    return normal(where, pa.table(arrays, names=names))


def _told(error: Any) -> str:
    return str(error.orig).strip().split("\n")[0]
