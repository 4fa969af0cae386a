from __future__ import annotations

import getpass
import math
import re
import traceback
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from airworthy import quarantine_command as command
from airworthy.config import Pipeline
from airworthy.errors import AirworthyError, DataError, Problems
from airworthy.masking import MASK
from airworthy.partitions import parse_key
from airworthy.profile import Profile
from airworthy.stages.decisions import Decision, on_record
from airworthy.stages.ingest import ingest
from airworthy.stages.process import process
from airworthy.stages.quarantine import rows_digest
from airworthy.stages.question import Question, decide, describe, question
from airworthy.stages.training_data import read_raw
from airworthy.stages.validate import Validation, validate
from airworthy.store import Store, TableRef
from parcels import DAY, World, parcels, world

__all__ = ["world"]

NOW = datetime(2026, 1, 6, 9, 30, tzinfo=UTC)
CODE = """
def features(frame):
    return frame[["weight", "service"]]
def in_kilograms(rows):
    return rows.assign(weight=rows["weight"].where(rows["weight"] < 100, rows["weight"] / 1000))
def halve(rows):
    return rows.assign(weight=rows["weight"] / 2)
def raises(rows):
    return rows["no_such_column"]
def loses_a_row(rows):
    return rows.iloc[1:]
def other_columns(rows):
    return rows.drop(columns="service").assign(extra=1)
def not_a_frame(rows):
    return None
def other_type(rows):
    return rows.assign(weight="light", late="no")
def other_time(rows):
    return rows.assign(at=rows["at"] + __import__("pandas").Timedelta("1 day"))
def as_it_is(rows):
    return rows
def new_key(rows):
    return rows.assign(id=[f"new-{number}" for number in range(len(rows))])
def taken_key(rows):
    return rows.assign(id="2026-01-05-0")
"""
GRAMS = [1.0, 2.0, 3.0, 4000.0, 5000.0, 1.0, 2.0, 3.0, 90.0, 1.0]  # rows 3, 4 and 8 are heavier than 50 kg
HEAVY = {"expect_column_values_to_be_between": {"column": "weight", "min_value": 0, "max_value": 50}}


def shop(world: World, share: float = 0.5, *expectations: dict[str, Any], code: str = CODE) -> Pipeline:
    """Returns a pipeline with every repair of `CODE`, in a module that keeps its name."""
    (world.folder / "shop.py").write_text(code)
    repairs = {line[4:].partition("(")[0]: "" for line in code.splitlines() if line.startswith("def ")}
    return world.pipeline(
        checks={"allowed_bad_share": share, "expectations": [HEAVY, *expectations]},
        features="shop:features",
        quarantine={"repairs": {name: f"shop:{name}" for name in repairs if name != "features"}},
    )


@pytest.fixture(autouse=True)
def _fresh_module(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.delitem(sys.modules, "shop", raising=False)


def check(world: World, pipeline: Pipeline) -> Validation:
    raw = ingest(pipeline, DAY, world.store)
    return validate(pipeline, DAY, raw, world.store, world.reports)


def ingest_only(world: World, pipeline: Pipeline) -> TableRef:
    return ingest(pipeline, DAY, world.store)


def run(world: World, pipeline: Pipeline) -> TableRef:
    return process(pipeline, DAY, check(world, pipeline), world.store)


def asked(world: World, pipeline: Pipeline) -> Question:
    found = question(pipeline, DAY, world.store)
    assert found is not None
    return found


def answer(world: World, pipeline: Pipeline, decision: str, days: int = 0, **other: Any) -> Decision:
    details = {"who": "ann", "at": NOW + timedelta(days=days), "reason": "the scale", "run": f"run-{days}", **other}
    return decide(pipeline, DAY, asked(world, pipeline), decision, world.store, **details)


def weights(world: World) -> list[float]:
    return world.store.read("features")["weight"].tolist()


def decisions(world: World) -> dict[int, str]:
    return world.store.read("quarantine", partitions=[DAY.key]).set_index("row")["decision"].to_dict()


def page(world: World, found: Validation) -> str:
    return (world.reports / found.page).read_text()


@pytest.fixture
def heavy(world: World) -> Pipeline:
    """A pipeline whose partition has three rows in quarantine."""
    world.rows = parcels(weight=GRAMS)
    pipeline = shop(world)
    assert run(world, pipeline).rows == 7
    return pipeline


def test_a_question_says_which_rows_fail_what(world: World, heavy: Pipeline) -> None:
    found = asked(world, heavy)
    assert (found.rows, found.waiting, found.before) == (3, True, ())
    assert found.reasons == (("expect_column_values_to_be_between(weight)", 3),)
    text = describe(heavy, found, world.store, "http://here/page.html")
    assert (
        "**3 of 10 rows** of version 1 of `raw` wait for a decision. [Validation result](http://here/page.html)" in text
    )
    assert "| expect_column_values_to_be_between(weight) | min_value=0, max_value=50 | 3 |" in text
    assert "| 3 | expect_column_values_to_be_between(weight) | 4000.0 | 2026-01-05-3 |" in text
    assert "- **repair: in_kilograms**: `shop:in_kilograms` mends them" in text
    assert "- No answer: they stay in quarantine." in text


def test_the_log_of_raw_is_read_once_per_question_and_answer(
    world: World, heavy: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes, read = Store._writes, []
    monkeypatch.setattr(Store, "_writes", lambda store, table: [read.append(table), writes(store, table)][1])
    describe(heavy, asked(world, heavy), world.store, "page")
    assert read == ["raw"]
    found = asked(world, heavy)
    read.clear()
    decide(heavy, DAY, found, "repair: in_kilograms", world.store, who="ann", at=NOW)
    assert read == ["raw"]


def test_there_is_no_question_without_rows_in_quarantine(world: World) -> None:
    pipeline = world.pipeline()
    run(world, pipeline)
    assert question(pipeline, DAY, world.store) is None


def test_personal_columns_are_masked_and_markdown_is_text(world: World) -> None:
    world.rows = parcels(weight=GRAMS, service=["![x](http://evil/x.png)|<b>"] * 10)
    pipeline = shop(world)
    run(world, pipeline)
    object.__setattr__(pipeline, "pii", ("id",))
    text = describe(pipeline, asked(world, pipeline), world.store, "page")
    assert "2026-01-05-3" not in text and r"| \[masked\] |" in text
    assert r"!\[x\](http\://evil/x.png)\|\<b\>" in text


def test_released_rows_go_on_and_stay_listed(world: World, heavy: Pipeline) -> None:
    made = answer(world, heavy, "release")
    assert list(on_record(world.store, DAY.key)) == [made]
    assert (made.who, made.reason, made.run, made.rows, made.raw_version) == ("ann", "the scale", "run-0", 3, 1)
    found = check(world, heavy)
    assert process(heavy, DAY, found, world.store).rows == 10
    assert weights(world) == GRAMS
    assert (found.bad_rows, found.waiting_rows) == (3, 0)
    assert decisions(world) == {3: "release", 4: "release", 8: "release"}
    assert "3 rows: release, decided by ann on 2026-01-06 09:30 UTC: the scale" in page(world, found)


def test_dropped_rows_stay_out(world: World, heavy: Pipeline) -> None:
    answer(world, heavy, "drop")
    found = check(world, heavy)
    assert process(heavy, DAY, found, world.store).rows == 7
    assert found.waiting_rows == 0 and set(decisions(world).values()) == {"drop"}


def test_repaired_rows_that_pass_go_on_and_the_others_are_asked_about(world: World, heavy: Pipeline) -> None:
    answer(world, heavy, "repair: in_kilograms")
    found = check(world, heavy)
    process(heavy, DAY, found, world.store)
    assert weights(world) == [1.0, 2.0, 3.0, 4.0, 5.0, 1.0, 2.0, 3.0, 1.0]
    assert decisions(world) == {3: "repair: in_kilograms", 4: "repair: in_kilograms", 8: ""}
    assert world.store.read("raw")["weight"].tolist() == GRAMS
    assert world.store.read("repairs")[["row", "weight"]].values.tolist() == [[3, 4.0], [4, 5.0]]
    assert found.waiting_rows == 1 and "1 rows fail after the repair, too, and stay as they were" in page(world, found)
    rest = asked(world, heavy)
    assert (rest.rows, rest.waiting, rest.before) == (1, True, ())
    answer(world, heavy, "drop", days=1)
    assert check(world, heavy).waiting_rows == 0
    assert decisions(world) == {3: "repair: in_kilograms", 4: "repair: in_kilograms", 8: "drop"}


def test_a_training_records_requests_with_the_values_that_it_learnt_from(world: World, heavy: Pipeline) -> None:
    answer(world, heavy, "repair: in_kilograms")
    run(world, heavy)
    version = world.store.version("features")
    data = SimpleNamespace(holdout_interval=(DAY.start, DAY.end), features=SimpleNamespace(version=version))
    features = world.store.read("features").set_index(heavy.identity)["weight"]
    recorded = read_raw(heavy, data, world.store).set_index(heavy.identity)["weight"]  # type: ignore[arg-type]
    assert recorded[features.index].equals(features) and {4.0, 5.0} <= set(features)


def test_two_repairs_one_after_the_other(world: World, heavy: Pipeline) -> None:
    answer(world, heavy, "repair: in_kilograms")
    run(world, heavy)
    answer(world, heavy, "repair: halve", days=1)
    assert run(world, heavy).rows == 10
    assert weights(world) == [1.0, 2.0, 3.0, 4.0, 5.0, 1.0, 2.0, 3.0, 45.0, 1.0]


@pytest.mark.parametrize("decision", ["release", "drop", "repair: in_kilograms"])
def test_a_rerun_changes_nothing(world: World, heavy: Pipeline, decision: str) -> None:
    answer(world, heavy, decision)
    first = run(world, heavy)
    before = {table: world.store.version(table) for table in ("raw", "quarantine", "repairs", "features", "decisions")}
    assert run(world, heavy) == first.model_copy(update={"changed": False})
    assert {table: world.store.version(table) for table in before} == before


def test_an_answer_given_twice_is_on_record_once(world: World, heavy: Pipeline) -> None:
    question_before = asked(world, heavy)
    answer(world, heavy, "drop")
    details = {"who": "ann", "at": NOW, "reason": "the scale", "run": "run-0"}
    decide(heavy, DAY, question_before, "drop", world.store, **details)
    assert len(list(on_record(world.store))) == 1


def test_a_later_decision_takes_the_place_of_an_earlier_one(world: World, heavy: Pipeline) -> None:
    answer(world, heavy, "release")
    assert run(world, heavy).rows == 10
    again = asked(world, heavy)
    assert not again.waiting and [one.decision for one in again.before] == ["release"]
    assert "Decided before" in describe(heavy, again, world.store, "page")
    answer(world, heavy, "drop", days=1, who="bob")
    assert run(world, heavy).rows == 7
    assert [(one.decision, one.who) for one in on_record(world.store)] == [("release", "ann"), ("drop", "bob")]


def test_the_same_rows_elsewhere_in_the_partition_are_treated_the_same(world: World, heavy: Pipeline) -> None:
    answer(world, heavy, "release")
    world.rows = pd.concat([parcels(1, id="another", weight=1.0), parcels(weight=GRAMS)], ignore_index=True)
    assert run(world, shop(world)).rows == 11
    assert decisions(world) == {4: "release", 5: "release", 9: "release"}


@pytest.mark.parametrize("changes", [{"weight": [*GRAMS[:-1], 60.0]}, {"weight": GRAMS, "service": "slow"}])
def test_other_rows_wait_for_a_decision_of_their_own(world: World, heavy: Pipeline, changes: dict[str, Any]) -> None:
    answer(world, heavy, "release")
    world.rows = parcels(**changes)
    found = check(world, shop(world))
    assert found.waiting_rows == found.bad_rows > 0
    assert set(decisions(world).values()) == {""}


@pytest.mark.parametrize(
    ("values", "same"),
    [([1, None, -3], True), ([2**53, 0], True), ([2**53 + 1, 0], False), ([1.5, math.inf], True)],
)
def test_a_decision_outlives_a_column_that_becomes_float64(values: list[Any], same: bool) -> None:
    before = pa.table({"number": values, "failed": ["not_null(id)"] * len(values)})
    after = before.set_column(0, "number", before["number"].cast(pa.float64(), safe=False))
    assert (rows_digest(before) == rows_digest(after)) is same
    other = before.set_column(0, "number", pa.array([7, *values[1:]], before["number"].type))
    assert rows_digest(other) != rows_digest(before)


def test_rows_that_fail_something_else_wait_again(world: World, heavy: Pipeline) -> None:
    answer(world, heavy, "release")
    known = {"expect_column_values_to_be_in_set": {"column": "service", "value_set": ["fast"]}}
    assert check(world, shop(world, 1, known)).waiting_rows == 7


@pytest.mark.parametrize("weights", [[*GRAMS[:-1], 70.0], [*GRAMS[:-1], 1.5], [1.0] * 10])
@pytest.mark.parametrize("validated", [True, False])
def test_an_answer_about_a_partition_that_has_changed_is_void(
    world: World, heavy: Pipeline, weights: list[float], validated: bool
) -> None:
    before = asked(world, heavy)
    world.rows = parcels(weight=weights)
    (run if validated else ingest_only)(world, shop(world))
    with pytest.raises(DataError) as raised:
        decide(heavy, DAY, before, "release", world.store, who="ann", at=NOW)
    now = world.store.history("raw")[-1]
    rule = f"the answer is void: it is about {before}, and by now there is version 2 of raw ({now.digest[:12]})."
    assert rule in str(raised.value) and before.digest[:12] in rule
    assert list(on_record(world.store)) == []


def test_an_answer_about_rows_of_which_some_are_decided_about_is_void(world: World, heavy: Pipeline) -> None:
    before = asked(world, heavy)
    answer(world, heavy, "repair: in_kilograms")
    run(world, heavy)
    with pytest.raises(DataError, match=r"it is about 3 rows .*, and by now there is 1 rows"):
        decide(heavy, DAY, before, "release", world.store, who="bob", at=NOW)


@pytest.mark.parametrize("changes", [{"weight": [50.0] * 10}, {"weight": GRAMS, "another": 1}])
def test_rows_of_a_partition_that_is_not_validated_again_yet_are_not_asked_about(
    world: World, heavy: Pipeline, changes: dict[str, Any]
) -> None:
    world.rows = parcels(**changes)
    world.store.write("raw", DAY, world.rows, evolve=True)
    with pytest.raises(DataError, match=r"raw\[2026-01-05\]: was ingested again since .* Run parcels.ingest for it"):
        question(heavy, DAY, world.store)


@pytest.mark.parametrize("decision", ["drop", "release", "repair: in_kilograms"])
def test_a_decision_lets_a_blocked_partition_go_on(world: World, decision: str) -> None:
    world.rows = parcels(weight=GRAMS)
    pipeline = shop(world, 0.1)
    with pytest.raises(Problems, match=r"at most 10.00% of the rows may fail .* Got '3 of 10'"):
        run(world, pipeline)
    assert asked(world, pipeline).rows == 3
    answer(world, pipeline, decision)
    assert run(world, pipeline).rows == {"drop": 7, "release": 10, "repair: in_kilograms": 9}[decision]


def test_what_a_repair_leaves_still_blocks(world: World) -> None:
    world.rows = parcels(weight=GRAMS)
    pipeline = shop(world, 0)
    with pytest.raises(Problems):
        run(world, pipeline)
    answer(world, pipeline, "repair: in_kilograms")
    with pytest.raises(Problems, match="Got '1 of 10'"):
        run(world, pipeline)


@pytest.mark.parametrize("decision", ["drop", "repair: in_kilograms", "release"])
def test_whole_columns_are_judged_on_what_goes_on(world: World, decision: str) -> None:
    world.rows = parcels(weight=GRAMS)
    pipeline = shop(world, 1, {"expect_column_mean_to_be_between": {"column": "weight", "max_value": 20}})
    with pytest.raises(Problems, match="expect_column_mean_to_be_between"):
        run(world, pipeline)
    answer(world, pipeline, decision)
    if decision == "release":
        with pytest.raises(Problems, match="expect_column_mean_to_be_between"):
            run(world, pipeline)
    else:
        run(world, pipeline)


def test_rows_without_a_key_of_their_own_are_not_released(world: World) -> None:
    world.rows = parcels(weight=GRAMS, id=["twice", "twice", None, *"abcdefg"])
    pipeline = shop(world, 1)
    run(world, pipeline)
    answer(world, pipeline, "release")
    found = check(world, pipeline)
    assert decisions(world) == {0: "", 1: "", 2: "", 3: "release", 4: "release", 8: "release"}
    assert found.waiting_rows == 3 and "3 rows are not released: their key is missing" in page(world, found)
    answer(world, pipeline, "repair: new_key", days=1)
    assert run(world, pipeline).rows == 10
    assert world.store.read("features")["id"].tolist() == ["new-0", "new-1", "new-2", *"abcdefg"]


def test_a_repaired_key_must_not_be_another_rows(world: World) -> None:
    world.rows = parcels(weight=GRAMS[:3] + [4000.0] + [1.0] * 6)
    pipeline = shop(world)
    run(world, pipeline)
    answer(world, pipeline, "repair: taken_key")
    assert run(world, pipeline).rows == 9
    assert decisions(world) == {3: ""}


def test_a_repair_that_makes_other_rows_fail_repairs_nothing(world: World) -> None:
    world.rows = parcels(5, weight=[5.0, 6.0, -700.0, 7.0, 8.0])
    rising = {"expect_column_values_to_be_increasing": {"column": "weight"}}
    pipeline = shop(world, 1, rising, code=CODE + "def too_much(rows):\n    return rows.assign(weight=7.5)\n")
    run(world, pipeline)
    answer(world, pipeline, "repair: too_much")
    found = check(world, pipeline)
    assert decisions(world) == {2: ""} and found.repairs is None
    told = "Nothing is repaired: raw: rows that pass must also do so beside the repaired ones. Got"
    assert told in page(world, found)


def test_a_row_is_repaired_only_if_it_passes_beside_those_that_are_not(world: World) -> None:
    world.rows = parcels(4, id=["1", "2", "5", None], weight=[1.0, 2.0, 900.0, 3.0])
    code = CODE + "def number(rows):\n    return rows.assign(id=rows['id'].map({'5': '6'}).fillna('5'))\n"
    pipeline = shop(world, 1, code=code)
    run(world, pipeline)
    answer(world, pipeline, "repair: number")
    run(world, pipeline)
    assert decisions(world) == {2: "", 3: ""}
    answer(world, pipeline, "release", days=1)
    run(world, pipeline)
    assert world.store.read("features")["id"].tolist() == ["1", "2", "5"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("raises", "must not raise, but raised KeyError: 'no_such_column'. Line 9 of shop.py"),
        ("loses_a_row", "must return one row per failing row, in the same order. Got 2"),
        ("other_columns", "must return the columns it was given"),
        ("not_a_frame", "must return a pandas DataFrame. Got 'NoneType'"),
        ("other_type", "shop:other_type: weight: must hold double. Got"),
        ("other_time", "shop:other_time: at: must not change"),
    ],
)
def test_a_repair_that_does_not_work_is_not_put_on_record(
    world: World, heavy: Pipeline, name: str, message: str
) -> None:
    with pytest.raises(AirworthyError) as raised:
        answer(world, heavy, f"repair: {name}")
    assert message in str(raised.value)
    assert list(on_record(world.store)) == []


def test_a_repair_that_raises_shows_no_personal_value(world: World) -> None:
    world.rows = parcels(weight=GRAMS)
    parse = "def parse(rows):\n    raise ValueError('cannot parse ' + rows['id'].iloc[0])\n"
    pipeline = shop(world, code=CODE + parse)
    run(world, pipeline)
    object.__setattr__(pipeline, "pii", ("id",))
    with pytest.raises(DataError, match="must not raise, but raised ValueError") as raised:
        answer(world, pipeline, "repair: parse")
    assert "2026-01-05-3" not in "".join(traceback.format_exception(raised.value))


def test_what_is_not_declared_cannot_be_decided(world: World, heavy: Pipeline) -> None:
    with pytest.raises(
        DataError, match=r"decision must be one of drop, repair: in_kilograms, .*, release\. Got 'sell'"
    ):
        answer(world, heavy, "sell")


def test_a_repair_that_mends_nothing_leaves_the_rows_waiting(world: World, heavy: Pipeline) -> None:
    answer(world, heavy, "repair: as_it_is")
    found = check(world, heavy)
    assert found.waiting_rows == 3 and found.repairs is None
    assert "3 rows fail after the repair, too" in page(world, found)
    again = asked(world, heavy)
    assert again.waiting and len(again.before) == 1


def test_a_repair_whose_code_has_changed_since_is_void(world: World, heavy: Pipeline) -> None:
    first = asked(world, heavy)
    answer(world, heavy, "repair: in_kilograms")
    assert run(world, heavy).rows == 9
    found = check(world, shop(world, code=CODE + "# another thought\n"))
    assert found.waiting_rows == 3
    assert "This decision is void: the module of shop:in_kilograms has changed since" in page(world, found)
    assert world.store.read("repairs", partitions=[DAY.key]).empty
    assert asked(world, heavy).id != first.id


def test_a_repair_that_raises_in_a_rerun_repairs_nothing(
    world: World, heavy: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(world, heavy, "repair: in_kilograms")
    import shop as user_code  # type: ignore[import-not-found]

    monkeypatch.setattr(user_code, "in_kilograms", user_code.raises)
    found = check(world, heavy)
    assert found.waiting_rows == 3 and "Nothing is repaired: shop:in_kilograms: must not raise" in page(world, found)


def test_a_column_the_repair_leaves_alone_keeps_every_bit(world: World) -> None:
    big = 2**53 + 1
    world.rows = parcels(weight=GRAMS).assign(number=pd.array([None] * 3 + [big] * 7, dtype="Int64"))
    pipeline = shop(world)
    run(world, pipeline)
    answer(world, pipeline, "repair: in_kilograms")
    run(world, pipeline)
    repaired = world.store.scan("repairs").to_table(columns=["number"])["number"].to_pylist()
    assert repaired == [big, big]


def test_features_are_made_from_what_was_validated(world: World, heavy: Pipeline) -> None:
    answer(world, heavy, "repair: in_kilograms")
    found = check(world, heavy)
    answer(world, heavy, "drop", days=1)
    check(world, heavy)
    assert process(heavy, DAY, found, world.store).rows == 9


def profile(world: World) -> Profile:
    address = "http://127.0.0.1:1"
    return Profile(
        store_uri=str(world.folder / "store"),
        reports_dir=world.reports,
        mlflow_uri=address,
        ledger_url="sqlite://",
        serving_url=address,
        airflow_url=address,
    )


def test_the_command_lists_partitions_with_reasons_and_decisions(world: World, heavy: Pipeline) -> None:
    reasons = "3 expect_column_values_to_be_between(weight)"
    assert [line.split("  ") for line in command.listed([heavy], profile(world))][1][-1].strip() == reasons
    answer(world, heavy, "repair: in_kilograms")
    run(world, heavy)
    head, line = command.listed([heavy], profile(world))
    assert head.split() == ["pipeline", "partition", "rows", "share", "decisions", "reasons"]
    assert re.split(" {2,}", line) == ["parcels", DAY.key, "3", "30.00%", "2 repair: in_kilograms, 1 wait", reasons]


def test_the_command_opens_no_table_once_more_per_partition(
    world: World, heavy: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def counted(uri: str, **kwargs: Any) -> DeltaTable:
        opened.append(uri)
        return DeltaTable(uri, **kwargs)

    kept = world.store.read("quarantine", partitions=[DAY.key])
    counts = []
    for days in (1, 2, 3):
        world.store.write("quarantine", parse_key("day", f"2026-01-0{days}"), kept)
        with monkeypatch.context() as patch:
            patch.setattr("airworthy.store.DeltaTable", counted)
            assert len(list(command.listed([heavy], profile(world)))) == 2 + days
        counts.append(len(opened))
        opened.clear()
    assert len(set(counts)) == 1 and counts[0] > 0


def test_the_command_says_when_nothing_is_in_quarantine(world: World) -> None:
    assert list(command.listed([shop(world)], profile(world))) == ["No rows are in quarantine."]
    with pytest.raises(DataError, match=r"quarantine\[2026-01-05\]: must have rows"):
        list(command.shown(shop(world), DAY.key, 5, profile(world)))


def test_the_command_shows_rows_with_personal_columns_masked(world: World, heavy: Pipeline) -> None:
    object.__setattr__(heavy, "pii", ("id",))
    head, row, more, waiting = command.shown(heavy, DAY.key, 1, profile(world))
    assert head.split() == ["row", "decision", "failed", "weight", "id", "at", "late", "service"]
    assert row.split()[:5] == ["3", "waits", "expect_column_values_to_be_between(weight)", "4000.0", MASK]
    assert more == "... and 2 more" and waiting.startswith("3 rows wait for a decision: trigger parcels.quarantine")


def test_the_command_decides_in_the_name_of_who_is_logged_in(world: World, heavy: Pipeline) -> None:
    first, second = command.decided(heavy, DAY.key, "release", "the scale", profile(world))
    assert first.startswith(f"3 rows: release, decided by {getpass.getuser()} on ") and first.endswith(": the scale")
    assert "trigger parcels.ingest with this partition" in second
    assert run(world, heavy).rows == 10
    assert first in list(command.shown(heavy, DAY.key, 5, profile(world)))


def test_rows_too_many_to_list_block_whatever_was_decided_about_the_others(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airworthy.stages.validate.LISTED", 3)
    known = {"expect_column_values_to_be_in_set": {"column": "service", "value_set": ["fast"]}}
    world.rows = parcels(weight=GRAMS)
    pipeline = shop(world, 0, known)  # three rows are too heavy, and six of a service that is not known
    with pytest.raises(Problems, match="Got '6 of 10'"):
        run(world, pipeline)
    answer(world, pipeline, "drop")
    with pytest.raises(Problems, match="Got '6 of 10'"):
        run(world, pipeline)
