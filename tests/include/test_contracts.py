from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from airworthy.errors import ConflictError, DataError, Problems
from airworthy.masking import MASK
from contract_world import CANARY, MONDAY, TUESDAY, WEDNESDAY, ContractWorld, chunked, contract_world, rows

__all__ = ["contract_world"]

POLICIES = ("block", "warn", "evolve")


def reordered(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[["pieces", "id", "at", "weight", "service", "insured", "email", "late"]]


CHANGES: dict[str, tuple[Any, dict[str, str]]] = {
    # what happens to Tuesday's rows: the kind of change, and the outcome by policy
    "added": (lambda f: f.assign(colour=1.5), {"block": "blocked", "warn": "left out", "evolve": "taken"}),
    "dropped": (lambda f: f.drop(columns="weight"), {"block": "blocked", "warn": "missing", "evolve": "missing"}),
    "renamed": (
        lambda f: f.rename(columns={"weight": "weight_kg"}),
        {"block": "blocked", "warn": "missing", "evolve": "taken"},
    ),
    "retyped": (lambda f: f.assign(pieces="many"), dict.fromkeys(POLICIES, "blocked")),
    "reordered": (reordered, dict.fromkeys(POLICIES, "as before")),
    "new_categories": (
        lambda f: f.assign(service="express"),
        {"block": "blocked", "warn": "passed", "evolve": "taken"},
    ),
    "null_share": (lambda f: f.assign(weight=None), {"block": "blocked", "warn": "passed", "evolve": "taken"}),
}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("kind", CHANGES)
def test_every_kind_of_change_under_every_policy(
    contract_world: ContractWorld, caplog: pytest.LogCaptureFixture, kind: str, policy: str
) -> None:
    world, (change, outcomes) = contract_world, CHANGES[kind]
    world.ingest(world.pipeline(), MONDAY, rows())
    learnt = world.contract()
    caplog.clear()
    caplog.set_level(logging.INFO)
    frame = change(rows(TUESDAY))
    if outcomes[policy] == "blocked":
        with pytest.raises(Problems, match=r"^raw\[2026-01-06\]: "):
            world.ingest(world.pipeline(policy), TUESDAY, frame)
        assert world.store.partitions("raw") == [MONDAY.key] and world.contract() == learnt
    else:
        assert world.ingest(world.pipeline(policy), TUESDAY, frame).rows == 40
        found = world.store.read("raw", partitions=[TUESDAY.key])
        assert list(found.columns) == list(world.contract().columns)
        assert ("weight" in found) and found["weight"].isna().all() == (
            kind in ("dropped", "renamed") or (kind == "null_share")
        )
        assert (world.contract() == learnt) == (policy != "evolve" or kind == "reordered")
    assert world.kinds == [kind]
    assert f"{kind.replace('_', ' ')}" in caplog.text  # the task's log
    assert f">{kind.replace('_', ' ')}</td>" in world.page(TUESDAY)  # and the page
    if outcomes[policy] != "blocked":
        assert world.store.history("raw")[-1].facts["changes"] == world.enforcement.told != []


@pytest.mark.parametrize("kind", [kind for kind in CHANGES if kind != "retyped"])
def test_what_evolved_is_no_change_any_more(contract_world: ContractWorld, kind: str) -> None:
    world, change = contract_world, CHANGES[kind][0]
    world.ingest(world.pipeline(), MONDAY, rows())
    ref = world.ingest(world.pipeline("evolve"), TUESDAY, change(rows(TUESDAY)))
    again = world.ingest(world.pipeline("block"), TUESDAY, change(rows(TUESDAY)))
    assert set(world.kinds) <= {"reordered"} and again == ref.model_copy(update={"changed": False})
    if kind in ("added", "new_categories", "null_share"):
        assert world.ingest(world.pipeline("evolve"), WEDNESDAY, change(rows(WEDNESDAY))).changed
        assert world.kinds == []


def test_the_history_in_the_file_says_what_came_from_which_partition(contract_world: ContractWorld) -> None:
    world = contract_world
    world.ingest(world.pipeline(), MONDAY, rows())
    world.ingest(world.pipeline("evolve"), TUESDAY, rows(TUESDAY).assign(colour=1.5))
    world.ingest(world.pipeline("evolve"), WEDNESDAY, rows(WEDNESDAY).assign(colour=1.5, service="express"))
    first, second = world.contract().history
    assert (first.partition, first.changes) == ("2026-01-06", ("added: colour: float64",))
    assert (second.partition, second.changes) == ("2026-01-07", ("new categories: service: 2 categories -> 'express'",))


def test_the_whole_diff_is_in_the_error(contract_world: ContractWorld) -> None:
    world = contract_world
    world.ingest(world.pipeline(), MONDAY, rows())
    bad = rows(TUESDAY).assign(pieces=0.5, service="express", colour=1).drop(columns="weight")
    bad = bad.rename(columns={"insured": "is_insured"})
    with pytest.raises(Problems) as raised:
        world.ingest(world.pipeline(), TUESDAY, bad)
    assert str(raised.value).splitlines() == [
        "raw[2026-01-06]: weight: must be a column, as the schema contract says. If the source has changed for good: "
        "airworthy contract accept parcels 2026-01-06.",
        "raw[2026-01-06]: pieces: must hold int64, as the schema contract says. Got 'float64; 40 of 40 rows do not "
        "fit, e.g. 0.5'.",
        "raw[2026-01-06]: service: must hold one of its 2 categories. Got \"'express'\".",
        "raw[2026-01-06]: insured: must keep its name; a column that looks the same has another one. Got 'is_insured'.",
        "raw[2026-01-06]: colour: is not a column of the schema contract. Got 'int64'.",
    ]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("column", ["id", "at", "late"])
def test_without_key_time_or_label_there_is_no_partition(
    contract_world: ContractWorld, column: str, policy: str
) -> None:
    world = contract_world
    world.ingest(world.pipeline(), MONDAY, rows())
    for frame in (rows(TUESDAY).drop(columns=column), rows(TUESDAY).rename(columns={column: f"{column}_new"})):
        with pytest.raises(Problems, match=rf"raw\[2026-01-06\]: {column}: must .*cannot do without it"):
            world.ingest(world.pipeline(policy), TUESDAY, frame)
    assert world.store.partitions("raw") == [MONDAY.key]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(
    "same",
    [
        {"pieces": lambda f: f["pieces"].astype("float64")},
        {"pieces": lambda f: f["pieces"].astype("str"), "weight": lambda f: f["weight"].map(str)},
        {"pieces": lambda f: f["pieces"].map(lambda n: f"{n}.0")},
        {"late": lambda f: f["late"] == 1},
        {"insured": lambda f: f["insured"].map({True: "true", False: "False"})},
        {"at": lambda f: f["at"].map(lambda moment: moment.isoformat())},
        {"at": lambda f: f["at"].dt.tz_convert("Asia/Tokyo").map(str)},
        {"service": lambda f: f["service"].astype("category")},
    ],
    ids=lambda same: ",".join(same),
)
def test_values_that_stay_the_same_are_no_change(
    contract_world: ContractWorld, policy: str, same: dict[str, Any]
) -> None:
    world = contract_world
    plain = world.ingest(world.pipeline(), MONDAY, rows().fillna({"weight": 0.25}))
    found = world.ingest(world.pipeline(policy), MONDAY, rows().fillna({"weight": 0.25}).assign(**same))
    assert world.kinds == [] and found == plain.model_copy(update={"changed": False})


@pytest.mark.parametrize(
    ("column", "values", "told"),
    [
        ("pieces", [1.0] * 39 + [1.5], "float64; 1 of 40 rows do not fit, e.g. 1.5"),
        ("pieces", ["1"] * 38 + ["x", "2 or 3"], "string; 2 of 40 rows do not fit, e.g. 'x'"),
        ("weight", ["1e3"] * 39 + ["heavy"], "string; 1 of 40 rows do not fit, e.g. 'heavy'"),
        ("pieces", ["99999999999999999999"] * 40, "float64; 40 of 40 rows do not fit"),
        ("at", ["2026-01-06T10:00:00Z"] * 39 + ["noon"], "string; 1 of 40 rows do not fit, e.g. 'noon'"),
        ("insured", ["true"] * 39 + ["maybe"], "string; 1 of 40 rows do not fit, e.g. 'maybe'"),
        ("insured", [1] * 40, "int64; 40 of 40 rows do not fit, e.g. 1"),
        ("service", [1.5] * 40, "float64; 40 of 40 rows do not fit, e.g. 1.5"),
        ("weight", [2**60] * 40, "int64; 40 of 40 rows do not fit"),
        ("pieces", pd.date_range("2026-01-06", periods=40, tz="UTC"), "timestamp; 40 of 40 rows do not fit"),
    ],
)
def test_values_that_would_be_lost_block_and_are_counted(
    contract_world: ContractWorld, column: str, values: Any, told: str
) -> None:
    world = contract_world
    world.ingest(world.pipeline(), MONDAY, rows())
    with pytest.raises(Problems) as raised:
        world.ingest(world.pipeline("warn"), TUESDAY, rows(TUESDAY).assign(**{column: values}))
    (problem,) = raised.value.problems
    assert problem.where == f"raw[2026-01-06]: {column}" and told in str(problem)
    assert world.store.partitions("raw") == [MONDAY.key]


@pytest.mark.parametrize("policy", POLICIES)
def test_a_chunk_of_whole_numbers_that_decimals_cannot_hold_blocks(contract_world: ContractWorld, policy: str) -> None:
    world = contract_world
    world.ingest(world.pipeline(), MONDAY, rows())
    first, second, third = chunked(rows(TUESDAY))
    position = second.column_names.index("weight")
    second = second.set_column(position, "weight", pa.array([2**53 + 1] * len(second)))
    with pytest.raises(Problems, match=r"weight: must hold float64.*16 of 40 rows do not fit, e.g. 9007199254740993"):
        world.ingest(world.pipeline(policy), TUESDAY, [first, second, third])
    assert world.store.partitions("raw") == [MONDAY.key]


def test_a_column_without_values_has_any_type(contract_world: ContractWorld) -> None:
    world = contract_world
    world.ingest(world.pipeline(), MONDAY, rows())
    for empty in (float("nan"), None):
        world.ingest(world.pipeline("warn"), TUESDAY, rows(TUESDAY).assign(service=empty, weight=empty, insured=empty))
        assert world.kinds == ["null_share"] * 3
    found = world.store.read("raw", partitions=[TUESDAY.key])
    assert found[["service", "weight", "insured"]].isna().all(axis=None)


def test_whole_numbers_become_decimals_in_all_partitions_when_they_evolve(contract_world: ContractWorld) -> None:
    world = contract_world
    world.ingest(world.pipeline(), MONDAY, rows())
    before = world.store.version("raw")
    half = [0.5] * 40
    world.ingest(world.pipeline("evolve"), TUESDAY, rows(TUESDAY).assign(pieces=half))
    assert world.contract().columns["pieces"].type == "float64"
    found = world.store.read("raw")
    assert found["pieces"].tolist() == [*map(float, rows()["pieces"]), *half]
    assert found["id"].tolist() == [*rows()["id"], *rows(TUESDAY)["id"]]
    old = world.store.read("raw", version=before)
    assert old["pieces"].dtype == "int64" and old["pieces"].tolist() == rows()["pieces"].tolist()
    assert not world.ingest(world.pipeline(), MONDAY, rows()).changed


def test_a_column_evolves_in_type_and_in_missing_values_at_once(contract_world: ContractWorld) -> None:
    world = contract_world
    world.ingest(world.pipeline(), MONDAY, rows())
    frame = rows(TUESDAY).assign(pieces=[0.5, None] * 20)
    world.ingest(world.pipeline("evolve"), TUESDAY, frame)
    assert world.kinds == ["retyped"] and not world.ingest(world.pipeline("block"), TUESDAY, frame).changed


@pytest.mark.parametrize("column", ["late", "id"])
def test_a_key_or_label_never_evolves_into_another_type(contract_world: ContractWorld, column: str) -> None:
    world = contract_world
    number = rows().assign(id=range(40))
    world.ingest(world.pipeline(), MONDAY, number)
    with pytest.raises(Problems, match=f"{column}: must hold int64"):
        world.ingest(world.pipeline("evolve"), TUESDAY, rows(TUESDAY).assign(id=range(40)).assign(**{column: 0.5}))


def test_a_new_column_is_missing_in_old_partitions(contract_world: ContractWorld) -> None:
    world = contract_world
    first = world.ingest(world.pipeline(), MONDAY, rows())
    world.ingest(world.pipeline("evolve"), TUESDAY, rows(TUESDAY).assign(colour="red", size=[None] * 39 + [2]))
    found = world.store.read("raw")
    assert found["colour"].tolist() == [None] * 40 + ["red"] * 40
    assert world.contract().columns["colour"].categories is None  # nobody has said that it is not personal
    # Monday comes again as it was: without the columns, which are held to be there.
    with pytest.raises(Problems, match="colour: must be a column"):
        world.ingest(world.pipeline(), MONDAY, rows())
    again = world.ingest(world.pipeline("evolve"), MONDAY, rows())
    assert not again.changed and world.store.read("raw", version=first.version).shape == (40, 8)
    assert world.contract().columns["colour"].optional


def test_a_new_column_without_a_value_cannot_evolve(contract_world: ContractWorld) -> None:
    world = contract_world
    world.ingest(world.pipeline(), MONDAY, rows())
    with pytest.raises(Problems, match=r"colour: is not a column of the schema contract\. Got 'no value'"):
        world.ingest(world.pipeline("evolve"), TUESDAY, rows(TUESDAY).assign(colour=None))


def test_the_last_chunk_decides_and_nothing_is_visible_before(contract_world: ContractWorld) -> None:
    world = contract_world
    world.ingest(world.pipeline(), MONDAY, rows())
    version = world.store.version("raw")
    service = ["slow"] * 39 + ["express"]
    with pytest.raises(Problems, match="service: must hold one of its 2 categories"):
        world.ingest(world.pipeline(), TUESDAY, rows(TUESDAY).assign(service=service))
    assert world.store.version("raw") == version
    files = [*Path(world.store.uri("raw")).glob("partition=2026-01-06/*")]
    assert files == []


def test_a_tolerance_is_allowed_on_both_sides_of_the_null_share(contract_world: ContractWorld) -> None:
    world = contract_world
    world.ingest(world.pipeline(), MONDAY, rows())
    for share, kinds in ((0.2, []), (0.25, ["null_share"]), (0.0, [])):
        weight = [None] * int(40 * share) + [1.5] * (40 - int(40 * share))
        world.ingest(world.pipeline("warn"), TUESDAY, rows(TUESDAY).assign(weight=weight))
        assert world.kinds == kinds
    exact = world.pipeline(contract={"on_change": "warn", "null_tolerance": 0})
    world.ingest(exact, TUESDAY, rows(TUESDAY).assign(weight=1.5))  # all there, where some were always missing
    assert world.kinds == ["null_share"] and "10.00% to 10.00%" in world.enforcement.told[0]


def test_what_only_looks_like_a_new_name_is_two_changes(contract_world: ContractWorld) -> None:
    world = contract_world
    world.ingest(world.pipeline(), MONDAY, rows())
    for new, kinds in (
        ({"mass": rows()["weight"]}, ["renamed"]),  # the same numbers
        ({"depth": rows()["weight"] * 1000}, ["dropped", "added"]),
        ({"Weight": rows()["weight"] * 1000}, ["renamed"]),  # nearly the same name
        ({"Weight": "heavy"}, ["dropped", "added"]),  # of another type
        ({"a": 1.5, "b": rows()["weight"]}, ["renamed", "added"]),
    ):
        world.ingest(world.pipeline("warn"), TUESDAY, rows(TUESDAY).drop(columns="weight").assign(**new))
        assert world.kinds == kinds, new
    frame = rows(TUESDAY).rename(columns={"service": "kind_of_transport"})
    world.ingest(world.pipeline("warn"), TUESDAY, frame)
    assert world.enforcement.told == ["renamed: service -> kind_of_transport"]


def test_long_or_ever_new_texts_are_no_categories(contract_world: ContractWorld) -> None:
    world = contract_world
    texts = {"note": [f"note {number}" for number in range(40)], "essay": "x" * 1000}
    world.ingest(world.pipeline(), MONDAY, rows().assign(**texts))
    found = world.contract().columns
    assert found["note"].categories is None and found["essay"].categories is None
    assert found["service"].categories == ("fast", "slow")
    other = {"note": "another", "essay": "y" * 1000}
    world.ingest(world.pipeline(), TUESDAY, rows(TUESDAY).assign(**other))
    assert world.kinds == []


def test_many_new_categories_are_counted_and_not_listed(contract_world: ContractWorld) -> None:
    world = contract_world
    world.ingest(world.pipeline(), MONDAY, rows())
    frame = rows(TUESDAY, 400).assign(service=[f"service {number}" for number in range(400)])
    with pytest.raises(Problems, match=r"service: must hold one of its 2 categories\. Got 'too many to list'"):
        world.ingest(world.pipeline(), TUESDAY, chunked(frame, 40))
    world.ingest(world.pipeline("evolve"), TUESDAY, chunked(frame, 40))
    assert world.contract().columns["service"].categories is None


def test_an_empty_partition_says_nothing_about_the_contract(contract_world: ContractWorld) -> None:
    world = contract_world
    assert list(world.enforcement_of(world.pipeline(), MONDAY).conform([])) == []
    assert not world.file.exists()


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (rows().drop(columns=["late", "at"]), "late: must be a column, because it is the label of parcels"),
        (rows().assign(colour=None), "colour: must hold a value, because values give a column its type"),
        (rows().assign(at="noon"), "at: must hold times, as timestamps or in ISO 8601. Got 'string'"),
    ],
)
def test_from_what_no_contract_can_be_learnt(contract_world: ContractWorld, frame: pd.DataFrame, message: str) -> None:
    with pytest.raises((Problems, DataError), match=message):
        contract_world.ingest(contract_world.pipeline(), MONDAY, frame)
    assert not contract_world.file.exists() and contract_world.store.version("raw") is None


def test_a_column_given_twice_is_refused(contract_world: ContractWorld) -> None:
    table = pa.table([pa.array([1]), pa.array([2])], names=["id", "id"])
    with pytest.raises(DataError, match=r"raw\[2026-01-05\]: must have each column once"):
        contract_world.ingest(contract_world.pipeline(), MONDAY, [table])


@pytest.mark.parametrize("policy", POLICIES)
def test_no_value_of_a_personal_column_leaves_the_tables(
    contract_world: ContractWorld, caplog: pytest.LogCaptureFixture, policy: str
) -> None:
    caplog.set_level(logging.DEBUG)
    world = contract_world
    pii = {"pii": ["email", "phone"]}
    first = rows().assign(phone=range(4711_000, 4711_040))
    world.ingest(world.pipeline(**pii), MONDAY, first)
    bad = [
        rows(TUESDAY).assign(phone=[CANARY] * 40),  # retyped: the example
        rows(TUESDAY).rename(columns={"email": "mail"}).assign(phone=1),  # a new name that nobody declared
        rows(TUESDAY).drop(columns="email").assign(contact=CANARY, phone=1),
        rows(TUESDAY).assign(email=None, phone=0.5),
    ]
    told = []
    for frame in bad:
        try:
            world.ingest(world.pipeline(policy, **pii), TUESDAY, frame)
        except Problems as problems:
            told.append(str(problems))
        told += [*world.enforcement.told, world.page(TUESDAY), str(world.enforcement.changes)]
    everything = "\n".join([*told, world.file.read_text(), caplog.text])
    assert CANARY not in everything and "4711" not in everything.replace(CANARY, "")
    assert f"e.g. {MASK}" in everything
    assert CANARY in set(world.store.read("raw")["email"])


LEARNER = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from contract_world import ContractWorld, parse_key, rows
world = ContractWorld(Path(sys.argv[2]))
day = parse_key("day", sys.argv[3])
frame = rows(day)
if sys.argv[4] == "evolve":
    frame = frame.assign(service=[f"new {sys.argv[3]}"] * len(frame))
print("ready", flush=True)
sys.stdin.readline()
world.ingest(world.pipeline(sys.argv[4]), day, frame)
print(world.contract().learnt)
"""


def race(world: ContractWorld, policy: str, days: range) -> list[str]:
    """Lets processes ingest a day each at the same time, and returns what they say."""
    learners = [
        subprocess.Popen(
            [sys.executable, "-c", LEARNER, str(Path(__file__).parent), str(world.folder), f"2026-01-{day:02}", policy],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for day in days
    ]
    for learner in learners:
        assert learner.stdout is not None and learner.stdout.readline() == "ready\n"
    for learner in learners:
        assert learner.stdin is not None
        learner.stdin.write("go\n")
        learner.stdin.flush()
    return [learner.communicate(timeout=120)[0].strip() for learner in learners]


def test_of_many_learners_one_wins_and_the_others_are_held_to_it(contract_world: ContractWorld) -> None:
    world = contract_world
    said = race(world, "block", range(5, 13))
    assert len(set(said)) == 1 and said[0] == world.contract().learnt != ""
    assert len(world.store.partitions("raw")) == 8
    assert [file.name for file in world.file.parent.iterdir()] == [world.file.name]


def test_contracts_that_evolve_at_once_lose_no_change(contract_world: ContractWorld) -> None:
    world = contract_world
    world.ingest(world.pipeline(), MONDAY, rows())
    race(world, "evolve", range(6, 12))
    new = {f"new 2026-01-{day:02}" for day in range(6, 12)}
    assert set(world.contract().columns["service"].categories or ()) == {"fast", "slow", *new}
    assert {revision.partition for revision in world.contract().history} == {
        f"2026-01-{day:02}" for day in range(6, 12)
    }
    assert len(world.store.partitions("raw")) == 7


def test_a_learner_that_comes_second_with_other_columns_must_run_again(contract_world: ContractWorld) -> None:
    world = contract_world
    second = world.enforcement_of(world.pipeline(), TUESDAY)
    world.ingest(world.pipeline(), MONDAY, rows())
    with pytest.raises(ConflictError, match="was learnt from another partition meanwhile"):
        list(second.conform(chunked(rows(TUESDAY).drop(columns="weight"))))
    with pytest.raises(Problems, match="weight: must be a column"):
        world.ingest(world.pipeline(), TUESDAY, rows(TUESDAY).drop(columns="weight"))
