from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from airworthy.errors import ConflictError, ModelError, ServiceError
from airworthy.ledger import Entry, Ledger

AS_OF = datetime(2013, 5, 1, tzinfo=UTC)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/ledger.db"


@pytest.fixture
def ledger(url: str) -> Ledger:
    made = Ledger(url)
    made.create()
    return made


def promote(
    ledger: Ledger, version: str, expected: str | None, pipeline: str = "flights", as_of: datetime = AS_OF
) -> Entry:
    return ledger.promote(
        pipeline=pipeline,
        version=version,
        model_id=f"m-{version}",
        run_id=f"run-{version}",
        digest=version[0] * 64,
        as_of=as_of,
        expected=expected,
        actor="manual__2013-05-01",
        evidence="e" * 64,
    )


def test_there_is_no_champion_at_first(ledger: Ledger) -> None:
    assert ledger.champion("flights") is None
    assert ledger.entries("flights") == []


def test_the_last_promotion_is_champion_and_every_one_is_on_record(ledger: Ledger) -> None:
    first, second = promote(ledger, "1", None), promote(ledger, "2", "1")
    assert ledger.champion("flights") == second
    assert ledger.entries("flights") == [first, second]
    assert (second.sequence, second.expected, second.previous_hash) == (2, "1", first.hash)
    assert second.as_of == AS_OF
    assert second.at.tzinfo is UTC


def test_pipelines_do_not_see_each_other(ledger: Ledger) -> None:
    promote(ledger, "1", None)
    assert ledger.champion("churn") is None
    assert promote(ledger, "1", None, pipeline="churn").sequence == 1


@pytest.mark.parametrize("expected", [None, "7"])
def test_a_promotion_that_expects_another_champion_is_refused(ledger: Ledger, expected: str | None) -> None:
    promote(ledger, "1", None)
    with pytest.raises(ConflictError, match=r"ledger: flights: expected the champion to be .*Got '1'.*again"):
        promote(ledger, "2", expected)
    assert len(ledger.entries("flights")) == 1


def test_promoting_the_champion_again_changes_nothing(ledger: Ledger) -> None:
    promote(ledger, "1", None)
    second = promote(ledger, "2", "1")
    assert promote(ledger, "2", "1") == second
    assert len(ledger.entries("flights")) == 2


def test_a_rollback_brings_back_the_champion_before(ledger: Ledger) -> None:
    for version, expected in (("1", None), ("2", "1"), ("3", "2")):
        promote(ledger, version, expected)
    back = ledger.rollback("flights", "3", "deploy")
    assert (back.action, back.version, back.model_id, back.digest, back.expected) == (
        "rollback",
        "2",
        "m-2",
        "2" * 64,
        "3",
    )
    assert ledger.champion("flights") == back
    assert ledger.rollback("flights", "2", "deploy").version == "1"  # a second one goes further back, not forth


def test_rolling_back_the_first_promotion_leaves_no_champion(ledger: Ledger) -> None:
    promote(ledger, "1", None)
    assert ledger.rollback("flights", "1", "deploy").version == ""
    assert ledger.champion("flights") is None
    assert promote(ledger, "2", None).sequence == 3


def test_the_champion_of_a_moment_is_the_last_one_trained_by_then(ledger: Ledger) -> None:
    june, july = datetime(2013, 6, 1, tzinfo=UTC), datetime(2013, 7, 1, tzinfo=UTC)
    may = promote(ledger, "1", None)
    later = promote(ledger, "2", "1", as_of=july)
    assert ledger.champion_at("flights", datetime(2013, 4, 1, tzinfo=UTC)) is None
    assert ledger.champion_at("flights", june) == may
    assert ledger.champion_at("flights", july) == later
    assert ledger.champion_at("flights", july, besides="run-2") == may
    ledger.rollback("flights", "2", "deploy")
    assert ledger.champion_at("flights", july) == may
    assert ledger.standing("flights") == [may]


def test_a_rollback_states_what_it_expects_too(ledger: Ledger) -> None:
    promote(ledger, "1", None)
    promote(ledger, "2", "1")
    with pytest.raises(ConflictError):
        ledger.rollback("flights", "1", "deploy")


def test_an_untouched_ledger_verifies(ledger: Ledger) -> None:
    promote(ledger, "1", None)
    promote(ledger, "2", "1")
    ledger.rollback("flights", "2", "deploy")
    ledger.verify("flights")


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("UPDATE ledger SET actor = 'nobody' WHERE sequence = 2", 2),
        ("UPDATE ledger SET at = '2012-01-01 00:00:00' WHERE sequence = 1", 1),
        ("UPDATE ledger SET hash = 'x' WHERE sequence = 3", 3),
        ("DELETE FROM ledger WHERE sequence = 2", 2),
    ],
)
def test_a_change_behind_its_back_is_named(ledger: Ledger, url: str, statement: str, named: int) -> None:
    for version, expected in (("1", None), ("2", "1"), ("3", "2")):
        promote(ledger, version, expected)
    with sa.create_engine(url).begin() as connection:
        connection.execute(sa.text(statement))
    with pytest.raises(ModelError, match=rf"ledger: flights\[{named}\]"):
        ledger.verify("flights")


def test_a_database_that_is_down_is_named_without_its_password() -> None:
    with pytest.raises(ServiceError, match="must answer") as caught:
        Ledger("postgresql+psycopg2://airworthy:secret@127.0.0.1:1/ledger").champion("flights")
    assert "127.0.0.1:1/ledger" in str(caught.value)
    assert "secret" not in str(caught.value)
