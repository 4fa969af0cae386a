"""What the ledger says after rollbacks: to the champion before, to any earlier one, and forth again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from airworthy.errors import ConflictError, ModelError
from airworthy.ledger import Entry, Ledger

AS_OF = datetime(2013, 5, 1, tzinfo=UTC)
FIRST_HASH = "11a6f7273012000eb9955800b04847191ca6320710167b6297f66e6d38cf9904"
FIRST_TABLE = """CREATE TABLE ledger (
    pipeline VARCHAR(50) NOT NULL, sequence INTEGER NOT NULL, at DATETIME NOT NULL, action VARCHAR(16) NOT NULL,
    version VARCHAR(32) NOT NULL, model_id VARCHAR(64) NOT NULL, run_id VARCHAR(64) NOT NULL,
    digest VARCHAR(64) NOT NULL, as_of DATETIME, expected VARCHAR(32), actor TEXT NOT NULL,
    evidence VARCHAR(64) NOT NULL, previous_hash VARCHAR(64) NOT NULL, hash VARCHAR(64) NOT NULL,
    PRIMARY KEY (pipeline, sequence))"""


def promote(ledger: Ledger, version: str, judged_at: int = 0, approved_by: str | None = None) -> Entry:
    champion = ledger.champion("flights")
    return ledger.promote(
        pipeline="flights",
        version=version,
        model_id=f"m-{version}",
        run_id=f"run-{version}",
        digest=version * 64,
        as_of=AS_OF + timedelta(days=int(version)),
        expected=champion.version if champion else None,
        actor="test",
        evidence="e" * 64,
        judged_at=judged_at,
        approved_by=approved_by,
    )


def versions(ledger: Ledger) -> list[str]:
    return [entry.version for entry in ledger.standing("flights")]


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    made = Ledger(f"sqlite:///{tmp_path}/ledger.db")
    made.create()
    return made


@pytest.fixture
def three(ledger: Ledger) -> Ledger:
    for version in "123":
        promote(ledger, version)
    return ledger


def test_a_rollback_to_a_version_takes_back_all_that_came_after_it(three: Ledger) -> None:
    back = three.rollback("flights", "3", "ann", to="1", reason="complaints")
    assert (back.version, back.model_id, back.expected, back.actor, back.reason) == (
        "1",
        "m-1",
        "3",
        "ann",
        "complaints",
    )
    assert three.champion("flights") == back
    assert versions(three) == ["1"]
    assert three.verify("flights")[-1] == back


def test_a_version_that_was_taken_back_can_be_named_too(three: Ledger) -> None:
    three.rollback("flights", "3", "ann", to="1")
    assert three.rollback("flights", "1", "ann", to="3").version == "3"
    assert versions(three) == ["1", "3"]
    assert three.rollback("flights", "3", "ann").version == "1"


def test_the_champion_itself_is_no_rollback(three: Ledger) -> None:
    last = three.entries("flights")[-1]
    assert three.rollback("flights", "3", "ann", to="3") == last
    assert three.rollback("flights", "2", "ann", to="3") == last  # whatever was expected, it is what was wanted
    assert len(three.entries("flights")) == 3


def test_a_version_that_never_was_champion_is_refused(three: Ledger) -> None:
    with pytest.raises(ModelError, match=r"must go to a version that was champion \(1, 2, 3\)\. Got '7'"):
        three.rollback("flights", "3", "ann", to="7")
    with pytest.raises(ConflictError, match=r"expected the champion to be 2\. Got '3'"):
        three.rollback("flights", "2", "ann", to="1")
    assert len(three.entries("flights")) == 3


def test_what_was_taken_back_needs_a_new_judgement(three: Ledger) -> None:
    three.rollback("flights", "3", "ann", to="1", reason="complaints")
    for version in "23":
        with pytest.raises(
            ConflictError, match=rf"ledger: flights\[4\]: version {version} must be judged again, since ann"
        ):
            promote(three, version, judged_at=3)
    with pytest.raises(ConflictError, match="version 3 must be brought back or approved by a person, since ann"):
        promote(three, "3", judged_at=4)
    assert promote(three, "3", judged_at=4, approved_by="bob").sequence == 5


def test_what_its_own_promotion_took_back_is_tried_again_once_it_was_judged_again(three: Ledger) -> None:
    three.rollback("flights", "3", "test", reason="It did not go live")
    with pytest.raises(ConflictError, match="version 3 must be judged again, since test"):
        promote(three, "3", judged_at=3)
    assert promote(three, "3", judged_at=4).sequence == 5


def test_a_version_is_one_model(three: Ledger) -> None:
    assert promote(three, "3") == three.entries("flights")[-1]
    with pytest.raises(ConflictError):
        three.promote(
            pipeline="flights",
            version="3",
            model_id="m-other",
            run_id="run-other",
            digest="9" * 64,
            as_of=AS_OF,
            expected="2",
            actor="test",
            evidence="",
        )


def test_approvals_and_reasons_are_in_the_hash_and_only_if_there_are_any(ledger: Ledger) -> None:
    nobody, somebody = promote(ledger, "1", approved_by=""), promote(ledger, "2", approved_by="ann, bob")
    assert (nobody.approved_by, somebody.approved_by) == (None, "ann, bob")
    assert nobody.model_copy(update={"approved_by": "ann"}).sealed().hash != nobody.hash
    assert somebody.model_copy(update={"approved_by": None}).sealed().hash != somebody.hash
    back = ledger.rollback("flights", "2", "ann", reason="complaints")
    assert back.model_copy(update={"reason": "bribes"}).sealed().hash != back.hash
    assert ledger.entries("flights") == [nobody, somebody, back]


def test_a_ledger_from_before_approvals_goes_on(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/old.db"
    with sa.create_engine(url).begin() as connection:
        connection.execute(sa.text(FIRST_TABLE))
        row = ("flights", 1, "2013-05-01 12:00:00.000000", "promote", "1", "m-1", "run-1", "1" * 64)
        row += ("2013-05-01 00:00:00.000000", None, "manual__2013-05-01", "e" * 64, "", FIRST_HASH)
        connection.exec_driver_sql(f"INSERT INTO ledger VALUES ({', '.join('?' * len(row))})", row)
    ledger = Ledger(url)
    ledger.create()
    ledger.create()
    (first,) = ledger.verify("flights")
    assert (first.hash, first.approved_by, first.reason) == (FIRST_HASH, None, None)
    promote(ledger, "2", approved_by="ann")
    assert [entry.approved_by for entry in ledger.verify("flights")] == [None, "ann"]


VERSIONS = st.sampled_from("12345")
ACTIONS = st.one_of(
    st.tuples(st.just("promote"), VERSIONS, st.booleans()),
    st.tuples(st.just("back"), st.just(""), st.just(False)),
    st.tuples(st.just("to"), VERSIONS, st.just(False)),
)


class Book:
    """What the ledger must say, in the simplest words: promotions as (when, version), and what was taken back."""

    def __init__(self) -> None:
        self.clock = 0
        self.ever: list[tuple[int, str]] = []
        self.standing: list[tuple[int, str]] = []
        self.left: set[str] = set()

    @property
    def champion(self) -> str | None:
        return self.standing[-1][1] if self.standing else None

    def promote(self, version: str) -> None:
        if version != self.champion:
            self.clock += 1
            self.ever.append((self.clock, version))
            self.standing.append(self.ever[-1])

    def back(self) -> None:
        self.clock += 1
        self.left.add(self.standing.pop()[1])

    def to(self, version: str) -> None:
        if version == self.champion:
            return
        self.clock += 1
        known = [one for one in self.standing if one[1] == version] or [one for one in self.ever if one[1] == version]
        wanted = known[-1]
        self.left |= {one[1] for one in self.standing if one[0] > wanted[0]} - {version}
        self.standing = [one for one in self.standing if one[0] < wanted[0]] + [wanted]


@settings(max_examples=150)
@given(st.lists(ACTIONS, max_size=25))
def test_whatever_happens_the_ledger_says_what_the_simplest_book_says(actions: list[tuple[str, str, bool]]) -> None:
    ledger, book = Ledger("sqlite://"), Book()
    ledger.create()
    for action, version, judged_again in actions:
        champion, length = book.champion, len(ledger.entries("flights"))
        if action == "promote":
            if version in book.left and version != champion and not judged_again:
                with pytest.raises(ConflictError):
                    promote(ledger, version)
                continue
            promote(ledger, version, judged_at=length if judged_again else 0, approved_by="bob")
            book.promote(version)
        elif action == "back" and champion:
            ledger.rollback("flights", champion, "ann")
            book.back()
        elif action == "to" and version in {one[1] for one in book.ever}:
            ledger.rollback("flights", champion, "ann", to=version)
            book.to(version)
        now = ledger.champion("flights")
        assert (now.version if now else None) == book.champion
        assert versions(ledger) == [one[1] for one in book.standing]
        for day in range(7):
            moment = AS_OF + timedelta(days=day)
            known = [one[1] for one in book.standing if int(one[1]) <= day]
            found = ledger.champion_at("flights", moment)
            assert (found.version if found else None) == (known[-1] if known else None)
    assert len(ledger.verify("flights")) == book.clock
