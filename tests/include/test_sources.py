"""Every kind of source: the rows it gives, what it says they came from, and what it refuses."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
import sqlalchemy as sa
from deltalake import write_deltalake
from pydantic import ValidationError

from airworthy import kinds
from airworthy.columns import conform
from airworthy.config import load_pipeline
from airworthy.connections import from_environment
from airworthy.errors import ConfigError, DataError, Problems, ServiceError
from airworthy.partitions import parse_key
from airworthy.profile import ROOT
from airworthy.sources import Extracted, Source
from airworthy.stages.ingest import ingest
from airworthy.store import Store
from parcels import DAY, NEXT_DAY, World, parcels, world

__all__ = ["world"]

WEEK = parse_key("week", "2013-07-01")
QUERY = "select * from flights where time_hour >= :start and time_hour < :end order by time_hour, flight_id"


def source(kind: str, **fields: Any) -> Source:
    found = kinds.parse("sources", {kind: fields})
    assert isinstance(found, Source)
    return found


def files(pattern: str | Path, **fields: Any) -> Source:
    return source("files", glob=str(pattern), **fields)


def extract(found: Source, partition: Any = DAY) -> Extracted:
    return found.extract(partition, from_environment)


def rows(found: Source, partition: Any = DAY) -> pd.DataFrame:
    return extract(found, partition).frame()


# --- The same week of flights from everywhere


@pytest.fixture(scope="module")
def week(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    pytest.importorskip("pipelines.flight_delays")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("AIRWORTHY_HOME", str(tmp_path_factory.mktemp("home")))
        flights = load_pipeline(ROOT / "config" / "pipelines" / "flight_delays.yaml")
        return pa.concat_tables(extract(flights.source, WEEK).rows, promote_options="permissive")


def as_files(suffix: str) -> Callable[[pd.DataFrame, Path], Source]:
    """Returns what writes a frame as two files of a format, and the source of them."""

    def write(frame: pd.DataFrame, folder: Path) -> Source:
        for number, half in enumerate((frame.iloc[: len(frame) // 3], frame.iloc[len(frame) // 3 :])):
            file = folder / f"{WEEK.key}-{number}{suffix}"
            if suffix == ".parquet":
                half.to_parquet(file, index=False, row_group_size=500)
            elif suffix.startswith(".csv"):
                half.to_csv(file, index=False)
            else:
                lines = [json.dumps(record, default=str) for record in _records(half)]
                content = "\n".join(lines).encode()
                file.write_bytes(gzip.compress(content) if suffix.endswith(".gz") else content)
        return files(folder / ("{partition}-*" + suffix), max_cell=1 << 16)

    return write


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return frame.astype(object).where(frame.notna(), None).to_dict("records")


def in_sqlite(frame: pd.DataFrame, folder: Path) -> Source:
    url = f"sqlite:///{folder}/flights.db"
    everything = pd.concat([frame, frame.assign(time_hour=frame["time_hour"] + pd.Timedelta("7 days"))])
    everything.to_sql("flights", sa.create_engine(url), index=False)
    return source("sql", url=url, query=QUERY, chunk_rows=1000)


def in_delta(frame: pd.DataFrame, folder: Path) -> Source:
    write_deltalake(str(folder / "table"), pa.Table.from_pandas(frame, preserve_index=False))
    later = frame.assign(time_hour=frame["time_hour"] + pd.Timedelta("7 days"))
    write_deltalake(str(folder / "table"), pa.Table.from_pandas(later, preserve_index=False), mode="append")
    return source("delta", uri=str(folder / "table"), time="time_hour")


SUFFIXES = (".csv", ".csv.gz", ".parquet", ".jsonl", ".jsonl.gz", ".ndjson")


@pytest.mark.parametrize("write", [*map(as_files, SUFFIXES), in_sqlite, in_delta], ids=[*SUFFIXES, "sql", "delta"])
def test_every_source_gives_the_same_week(week: pa.Table, tmp_path: Path, write: Any) -> None:
    found = extract(write(week.to_pandas(), tmp_path), WEEK)
    chunks = list(found.rows)
    assert found.origins
    whole = pa.concat_tables(chunks, promote_options="permissive")
    assert conform("week", whole, week.schema).combine_chunks().equals(week.combine_chunks())
    untimed = [field for field in week.schema if field.name != "time_hour"]
    assert [whole.schema.field(field.name) for field in untimed] == untimed


def test_origins_tell_contents_apart(tmp_path: Path) -> None:
    file = tmp_path / f"{DAY.key}.csv"
    parcels().to_csv(file, index=False)
    found = files(tmp_path / "{partition}.csv")
    (before,) = extract(found).origins
    content = file.read_bytes()
    assert (before.name, before.version, before.size) == (str(file), hashlib.sha256(content).hexdigest(), len(content))
    file.write_bytes(content + b"\n")
    assert extract(found).origins[0].version != before.version


def test_the_version_of_a_delta_table_is_pinned(tmp_path: Path) -> None:
    write_deltalake(str(tmp_path), pa.Table.from_pandas(parcels()))
    found = extract(source("delta", uri=str(tmp_path), time="at"))
    write_deltalake(str(tmp_path), pa.Table.from_pandas(parcels()), mode="append")
    assert (found.origins[0].version, len(found.frame())) == ("0", 10)


# --- Files


def test_parquet_files_are_read_in_order_of_their_names(tmp_path: Path) -> None:
    whole = parcels(30)
    for number in (2, 0, 1):
        whole.iloc[10 * number : 10 * number + 10].to_parquet(tmp_path / f"{DAY.key}-{number}.parquet")
    whole.to_parquet(tmp_path / "2026-01-06-0.parquet")
    found = files(tmp_path / "{partition}-*.parquet")
    pd.testing.assert_frame_equal(rows(found), whole, check_dtype=False)


def test_a_pattern_is_relative_to_the_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airworthy.places.ROOT", tmp_path)
    (tmp_path / "data" / DAY.key).mkdir(parents=True)
    parcels().to_parquet(tmp_path / "data" / DAY.key / "part.parquet")
    assert len(rows(files("data/{partition}/*.parquet"))) == 10
    with pytest.raises(DataError, match=r"^data/2026-01-05/\*\.csv: must match at least one file"):
        extract(files("data/{partition}/*.csv"))


def test_files_of_different_columns_are_not_mixed(tmp_path: Path) -> None:
    parcels().to_parquet(tmp_path / f"{DAY.key}-a.parquet")
    parcels().drop(columns="weight").to_parquet(tmp_path / f"{DAY.key}-b.parquet")
    with pytest.raises(Problems, match=r"-b\.parquet: must have the same columns as .*-a\.parquet\. Got \['weight'\]"):
        extract(files(tmp_path / "{partition}-*.parquet"))


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / f"{DAY.key}.csv"
    parcels().to_csv(file, index=False)
    found = extract(files(tmp_path / "{partition}.csv"))
    file.write_text(file.read_text() + "\n")
    with pytest.raises(DataError, match=r"must not change while it is read\. Run the task again"):
        list(found.rows)


def test_a_file_is_there_once_it_is_there(tmp_path: Path) -> None:
    found = files(tmp_path / "{partition}.csv")
    marked = files(tmp_path / "{partition}.csv", ready=str(tmp_path / "{partition}.done"))
    assert not found.available(DAY, from_environment)
    (tmp_path / f"{DAY.key}.csv").write_text("a\n1\n")
    assert found.available(DAY, from_environment) and not marked.available(DAY, from_environment)
    (tmp_path / f"{DAY.key}.done").touch()
    assert marked.available(DAY, from_environment)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"glob": "data/all.parquet"}, r"must contain \{partition\}"),
        ({"glob": "data/{partition}.xlsx"}, "must end with .parquet, .csv, .csv.gz, .jsonl, .jsonl.gz, .ndjson or"),
        ({"glob": "data/{partition}.csv", "ready": "data/done"}, r"must contain \{partition\}"),
        ({"glob": "data/{partition}.csv", "connection": "aws_default"}, "is for files on s3://"),
    ],
)
def test_a_pattern_that_cannot_work_is_refused(fields: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        source("files", **fields)


# --- SQL


@pytest.fixture
def database(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path}/parcels.db"
    both = pd.concat([parcels(), parcels(partition=NEXT_DAY)])
    both.to_sql("parcels", sa.create_engine(url), index=False)
    return url


IN_DAY = "from parcels where at >= :start and at < :end order by at"


def test_a_query_gets_the_partition_bound(database: str) -> None:
    found = rows(source("sql", url=database, query=f"select *, :partition as key {IN_DAY}"))
    assert found["id"].tolist() == parcels()["id"].tolist() and set(found["key"]) == {DAY.key}


def test_types_do_not_depend_on_the_chunk(world: World, database: str) -> None:
    """Whole numbers, then nothing, then decimals: each alone in its chunk."""
    small, none = "case when weight < 3 then cast(weight as int)", "when weight < 5 then null"
    query = f"select *, {small} {none} else weight end w {IN_DAY}"
    expected = [value if not 3 <= value < 5 else None for value in parcels()["weight"]]
    digests = set()
    for size in (1, 3, 10):
        declared = {"sql": {"url": database, "query": query, "chunk_rows": size}}
        ref = ingest(world.pipeline(source=declared), DAY, store := Store(str(world.folder / str(size)), "parcels"))
        assert store.scan("raw").to_table()["w"].equals(pa.chunked_array([pa.array(expected, pa.float64())]))
        digests.add(ref.digest)
    assert len(digests) == 1


def test_a_column_of_several_types_is_named(world: World, database: str) -> None:
    query = f"select *, case when weight < 3 then weight else service end mixed {IN_DAY}"
    declared = {"sql": {"url": database, "query": query, "chunk_rows": 1}}
    with pytest.raises(DataError, match=r"^raw\[2026-01-05\]: mixed: must hold values of one type. Got 'double"):
        ingest(world.pipeline(source=declared), DAY, Store(str(world.folder), "parcels"))
    with pytest.raises(DataError, match=r"mixed: must hold values of one type.*Cast it in the query"):
        rows(source("sql", url=database, query=query))


def test_a_query_without_rows_still_has_columns(database: str) -> None:
    (chunk,) = extract(
        source("sql", url=database, query=f"select id, late {IN_DAY}"), parse_key("day", "2027-01-01")
    ).rows
    assert chunk.num_rows == 0 and chunk.column_names == ["id", "late"]


def test_rows_of_a_query_are_awaited(database: str) -> None:
    found = source("sql", url=database, query=f"select * {IN_DAY}")
    assert found.available(DAY, from_environment)
    assert not found.available(parse_key("day", "2027-01-01"), from_environment)
    count = "select count(*) >= 11 from parcels where at >= :start and at < :end"
    assert not source("sql", url=database, query=f"select * {IN_DAY}", ready=count).available(DAY, from_environment)


def test_a_connection_is_named_by_its_id(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = source("sql", connection="warehouse", query=f"select * {IN_DAY}")
    with pytest.raises(ConfigError, match=r"connection warehouse: must be defined.*AIRFLOW_CONN_WAREHOUSE"):
        extract(found)
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps({"conn_type": "sqlite", "host": database[10:]}))
    assert len(rows(found)) == 10


@pytest.mark.parametrize(
    ("query", "error", "message"),
    [
        ("select * from nowhere where :start < :end", DataError, r"sql\[2026-01-05\]: the database must understand"),
        ("selct :start", DataError, "the database must understand the query.*syntax error"),
    ],
)
def test_a_query_that_fails_says_why(database: str, query: str, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        rows(source("sql", url=database, query=query))


def test_a_database_that_does_not_answer_is_worth_a_retry(tmp_path: Path) -> None:
    found = source("sql", url=f"sqlite:///{tmp_path}/no/such.db", query="select :start")
    with pytest.raises(ServiceError, match=r"the database must answer.*unable to open"):
        rows(found)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"url": "sqlite://", "query": "select 1"}, "must use :start and :end, or :partition"),
        ({"url": "sqlite://", "query": "select :start, :day"}, "has the parameters :start, :end and :partition only"),
        ({"url": "sqlite://", "query": "select '1'::text, :start", "connection": "x"}, "one of the two"),
        ({"query": "select :start"}, "one of the two"),
        ({"url": "postgresql://me:hunter2@db/x", "query": "select :start"}, "must not hold a password"),
        ({"url": "postgresql://db/x?password=hunter2", "query": "select :start"}, "must not hold a password"),
        ({"url": "warehouse", "query": "select :start"}, "must be a SQLAlchemy URL"),
    ],
)
def test_a_query_that_cannot_work_is_refused(fields: dict[str, str], message: str) -> None:
    with pytest.raises(ValidationError, match=message) as raised:
        source("sql", **fields)
    told = [error.get("ctx", {}).get("got", "") for error in raised.value.errors()]
    assert "hunter2" not in str(told)


# --- Delta tables


def test_a_table_that_is_not_there_is_named(tmp_path: Path) -> None:
    found = source("delta", uri=str(tmp_path / "none"), time="at")
    assert not found.available(DAY, from_environment)
    with pytest.raises(DataError, match="none: must be a Delta table"):
        rows(found)


def test_rows_of_a_table_are_awaited(tmp_path: Path) -> None:
    write_deltalake(str(tmp_path), pa.Table.from_pandas(parcels()))
    found = source("delta", uri=str(tmp_path), time="at")
    assert found.available(DAY, from_environment) and not found.available(NEXT_DAY, from_environment)


@pytest.mark.parametrize(("time", "message"), [("when", "when: must be a column"), ("id", "id: must hold timestamps")])
def test_the_time_column_of_a_table_must_be_one(tmp_path: Path, time: str, message: str) -> None:
    write_deltalake(str(tmp_path), pa.Table.from_pandas(parcels()))
    with pytest.raises(DataError, match=message):
        rows(source("delta", uri=str(tmp_path), time=time))


# --- Python


def test_a_function_gets_the_partition_in_utc(world: World) -> None:
    code = (
        "import pandas\ndef extract(start, end):\n"
        "    return pandas.DataFrame({'start': [start.isoformat()], 'end': [end.isoformat()]})\n"
    )
    found = rows(world.pipeline(code).source)
    assert found.iloc[0].tolist() == ["2026-01-05T00:00:00+00:00", "2026-01-06T00:00:00+00:00"]


def test_a_function_may_give_chunks(world: World) -> None:
    code = (
        "import pandas\ndef extract(start, end):\n"
        "    for value in (1, None, 2.5):\n        yield pandas.DataFrame({'value': [value]})\n"
    )
    chunks = list(extract(world.pipeline(code).source).rows)
    assert [chunk["value"].to_pylist() for chunk in chunks] == [[1], [None], [2.5]]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return [1]", "must return a pandas DataFrame, or an iterator of DataFrames. Got 'list'."),
        ("return None", "must return a pandas DataFrame, or an iterator of DataFrames. Got 'NoneType'."),
        (
            "raise ConnectionError('the warehouse is closed')",
            "must not raise, but raised ConnectionError: the warehouse is closed. Line 2",
        ),
        ("yield 1", "must give pandas DataFrames only. Got 'int'."),
        (
            "yield __import__('pandas').DataFrame({'a': [1]})\n    raise ConnectionError('lost')",
            "must not raise, but raised ConnectionError: lost. Line 3",
        ),
        (
            "yield __import__('pandas').DataFrame({'a': [1]})\n    yield __import__('pandas').DataFrame({'b': [1]})",
            "must give the same columns in every chunk. Got ['a', 'b']",
        ),
        ("return __import__('pandas').DataFrame({'a': [1, 'secret']})", "a: must hold values of one type. Got "),
        (
            "return __import__('pandas').DataFrame({'a': [[1]]})",
            "a: must hold numbers, text, bools or times. Got 'list",
        ),
    ],
)
def test_a_function_that_gives_no_rows_is_named(world: World, body: str, message: str) -> None:
    pipeline = world.pipeline(f"def extract(start, end):\n    {body}\n")
    with pytest.raises((DataError, Problems)) as raised:
        rows(pipeline.source)
    assert message in str(raised.value) and ":extract" in str(raised.value) and "secret" not in str(raised.value)


def test_a_function_that_is_not_in_its_module_is_named(world: World) -> None:
    module = world.module("")
    pipeline = world.pipeline(source={"python": {"function": f"{module}:fetch"}})
    with pytest.raises(DataError, match=f"^{module}:fetch: must be a function in the module {module}"):
        rows(pipeline.source)


def test_functions_differ_by_their_module(world: World) -> None:
    first, second = (world.pipeline().source for _ in range(2))
    assert extract(first).origins[0].version == extract(second).origins[0].version
    other = world.pipeline("import pandas\ndef extract(start, end):\n    return pandas.DataFrame()\n").source
    assert extract(other).origins[0].version != extract(first).origins[0].version


def test_a_parquet_file_without_rows_gives_none(tmp_path: Path) -> None:
    parcels().iloc[:0].to_parquet(tmp_path / f"{DAY.key}.parquet")
    assert files(tmp_path / "{partition}.parquet").extract(DAY, from_environment).frame().empty
