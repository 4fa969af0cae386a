"""The record of every promotion: append-only, hash-chained, one champion per pipeline at any time.

A promotion states the champion it expects to replace. Two that expect the same champion insert the
same `(pipeline, sequence)`; the database lets one of them in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from airworthy.canary import Step
from airworthy.database import Database
from airworthy.errors import ConflictError, ModelError
from airworthy.ledger_entry import LATER, promotion_of, require_judged_since, standing_of
from airworthy.ledger_entry import Entry as Entry

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
    sa.Column("approved_by", sa.Text, nullable=True),
    sa.Column("reason", sa.Text, nullable=True),
    sa.Column("canary", sa.Text, nullable=True),
)
_GUARD = (
    """CREATE OR REPLACE FUNCTION airworthy_refuse_change() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN RAISE EXCEPTION ''the ledger is append-only''; END'""",
    """CREATE OR REPLACE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger
    FOR EACH STATEMENT EXECUTE FUNCTION airworthy_refuse_change()""",
)
_CREATE_LOCK = 20130101  # any constant: two processes that create the table at once must queue


class Ledger:
    """Reads and appends to the ledger behind a SQLAlchemy URL."""

    def __init__(self, url: str) -> None:
        self._database = Database("ledger", url)

    def create(self) -> None:
        """Leaves the table in place; on PostgreSQL it refuses updates and deletes.

        Raises:
            ServiceError: The database does not answer.
        """
        with self._transaction() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_CREATE_LOCK)))
            _METADATA.create_all(connection)
            there = {column["name"] for column in sa.inspect(connection).get_columns(_TABLE.name)}
            for name in LATER:
                if name not in there:
                    connection.execute(sa.text(f"ALTER TABLE {_TABLE.name} ADD COLUMN {name} TEXT"))
            if connection.dialect.name == "postgresql":
                for statement in _GUARD:
                    connection.execute(sa.text(statement))

    def pipelines(self) -> list[str]:
        """Returns the names of the pipelines that have an entry, sorted.

        Raises:
            ServiceError: The database does not answer.
        """
        with self._transaction() as connection:
            return sorted(connection.execute(sa.select(_TABLE.c.pipeline).distinct()).scalars())

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
            last = _last(connection, pipeline, ("promote", "rollback"))
        return last if last is not None and last.version else None

    def canary(self, pipeline: str) -> Entry | None:
        """Returns the last step of the canary that runs, or None if there is none: any other entry ends it.

        Raises:
            ServiceError: The database does not answer.
        """
        with self._transaction() as connection:
            last = _last(connection, pipeline)
        return last if last is not None and last.challenges else None

    def standing(self, pipeline: str) -> list[Entry]:
        """Returns the promotions that no rollback took back, in the order in which they became champion.

        The last one is of the present champion. A rollback takes back everything after the version it goes to; one
        to a version that was taken back itself lets that version's promotion stand again.

        Raises:
            ServiceError: The database does not answer.
        """
        return standing_of(self.entries(pipeline))

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
        approved_by: str | None = None,
        judged_at: int = 0,
        canary: Step | None = None,
    ) -> Entry:
        """Returns the entry that makes `version` champion; if it is champion already, that entry.

        With `canary` it begins to answer beside the champion instead.

        Args:
            expected: The champion's version it was judged against; the other fields are those of the entry.
            judged_at: The ledger's last sequence then; what a rollback took back since must be judged again.
            canary: Its first step.

        Raises:
            ConflictError: The champion is not `expected`, or the model was taken back, or somebody else appended,
                or another model's canary runs.
            ServiceError: The database does not answer.
        """
        with self._transaction(pipeline) as connection:
            entries = _entries(connection, pipeline)
            last = entries[-1] if canary and entries and entries[-1].challenges else _crowning(entries)
            if last and (last.version, last.model_id) == (version, model_id):
                return last
            if canary and last and last.challenges:
                rule = f"must not begin a canary while that of version {last.version} runs"
                raise ConflictError(f"ledger: {pipeline}[{last.sequence}]", rule)
            _expect(pipeline, expected, entries)
            require_judged_since(entries, version, model_id, judged_at, approved_by)
            model = {"version": version, "model_id": model_id, "run_id": run_id, "digest": digest, "as_of": as_of}
            word = {"expected": expected, "actor": actor, "evidence": evidence, "approved_by": approved_by or None}
            begun = {"action": "promote", "canary": None}
            if canary:
                begun = {"action": "canary", "canary": canary.model_dump_json()}
            return _append(connection, entries, pipeline=pipeline, **begun, **model, **word)

    def advance(
        self, running: Entry, action: Literal["widen", "take_back", "promote"], actor: str, reason: str, canary: Step
    ) -> Entry:
        """Returns the entry with the next step of a canary, or its end; if that was taken already, that entry.

        Args:
            running: The last step of the canary; promoting it makes its version champion.
            reason: What the step rests on, in words.
            canary: And in numbers.

        Raises:
            ConflictError: The canary has gone on or ended meanwhile.
            ServiceError: The database does not answer.
        """
        with self._transaction(running.pipeline) as connection:
            entries = _entries(connection, running.pipeline)
            if entries[-1].sequence != running.sequence:
                rule = f"must be the last step of the canary of version {running.version}"
                where = f"ledger: {running.pipeline}[{running.sequence}]"
                raise ConflictError(where, rule, f"entry {entries[-1].sequence}", "Look again")
            fields = running.model_dump(exclude={"sequence", "at", "previous_hash", "hash"})
            fields |= {"action": action, "actor": actor, "reason": reason, "canary": canary.model_dump_json()}
            return _append(connection, entries, **fields)

    def rollback(
        self,
        pipeline: str,
        expected: str | None,
        actor: str,
        *,
        to: str | None = None,
        reason: str | None = None,
        withdraw: bool = False,
    ) -> Entry:
        """Returns the entry that makes the champion before `expected`, or version `to`, champion again.

        Rolling back the first promotion, or any with `withdraw`, leaves no champion: the entry's version is "". If
        `to` is champion already, nothing is appended, unless a canary runs, which ends by it.

        Raises:
            ConflictError: The champion is not `expected`, or somebody else appended meanwhile.
            ModelError: `to` never was champion.
            ServiceError: The database does not answer.
        """
        with self._transaction(pipeline) as connection:
            entries = _entries(connection, pipeline)
            if (last := _crowning(entries)) and to and last.version == to and not entries[-1].challenges:
                return last
            _expect(pipeline, expected, entries)
            standing = standing_of(entries)
            before = None if withdraw else next(iter(standing[-2:-1]), None)
            back = promotion_of(to, standing, entries) if to else before
            if to and back is None:
                known = ", ".join(dict.fromkeys(entry.version for entry in entries if entry.promotes)) or "none yet"
                raise ModelError(f"{pipeline}: rollback", f"must go to a version that was champion ({known})", to)
            fields: dict[str, Any] = dict.fromkeys(("version", "model_id", "run_id", "digest", "evidence"), "")
            fields["as_of"] = None
            if back:
                fields = {name: getattr(back, name) for name in fields}
            fields |= {"pipeline": pipeline, "action": "rollback", "expected": expected, "actor": actor}
            return _append(connection, entries, **fields, reason=reason or None)

    def verify(self, pipeline: str) -> list[Entry]:
        """Returns the entries if the chain is whole: none was changed, dropped or put in between.

        An end that was cut off leaves a whole chain; `stages.reconcile` finds it by what MLflow keeps of the ledger.

        Raises:
            ModelError: The first entry that breaks the chain.
            ServiceError: The database does not answer.
        """
        previous, entries = "", self.entries(pipeline)
        hint = "The ledger was changed outside Airworthy; restore it from a backup"
        for number, entry in enumerate(entries, start=1):
            where = f"ledger: {pipeline}[{number}]"
            if entry.sequence != number:
                raise ModelError(where, "must be there", f"sequence {entry.sequence}", hint)
            if entry.previous_hash != previous or entry.sealed().hash != entry.hash:
                raise ModelError(where, "must hash to what was recorded", entry.sealed().hash, hint)
            previous = entry.hash
        return entries

    @contextmanager
    def _transaction(self, appending_to: str = "") -> Iterator[sa.Connection]:
        """Commits at the end; turns what the database says into our errors."""
        try:
            with self._database.transaction() as connection:
                yield connection
        except IntegrityError:
            hint = "Judge the challenger against the present champion again"
            raise ConflictError(f"ledger: {appending_to}", "was changed by somebody else", hint=hint) from None


def _entries(connection: sa.Connection, pipeline: str) -> list[Entry]:
    query = sa.select(_TABLE).where(_TABLE.c.pipeline == pipeline).order_by(_TABLE.c.sequence)
    return [Entry.model_validate(dict(row)) for row in connection.execute(query).mappings()]


def _last(connection: sa.Connection, pipeline: str, actions: Sequence[str] = ()) -> Entry | None:
    query = sa.select(_TABLE).where(_TABLE.c.pipeline == pipeline)
    query = query.where(_TABLE.c.action.in_(actions)) if actions else query
    row = connection.execute(query.order_by(_TABLE.c.sequence.desc()).limit(1)).mappings().first()
    return None if row is None else Entry.model_validate(dict(row))


def _crowning(entries: Sequence[Entry]) -> Entry | None:
    return next((entry for entry in reversed(entries) if entry.crowns), None)


def _expect(pipeline: str, expected: str | None, entries: Sequence[Entry]) -> None:
    last = _crowning(entries)
    champion = (last.version or None) if last else None
    if champion != expected:
        rule = f"expected the champion to be {expected or 'none'}"
        hint = "Judge the challenger against the present champion again"
        raise ConflictError(f"ledger: {pipeline}", rule, champion, hint)


def _append(connection: sa.Connection, entries: Sequence[Entry], **fields: Any) -> Entry:
    last = entries[-1] if entries else None
    entry = Entry(
        sequence=last.sequence + 1 if last else 1,
        at=datetime.now(UTC),
        previous_hash=last.hash if last else "",
        **fields,
    ).sealed()
    connection.execute(sa.insert(_TABLE).values(entry.model_dump()))
    return entry
