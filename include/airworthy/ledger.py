"""The record of every promotion: append-only, hash-chained, one champion per pipeline at any time.

A promotion states the champion it expects to replace. Two that expect the same champion insert the
same `(pipeline, sequence)`; the database lets one of them in.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Literal

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict
from sqlalchemy.exc import IntegrityError, InterfaceError, OperationalError, ProgrammingError

from airworthy.config import Moment
from airworthy.errors import ConflictError, ModelError, ServiceError

_METADATA = sa.MetaData()
_TABLE = sa.Table(
    "ledger",
    _METADATA,
    sa.Column("pipeline", sa.String(50), primary_key=True),
    sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("action", sa.String(16), nullable=False),
    sa.Column("version", sa.String(32), nullable=False),
    sa.Column("model_id", sa.String(64), nullable=False),
    sa.Column("run_id", sa.String(64), nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("as_of", sa.DateTime(timezone=True), nullable=True),
    sa.Column("expected", sa.String(32), nullable=True),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("evidence", sa.String(64), nullable=False),
    sa.Column("previous_hash", sa.String(64), nullable=False),
    sa.Column("hash", sa.String(64), nullable=False),
)
_GUARD = (
    """CREATE OR REPLACE FUNCTION airworthy_refuse_change() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN RAISE EXCEPTION ''the ledger is append-only''; END'""",
    """CREATE OR REPLACE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger
    FOR EACH STATEMENT EXECUTE FUNCTION airworthy_refuse_change()""",
)
_CREATE_LOCK = 20130101  # any constant: two processes that create the table at once must queue


class Entry(BaseModel):
    """One line of the ledger: the champion from `at` on, what it replaced, on whose word and what evidence.

    Attributes:
        sequence: 1, 2, 3, ... within the pipeline.
        version: The version that is champion from here on; "" where a rollback leaves none.
        digest: SHA-256 of the model's files (`model_files.digest_of`).
        expected: The champion version this entry replaced; None for the first.
        evidence: SHA-256 of the verdicts the promotion rests on.
        hash: SHA-256 over every other field, `previous_hash` included.
    """

    model_config = ConfigDict(frozen=True)

    pipeline: str
    sequence: int
    at: Moment
    action: Literal["promote", "rollback"]
    version: str
    model_id: str
    run_id: str
    digest: str
    as_of: Moment | None
    expected: str | None
    actor: str
    evidence: str
    previous_hash: str
    hash: str = ""

    @property
    def promotes(self) -> bool:
        return self.action == "promote"

    def sealed(self) -> Entry:
        """Returns the entry with its hash computed from its other fields."""
        content = json.dumps(self.model_dump(mode="json", exclude={"hash"}), sort_keys=True, separators=(",", ":"))
        return self.model_copy(update={"hash": hashlib.sha256(content.encode()).hexdigest()})


class Ledger:
    """Reads and appends to the ledger behind a SQLAlchemy URL."""

    def __init__(self, url: str) -> None:
        self._url = url

    def create(self) -> None:
        """Leaves the table in place; on PostgreSQL it refuses updates and deletes.

        Raises:
            ServiceError: The database does not answer.
        """
        with self._transaction() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_CREATE_LOCK)))
            _METADATA.create_all(connection)
            if connection.dialect.name == "postgresql":
                for statement in _GUARD:
                    connection.execute(sa.text(statement))

    def entries(self, pipeline: str) -> list[Entry]:
        """Returns every entry of a pipeline, oldest first.

        Raises:
            ServiceError: The database does not answer.
        """
        with self._transaction() as connection:
            return _entries(connection, pipeline)

    def champion(self, pipeline: str) -> Entry | None:
        """Returns the entry that made the present champion, or None if there is none.

        Raises:
            ServiceError: The database does not answer.
        """
        with self._transaction() as connection:
            last = _last(connection, pipeline)
        return last if last is not None and last.version else None

    def standing(self, pipeline: str) -> list[Entry]:
        """Returns the promotions that no rollback took back, oldest first.

        Raises:
            ServiceError: The database does not answer.
        """
        return _standing(self.entries(pipeline))

    def champion_at(self, pipeline: str, moment: datetime, *, besides: str = "") -> Entry | None:
        """Returns the last standing promotion of a model trained as of `moment` or earlier.

        It is what a challenger of that moment is judged against; leaving its own run out makes judging again,
        also after it was promoted, the same comparison.

        Args:
            pipeline: Whose champion.
            moment: What was known then.
            besides: The MLflow run whose promotion does not count.

        Raises:
            ServiceError: The database does not answer.
        """
        for entry in reversed(self.standing(pipeline)):
            if entry.as_of and entry.as_of <= moment and entry.run_id != besides:
                return entry
        return None

    def promote(
        self,
        *,
        pipeline: str,
        version: str,
        model_id: str,
        run_id: str,
        digest: str,
        as_of: datetime,
        expected: str | None,
        actor: str,
        evidence: str,
    ) -> Entry:
        """Returns the entry that makes `version` champion; if it is champion already, that entry.

        Raises:
            ConflictError: The champion is not `expected`, or somebody else appended meanwhile.
            ServiceError: The database does not answer.
        """
        with self._transaction(pipeline) as connection:
            last = _last(connection, pipeline)
            if last is not None and last.version == version:
                return last
            _expect(pipeline, expected, last)
            return _append(
                connection,
                last,
                pipeline=pipeline,
                action="promote",
                version=version,
                model_id=model_id,
                run_id=run_id,
                digest=digest,
                as_of=as_of,
                expected=expected,
                actor=actor,
                evidence=evidence,
            )

    def rollback(self, pipeline: str, expected: str, actor: str) -> Entry:
        """Returns the entry that makes the champion before `expected` champion again.

        Rolling back the first promotion leaves no champion: the entry's version is "".

        Raises:
            ConflictError: The champion is not `expected`, or somebody else appended meanwhile.
            ServiceError: The database does not answer.
        """
        with self._transaction(pipeline) as connection:
            entries = _entries(connection, pipeline)
            last = entries[-1] if entries else None
            _expect(pipeline, expected, last)
            before = _standing(entries)[-2:-1]
            fields: dict[str, Any] = dict.fromkeys(("version", "model_id", "run_id", "digest", "evidence"), "")
            fields["as_of"] = None
            if before:
                fields = {name: getattr(before[0], name) for name in fields}
            fields |= {"pipeline": pipeline, "action": "rollback", "expected": expected, "actor": actor}
            return _append(connection, last, **fields)

    def verify(self, pipeline: str) -> None:
        """Returns if the chain is whole: no entry of the pipeline was changed, dropped or put in between.

        Raises:
            ModelError: The first entry that breaks the chain.
            ServiceError: The database does not answer.
        """
        previous = ""
        for number, entry in enumerate(self.entries(pipeline), start=1):
            where = f"ledger: {pipeline}[{number}]"
            hint = "The ledger was changed outside Airworthy; restore it from a backup"
            if entry.sequence != number:
                raise ModelError(where, "must be there", f"sequence {entry.sequence}", hint)
            if entry.previous_hash != previous or entry.sealed().hash != entry.hash:
                raise ModelError(where, "must hash to what was recorded", entry.sealed().hash, hint)
            previous = entry.hash

    @cached_property
    def _engine(self) -> sa.Engine:
        timeout = {"timeout": 5} if self._url.startswith("sqlite") else {"connect_timeout": 5}
        return sa.create_engine(self._url, pool_pre_ping=True, connect_args=timeout)

    @contextmanager
    def _transaction(self, appending_to: str = "") -> Iterator[sa.Connection]:
        """Commits at the end; turns what the database says into our errors."""
        where = sa.make_url(self._url).render_as_string(hide_password=True)
        try:
            with self._engine.begin() as connection:
                yield connection
        except IntegrityError:
            hint = "Judge the challenger against the present champion again"
            raise ConflictError(f"ledger: {appending_to}", "was changed by somebody else", hint=hint) from None
        except (OperationalError, InterfaceError, ProgrammingError) as error:
            hint = "Check the database (`make status`), start it with `make up`, and retry"
            raise ServiceError(f"ledger at {where}", "must answer", str(error.orig).strip(), hint) from error


def _entries(connection: sa.Connection, pipeline: str) -> list[Entry]:
    query = sa.select(_TABLE).where(_TABLE.c.pipeline == pipeline).order_by(_TABLE.c.sequence)
    return [Entry.model_validate(dict(row)) for row in connection.execute(query).mappings()]


def _last(connection: sa.Connection, pipeline: str) -> Entry | None:
    query = sa.select(_TABLE).where(_TABLE.c.pipeline == pipeline).order_by(_TABLE.c.sequence.desc()).limit(1)
    row = connection.execute(query).mappings().first()
    return None if row is None else Entry.model_validate(dict(row))


def _standing(entries: Sequence[Entry]) -> list[Entry]:
    standing: list[Entry] = []
    for entry in entries:
        if entry.promotes:
            standing.append(entry)
        else:
            standing.pop()  # a rollback takes back the latest
    return standing


def _expect(pipeline: str, expected: str | None, last: Entry | None) -> None:
    champion = (last.version or None) if last else None
    if champion != expected:
        rule = f"expected the champion to be {expected or 'none'}"
        hint = "Judge the challenger against the present champion again"
        raise ConflictError(f"ledger: {pipeline}", rule, champion, hint)


def _append(connection: sa.Connection, last: Entry | None, **fields: Any) -> Entry:
    entry = Entry(
        sequence=last.sequence + 1 if last else 1,
        at=datetime.now(UTC),
        previous_hash=last.hash if last else "",
        **fields,
    ).sealed()
    connection.execute(sa.insert(_TABLE).values(entry.model_dump()))
    return entry
