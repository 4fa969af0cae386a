from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from hypothesis import given, settings
from hypothesis import strategies as st

from airworthy.errors import AirworthyError, DataError, Problems
from airworthy.partitions import Partition, parse_key
from airworthy.store import Store, TableRef

FIRST, SECOND, THIRD = (parse_key("day", f"2026-01-0{day}") for day in (1, 2, 3))


def rows(partition: Partition, count: int = 5, shift: float = 0.0) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "at": pd.date_range(partition.start, periods=count, freq="h"),
            "id": [f"{partition.key}/{number}" for number in range(count)],
            "size": [None if number == 1 else number + shift for number in range(count)],
            "count": range(count),
            "open": [number % 2 == 0 for number in range(count)],
        }
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path), "churn")


def test_what_is_written_is_read_back_in_order(store: Store) -> None:
    frame = rows(FIRST).iloc[::-1]
    ref = store.write("raw", FIRST, frame)
    assert (ref.table, ref.partition, ref.version, ref.rows, ref.changed) == ("raw", FIRST.key, 1, 5, True)
    found = store.read("raw")
    pd.testing.assert_frame_equal(found, frame.reset_index(drop=True), check_dtype=False)
    assert dict(found.dtypes.astype(str)) == {
        "at": "datetime64[us, UTC]",
        "id": "object",
        "size": "float64",
        "count": "int64",
        "open": "bool",
    }


def test_the_same_content_is_not_written_twice(store: Store) -> None:
    first = store.write("raw", FIRST, rows(FIRST))
    store.write("raw", SECOND, rows(SECOND))
    again = store.write("raw", FIRST, rows(FIRST))
    assert again == first.model_copy(update={"version": 2, "changed": False})
    assert store.version("raw") == 2


def test_a_partition_is_replaced_and_its_old_version_stays_readable(store: Store) -> None:
    old = store.write("raw", FIRST, rows(FIRST))
    store.write("raw", SECOND, rows(SECOND))
    new = store.write("raw", FIRST, rows(FIRST, 3, shift=0.5))
    assert new.changed and new.digest != old.digest
    assert len(store.read("raw")) == 8
    assert len(store.read("raw", partitions=[FIRST.key])) == 3
    assert len(store.read("raw", partitions=[FIRST.key], version=old.version)) == 5


def test_rows_come_by_partition_whatever_the_order_of_writing(store: Store) -> None:
    for partition in (THIRD, FIRST, SECOND):
        store.write("raw", partition, rows(partition))
    keys = store.read("raw", columns=["partition", "id"])
    assert keys["partition"].is_monotonic_increasing and keys["id"].is_monotonic_increasing
    assert store.partitions("raw") == [FIRST.key, SECOND.key, THIRD.key]
    assert store.has("raw", SECOND.key) and not store.has("raw", "2026-02-01")


def test_order_survives_many_rows(store: Store) -> None:
    count = 1_500_000
    store.write("raw", FIRST, pd.DataFrame({"number": np.random.default_rng(0).permutation(count)}))
    assert np.array_equal(store.read("raw")["number"].to_numpy(), np.random.default_rng(0).permutation(count))


def test_between_is_half_open(store: Store) -> None:
    for partition in (FIRST, SECOND):
        store.write("raw", partition, rows(partition))
    window = (FIRST.start + timedelta(hours=1), SECOND.start + timedelta(hours=1))
    found = store.read("raw", between=window, time="at", columns=["id"])
    assert list(found["id"]) == [f"{FIRST.key}/{n}" for n in range(1, 5)] + [f"{SECOND.key}/0"]
    naive = tuple(moment.replace(tzinfo=None) for moment in window)
    assert store.read("raw", between=naive, time="at", columns=["id"]).equals(found)  # type: ignore[arg-type]


def test_a_chunk_without_rows_hides_no_others(store: Store) -> None:
    chunk = pa.Table.from_pandas(rows(FIRST), preserve_index=False)
    store.write("raw", FIRST, iter([chunk.slice(0, 0), chunk, chunk.slice(0, 0)]))
    assert len(store.read("raw", between=(FIRST.start, FIRST.end), time="at")) == 5


def test_an_empty_frame_empties_the_partition(store: Store) -> None:
    store.write("raw", FIRST, rows(FIRST))
    store.write("raw", SECOND, rows(SECOND))
    ref = store.write("raw", FIRST, rows(FIRST).iloc[:0])
    assert ref.changed and ref.rows == 0 and store.partitions("raw") == [SECOND.key]
    assert not store.write("raw", FIRST, rows(FIRST).iloc[:0]).changed
    assert list(store.read("raw", partitions=[FIRST.key]).columns) == list(rows(FIRST).columns)


def test_an_empty_frame_cannot_create_a_table(store: Store) -> None:
    with pytest.raises(DataError, match=r"raw\[2026-01-01\]: must hold rows"):
        store.write("raw", FIRST, rows(FIRST).iloc[:0])
    assert store.version("raw") is None


def test_every_difference_of_columns_is_named(store: Store) -> None:
    store.write("raw", FIRST, rows(FIRST))
    wrong = rows(SECOND).drop(columns="open").assign(colour="red")
    with pytest.raises(Problems) as raised:
        store.write("raw", SECOND, wrong)
    assert [problem.where for problem in raised.value.problems] == ["raw[2026-01-02]: open", "raw[2026-01-02]: colour"]
    with pytest.raises(Problems) as raised:
        store.write("raw", SECOND, rows(SECOND).assign(id=1, open="yes", count=0.5))
    assert str(raised.value).splitlines()[0] == (
        "raw[2026-01-02]: id: must hold string, as the table does. Got 'int64'."
    )
    assert len(raised.value.problems) == 3
    assert store.partitions("raw") == [FIRST.key]


def test_numbers_conform_when_nothing_is_lost(store: Store) -> None:
    store.write("raw", FIRST, rows(FIRST))
    ref = store.write("raw", SECOND, rows(SECOND).astype({"count": "float32", "size": "float32"}))
    assert ref.digest == store.write("raw", SECOND, rows(SECOND)).digest
    missing = rows(THIRD).assign(count=[None, 1, 2, 3, 4], id=None, open=None)
    store.write("raw", THIRD, missing)
    found = store.read("raw", partitions=[THIRD.key])
    assert found["count"].isna().sum() == 1 and found["id"].isna().all() and found["open"].isna().all()


def test_categories_and_other_time_units_are_normalised(store: Store) -> None:
    plain = rows(FIRST)
    fancy = plain.assign(id=plain["id"].astype("category"), at=plain["at"].dt.tz_convert("Asia/Tokyo").dt.as_unit("s"))
    digest = store.write("raw", FIRST, plain).digest
    assert store.write("raw", FIRST, fancy) == TableRef(
        table="raw", partition=FIRST.key, version=1, rows=5, digest=digest, changed=False
    )


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"size": [1, "a", 2, 3, 4]}, r"raw\[2026-01-01\]: size: must hold values of one type"),
        ({"size": [None] * 5}, r"size: must hold a value, because the first partition gives a column its type"),
        ({"partition": 1}, r"must not have a column named 'partition'"),
    ],
)
def test_columns_that_cannot_be_stored(store: Store, columns: dict[str, object], message: str) -> None:
    with pytest.raises(AirworthyError, match=message):
        store.write("raw", FIRST, rows(FIRST).assign(**columns))


def test_a_new_table_takes_types_from_the_table_it_is_like(store: Store) -> None:
    store.write("raw", FIRST, rows(FIRST))
    store.write("quarantine", FIRST, rows(FIRST).assign(id=None, count=1.0, failed="x"), like="raw")
    store.write("quarantine", SECOND, rows(SECOND).assign(failed="y"))
    assert store.read("quarantine", partitions=[SECOND.key])["id"].tolist() == rows(SECOND)["id"].tolist()


def test_what_does_not_exist_is_named(store: Store) -> None:
    with pytest.raises(DataError, match=r"raw: must exist at .*churn/raw"):
        store.read("raw")
    assert store.version("raw") is None and store.partitions("raw") == [] and not store.has("raw", FIRST.key)
    store.write("raw", FIRST, rows(FIRST))
    with pytest.raises(DataError, match="raw, version 7: must be a readable Delta table"):
        store.read("raw", version=7)
    with pytest.raises(DataError, match="raw: must have the columns asked for"):
        store.read("raw", columns=["colour"])


def test_old_versions_are_kept_for_good(store: Store) -> None:
    store.write("raw", FIRST, rows(FIRST))
    kept = DeltaTable(store.uri("raw")).metadata().configuration["delta.logRetentionDuration"]
    assert kept == "interval 36500 days"


WRITER = """
import sys
import pandas as pd
import pyarrow as pa
from airworthy.partitions import parse_key
from airworthy.store import Store
uri, key, file = sys.argv[1:]
frame = pd.read_pickle(file)
print("ready", flush=True)
sys.stdin.readline()
print(Store(uri, "churn").write("raw", parse_key("day", key), frame).model_dump_json())
"""


def race(folder: Path, jobs: list[tuple[Partition, float]]) -> list[TableRef]:
    """Lets processes write at the same time, and returns what each of them got."""
    writers = []
    for number, (partition, shift) in enumerate(jobs):
        file = folder / f"{number}.pickle"
        rows(partition, 200, shift).to_pickle(file)
        # Not forked: a fork of a process that has used deltalake hangs, waiting for threads it did not inherit.
        command = [sys.executable, "-c", WRITER, str(folder / "store"), partition.key, str(file)]
        writers.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
    for writer in writers:
        assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    return [TableRef.model_validate_json(writer.communicate(timeout=60)[0]) for writer in writers]


def test_writers_of_one_partition_leave_one_result(tmp_path: Path) -> None:
    refs = race(tmp_path, [(FIRST, 0.0)] * 6)
    assert len({ref.digest for ref in refs}) == 1
    assert sum(ref.changed for ref in refs) == 1
    assert len(Store(str(tmp_path / "store"), "churn").read("raw")) == 200


def test_writers_of_different_content_leave_one_of_it_whole(tmp_path: Path) -> None:
    refs = race(tmp_path, [(FIRST, float(number)) for number in range(6)])
    store = Store(str(tmp_path / "store"), "churn")
    for ref in refs:
        assert store.write("raw", SECOND, store.read("raw", version=ref.version)).digest == ref.digest


def test_writers_of_different_partitions_all_commit(tmp_path: Path) -> None:
    keys = [f"2026-01-{day:02d}" for day in range(1, 9)]
    race(tmp_path, [(parse_key("day", key), 0.0) for key in keys])
    assert Store(str(tmp_path / "store"), "churn").partitions("raw") == keys


CELLS = {
    "text": st.one_of(st.none(), st.text()),
    "real": st.one_of(st.none(), st.floats(allow_infinity=True)),
    "whole": st.integers(-(2**63), 2**63 - 1),
    "flag": st.one_of(st.none(), st.booleans()),
    "when": st.datetimes(
        datetime.fromisoformat("1700-01-01"), datetime.fromisoformat("2200-01-01"), timezones=st.just(UTC)
    ),
}
TYPES = {"text": "object", "real": "float64", "whole": "int64", "flag": "object", "when": "datetime64[us, UTC]"}


@settings(max_examples=60)
@given(st.lists(st.tuples(*CELLS.values()), min_size=1, max_size=12))
def test_rereading_and_writing_any_content_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, cells: list[tuple[object, ...]]
) -> None:
    store = Store(str(tmp_path_factory.mktemp("any")), "churn")
    store.write("raw", FIRST, pd.DataFrame([("a", 1.5, 1, True, datetime(2026, 1, 1, tzinfo=UTC))], columns=[*CELLS]))
    ref = store.write("raw", SECOND, pd.DataFrame(cells, columns=[*CELLS]).astype(TYPES))
    again = store.write("raw", SECOND, store.read("raw", partitions=[SECOND.key]))
    assert again == ref.model_copy(update={"changed": False})


def halves(partition: Partition) -> list[pa.Table]:
    """Returns the rows of `rows` in chunks whose types differ, as a source that reads in chunks gives them."""
    whole = pa.Table.from_pandas(rows(partition))
    first, last = whole.slice(0, 1), whole.slice(1)
    return [first.set_column(2, "size", pa.nulls(1)), last]


def test_how_rows_are_chunked_does_not_matter(store: Store) -> None:
    whole = pa.Table.from_pandas(rows(FIRST))
    ref = store.write("raw", FIRST, iter([whole]))
    assert ref.digest == store.write("raw", FIRST, (whole.slice(row, 1) for row in range(5))).digest
    assert ref.digest == store.write("raw", FIRST, rows(FIRST)).digest
    assert store.version("raw") == 1


def test_the_chunks_of_a_new_table_decide_on_its_types_together(store: Store) -> None:
    chunks = [pa.table({"n": values}) for values in ([None], [1, 2], [0.5], [3])]
    store.write("raw", FIRST, iter(chunks))
    assert store.read("raw")["n"].tolist()[1:] == [1.0, 2.0, 0.5, 3.0]
    with pytest.raises(
        DataError, match=r"other\[2026-01-01\]: n: must hold values of one type. Got 'int64 and string'"
    ):
        store.write("other", FIRST, iter([pa.table({"n": [1]}), pa.table({"n": ["a"]})]))
    assert store.version("other") is None


def test_chunks_that_end_with_an_exception_leave_nothing(store: Store, tmp_path: Path) -> None:
    store.write("raw", FIRST, rows(FIRST))
    files = sorted(tmp_path.rglob("*.parquet"))

    def broken() -> Iterator[pa.Table]:
        yield pa.Table.from_pandas(rows(FIRST, shift=1.0))
        raise DataError("source", "broke")

    with pytest.raises(DataError, match="source: broke"):
        store.write("raw", FIRST, broken())
    assert store.version("raw") == 1 and sorted(tmp_path.rglob("*.parquet")) == files


def test_rows_that_were_committed_before_an_error_stay(store: Store) -> None:
    """A checkpoint is written after the commit; here it cannot be, as on a full disk."""
    store.write("raw", FIRST, rows(FIRST))
    DeltaTable(store.uri("raw")).alter.set_table_properties({"delta.checkpointInterval": "1"})
    version = store.version("raw")
    assert version is not None
    Path(store.uri("raw"), "_delta_log", f"{version + 1:020}.checkpoint.parquet").mkdir()
    with pytest.raises(DeltaError):
        store.write("raw", SECOND, rows(SECOND))
    assert len(store.read("raw", partitions=[SECOND.key])) == 5
    assert not store.write("raw", SECOND, rows(SECOND)).changed


def test_what_cannot_be_written_says_why(store: Store, tmp_path: Path) -> None:
    store.write("raw", FIRST, rows(FIRST))
    Path(store.uri("raw"), f"partition={SECOND.key}").write_text("in the way of the folder")
    with pytest.raises(OSError, match=r"(?i)not a directory|file exists"):
        store.write("raw", SECOND, rows(SECOND))


def test_unchanged_content_leaves_no_file_behind(store: Store, tmp_path: Path) -> None:
    store.write("raw", FIRST, rows(FIRST))
    store.write("raw", FIRST, rows(FIRST))
    assert len(list(tmp_path.rglob("*.parquet"))) == 1


def test_history_tells_every_write_and_what_it_was_made_of(store: Store) -> None:
    assert store.history("raw") == []
    first = store.write("raw", FIRST, rows(FIRST), facts={"origins": [{"name": "a.csv"}]})
    store.write("raw", SECOND, rows(SECOND))
    store.write("raw", FIRST, rows(FIRST))  # changes nothing
    last = store.write("raw", FIRST, rows(FIRST, 3))
    found = store.history("raw")
    assert [(one.partition, one.version, one.rows) for one in found] == [
        (FIRST.key, 1, 5),
        (SECOND.key, 2, 5),
        (FIRST.key, 3, 3),
    ]
    assert found[0].digest == first.digest and found[2].digest == last.digest
    assert found[0].facts == {"origins": [{"name": "a.csv"}]} and found[1].facts == {}
    assert datetime.now(UTC) - timedelta(minutes=5) < found[2].at <= datetime.now(UTC)


def test_files_that_cannot_hold_a_time_are_not_read(store: Store) -> None:
    for partition in (FIRST, SECOND):
        store.write("raw", partition, rows(partition))
    window = {"between": (SECOND.start, SECOND.end), "time": "at"}
    (lost,) = [file for file in Path(store.uri("raw")).rglob("*.parquet") if FIRST.key in str(file)]
    lost.unlink()
    assert len(store.read("raw", **window)) == 5  # type: ignore[arg-type]


STREAM = """
import resource, sys
import numpy, pyarrow
from airworthy.content import chunks
from airworthy.partitions import parse_key
from airworthy.store import Store
store, day = Store(sys.argv[1], "churn"), parse_key("day", "2026-01-01")
def rows():
    random = numpy.random.default_rng(0)
    for _ in range(20):
        yield pyarrow.table({f"c{n}": random.normal(size=50_000) for n in range(50)})
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
store.write("raw", day, rows())
assert not store.write("raw", day, rows()).changed
count = sum(len(chunk) for chunk in chunks(store.scan("raw")))
print(count, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_a_partition_larger_than_what_it_takes_to_write_and_read_it(tmp_path: Path) -> None:
    found = subprocess.run([sys.executable, "-c", STREAM, str(tmp_path)], capture_output=True, text=True, check=True)
    count, grown = map(int, found.stdout.split())
    assert count == 1_000_000 and grown < 300  # MB; the rows take 400


APPENDER = """
import sys
import pyarrow as pa
from airworthy.partitions import parse_key
from airworthy.store import Store
uri, key, number = sys.argv[1:]
print("ready", flush=True)
sys.stdin.readline()
Store(uri, "churn").append("log", parse_key("day", key).key, pa.table({"number": [int(number)]}))
"""


def test_what_several_writers_append_at_once_is_all_kept(tmp_path: Path) -> None:
    command = [sys.executable, "-c", APPENDER, str(tmp_path), FIRST.key]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    writers = [subprocess.Popen([*command, str(number)], **pipes, text=True) for number in range(6)]
    for writer in writers:
        assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    assert [writer.wait(timeout=60) for writer in writers] == [0] * 6
    found = Store(str(tmp_path), "churn")
    assert sorted(found.read("log", partitions=[FIRST.key])["number"]) == list(range(6))
    assert found.history("log") == []
