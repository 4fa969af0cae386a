"""The ledger on a real PostgreSQL, where promotions of several processes meet."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import sqlalchemy as sa

from airworthy.errors import ConflictError
from airworthy.ledger import Entry, Ledger
from test_ledger import promote

AT_ONCE = 8


@pytest.fixture
def url(postgres_url: str) -> str:
    return postgres_url


@pytest.fixture
def ledger(url: str) -> Ledger:
    made = Ledger(url)
    made.create()
    return made


def test_of_many_promotions_at_once_exactly_one_wins(url: str, ledger: Ledger) -> None:
    expected: str | None = None
    for turn in range(3):
        start = Barrier(AT_ONCE)

        def challenge(number: int, turn: int = turn, start: Barrier = start, expected: str | None = expected) -> Entry:
            mine = Ledger(url)
            mine.champion("race")  # connected before the start
            start.wait(timeout=30)
            return promote(mine, f"{turn}.{number}", expected, pipeline="race")

        with ThreadPoolExecutor(AT_ONCE) as pool:
            futures = [pool.submit(challenge, number) for number in range(AT_ONCE)]
            errors = [future.exception() for future in futures]
        assert [type(error) for error in errors if error] == [ConflictError] * (AT_ONCE - 1)
        winner = futures[errors.index(None)].result()
        assert ledger.champion("race") == winner
        expected = winner.version
    assert [entry.sequence for entry in ledger.entries("race")] == [1, 2, 3]
    ledger.verify("race")


def test_the_table_refuses_changes(url: str, ledger: Ledger) -> None:
    promote(ledger, "1", None, pipeline="guarded")
    for statement in ("UPDATE ledger SET actor = 'nobody'", "DELETE FROM ledger", "TRUNCATE ledger"):
        with (
            pytest.raises(sa.exc.DBAPIError, match="the ledger is append-only"),
            sa.create_engine(url).begin() as open_,
        ):
            open_.execute(sa.text(statement))
    assert len(ledger.entries("guarded")) == 1


def test_creating_the_table_from_several_places_at_once_is_harmless(url: str) -> None:
    with sa.create_engine(url).begin() as connection:
        connection.execute(sa.text("DROP TABLE IF EXISTS ledger"))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda _: Ledger(url).create(), range(AT_ONCE)))
    assert Ledger(url).entries("flights") == []
