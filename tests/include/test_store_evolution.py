"""Tables that follow the rows written into them: new columns, and whole numbers that become decimals."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from airworthy.errors import DataError, Problems
from airworthy.partitions import Partition, parse_key
from airworthy.store import Store

FIRST, SECOND, THIRD = (parse_key("day", f"2026-01-0{day}") for day in (1, 2, 3))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path), "churn")


def rows(partition: Partition, **more: object) -> pd.DataFrame:
    return pd.DataFrame({"id": [f"{partition.key}/{n}" for n in range(4)], "count": range(4)}).assign(**more)


def test_a_column_comes_with_its_rows_in_one_commit(store: Store) -> None:
    first = store.write("raw", FIRST, rows(FIRST))
    ref = store.write("raw", SECOND, rows(SECOND, colour="red"), evolve=True)
    assert ref.version == first.version + 1 and ref.changed
    assert store.read("raw")["colour"].tolist() == [None] * 4 + ["red"] * 4
    assert "colour" not in store.read("raw", version=first.version)
    assert not store.write("raw", SECOND, rows(SECOND, colour="red"), evolve=True).changed
    assert not store.write("raw", FIRST, rows(FIRST, colour=pd.Series([None] * 4, dtype="str"))).changed


def test_whole_numbers_become_decimals_in_every_file_and_keep_their_order(store: Store) -> None:
    for partition in (FIRST, SECOND):
        store.write("raw", partition, rows(partition))
    old = store.version("raw")
    store.write("raw", THIRD, rows(THIRD, count=[0.5, 1, 2, 3]), evolve=True)
    found = store.read("raw")
    assert found["count"].tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0.5, 1, 2, 3]
    assert found["id"].tolist() == [*rows(FIRST)["id"], *rows(SECOND)["id"], *rows(THIRD)["id"]]
    table = DeltaTable(store.uri("raw"))
    assert {str(pq.read_schema(file).field("count").type) for file in table.file_uris()} == {"double"}
    assert store.read("raw", version=old)["count"].dtype == "int64"
    kept = table.metadata().configuration["delta.logRetentionDuration"]
    assert kept == "interval 36500 days" and [write.partition for write in store.history("raw")][-1] == THIRD.key
    assert not store.write("raw", FIRST, rows(FIRST)).changed


def test_other_readers_of_delta_see_the_table_that_followed(store: Store) -> None:
    store.write("raw", FIRST, rows(FIRST))
    store.write("raw", SECOND, rows(SECOND, count=0.5, colour="red"), evolve=True)
    arrow = DeltaTable(store.uri("raw")).to_pyarrow_dataset()  # noqa: F841  # DuckDB finds it by its name
    found = duckdb.sql("select sum(count), count(colour), count(*) from arrow").fetchall()
    assert found == [(6 + 2.0, 4, 8)]


def test_without_being_asked_a_table_follows_nothing(store: Store) -> None:
    store.write("raw", FIRST, rows(FIRST))
    for frame in (rows(SECOND, colour="red"), rows(SECOND, count=0.5)):
        with pytest.raises(Problems):
            store.write("raw", SECOND, frame)
    assert store.version("raw") == 1


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (rows(SECOND, count="many"), r"raw\[2026-01-02\]: count: must hold int64, as the table does"),
        (rows(SECOND, id=1), r"raw\[2026-01-02\]: id: must hold string, as the table does"),
        (rows(SECOND).drop(columns="count"), "count: is a column of the table, but missing here"),
        (rows(SECOND, colour=None), "colour: must hold a value"),
    ],
)
def test_what_a_table_cannot_follow_leaves_it_as_it_is(
    store: Store, tmp_path: Path, frame: pd.DataFrame, message: str
) -> None:
    store.write("raw", FIRST, rows(FIRST))
    files = sorted(tmp_path.rglob("*.parquet"))
    with pytest.raises((DataError, Problems), match=message):
        store.write("raw", SECOND, frame, evolve=True)
    assert store.version("raw") == 1 and sorted(tmp_path.rglob("*.parquet")) == files


def test_a_number_too_large_for_a_decimal_keeps_the_table_as_it_is(store: Store, tmp_path: Path) -> None:
    store.write("raw", FIRST, rows(FIRST, count=2**60 + 1))
    files = sorted(tmp_path.rglob("*.parquet"))
    with pytest.raises(Problems, match=r"raw\[2026-01-01\]: count: must hold double"):
        store.write("raw", SECOND, rows(SECOND, count=0.5), evolve=True)
    assert store.version("raw") == 1 and sorted(tmp_path.rglob("*.parquet")) == files


def test_a_table_follows_another_ones_types(store: Store) -> None:
    store.write("raw", FIRST, rows(FIRST, late=1))
    store.write("features", FIRST, rows(FIRST, late=1), like="raw")
    # A label that is not known yet turns a column of pandas into decimals, which the raw table knows better.
    store.write("features", SECOND, rows(SECOND, late=[1, None, 0, 1]), like="raw", evolve=True)
    assert pa.schema(DeltaTable(store.uri("features")).schema()).field("late").type == pa.int64()
    store.write("raw", SECOND, rows(SECOND, late=0.5, colour="red"), evolve=True)
    store.write("features", SECOND, rows(SECOND, late=[1, None, 0, 1], colour=None), like="raw", evolve=True)
    found = pa.schema(DeltaTable(store.uri("features")).schema())
    assert (found.field("late").type, found.field("colour").type) == (pa.float64(), pa.string())


WRITER = """
import sys
import pandas as pd
from airworthy.partitions import parse_key
from airworthy.store import Store
uri, key, kind = sys.argv[1:]
frame = pd.DataFrame({"id": [f"{key}/{n}" for n in range(4)], "count": range(4)})
frame = {"same": frame, "wide": frame.assign(count=frame["count"] + 0.5), "new": frame.assign(colour=key)}[kind]
print("ready", flush=True)
sys.stdin.readline()
print(Store(uri, "churn").write("raw", parse_key("day", key), frame, evolve=kind != "same").version)
"""


def test_writers_at_once_lose_nothing_while_the_table_changes(store: Store, tmp_path: Path) -> None:
    store.write("raw", FIRST, rows(FIRST))
    kinds = {"2026-01-02": "wide", "2026-01-03": "same", "2026-01-04": "wide", "2026-01-05": "wide"}
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), key, kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for key, kind in kinds.items()
    ]
    for writer in writers:
        assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    assert [writer.communicate(timeout=60)[0].strip().isdigit() for writer in writers] == [True] * len(kinds)
    found = store.read("raw", columns=["partition", "count"])
    sums = {FIRST.key: 6.0} | {key: 8.0 if kind == "wide" else 6.0 for key, kind in kinds.items()}
    assert found.groupby("partition")["count"].sum().to_dict() == sums
    listed = {Path(uri).name for uri in DeltaTable(store.uri("raw")).file_uris()}
    assert len(listed) == 5


def test_columns_that_differ_in_case_only_are_refused(store: Store) -> None:
    with pytest.raises(DataError, match=r"once; the tables do not tell upper from lower case. Got \['N', 'n'\]"):
        store.write("raw", FIRST, pa.table({"n": [1], "N": [2]}))
    store.write("raw", FIRST, pa.table({"n": [1]}))
    with pytest.raises(DataError, match=r"must not get a column that differs in upper and lower case only"):
        store.write("raw", SECOND, pa.table({"N": [2]}), evolve=True)
