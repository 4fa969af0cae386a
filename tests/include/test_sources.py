from __future__ import annotations

import gzip
from pathlib import Path

import pandas as pd
import pytest

from airworthy import kinds
from airworthy.connections import from_environment
from airworthy.errors import DataError
from airworthy.sources import Source
from parcels import DAY, World, parcels, world

__all__ = ["world"]


def files(pattern: str | Path) -> Source:
    found = kinds.parse("sources", {"files": {"glob": str(pattern)}})
    assert isinstance(found, Source)
    return found


def test_parquet_files_are_read_in_order_of_their_names(tmp_path: Path) -> None:
    whole = parcels(30)
    for number in (2, 0, 1):
        whole.iloc[10 * number : 10 * number + 10].to_parquet(tmp_path / f"{DAY.key}-{number}.parquet")
    whole.to_parquet(tmp_path / "2026-01-06-0.parquet")
    found = files(tmp_path / "{partition}-*.parquet").extract(DAY, from_environment).frame()
    pd.testing.assert_frame_equal(found, whole, check_dtype=False)


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_csv_files_are_read(tmp_path: Path, suffix: str) -> None:
    parcels().to_csv(tmp_path / f"{DAY.key}{suffix}", index=False)
    found = files(tmp_path / ("{partition}" + suffix)).extract(DAY, from_environment).frame()
    assert found["weight"].tolist() == parcels()["weight"].tolist()


def test_a_pattern_is_relative_to_the_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airworthy.sources.files.ROOT", tmp_path)
    (tmp_path / "data" / DAY.key).mkdir(parents=True)
    parcels().to_parquet(tmp_path / "data" / DAY.key / "part.parquet")
    assert len(files("data/{partition}/*.parquet").extract(DAY, from_environment).frame()) == 10
    with pytest.raises(DataError, match=r"^data/2026-01-05/\*\.csv: must match at least one file"):
        files("data/{partition}/*.csv").extract(DAY, from_environment).frame()


def test_a_file_that_is_not_parquet_is_named_with_a_remedy(tmp_path: Path) -> None:
    file = tmp_path / f"{DAY.key}.parquet"
    file.write_text("id,at\n1,2\n")
    with pytest.raises(DataError) as raised:
        files(tmp_path / "{partition}.parquet").extract(DAY, from_environment).frame()
    assert str(raised.value).startswith(f"{file}: must be a Parquet file. Got ")
    assert str(raised.value).endswith("Write it again in that format, or correct `glob`; nothing was ingested.")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.csv", b""),
        ("binary.csv", b"\x80\x81\xff\x00PAR1"),
        ("ragged.csv", b"a,b\n1,2\n1,2,3,4\n"),
        ("cut.csv.gz", gzip.compress(b"a,b\n1,2\n" * 1000)[:40]),
        ("cut.parquet", b"PAR1 cut off"),
        ("empty.parquet", b""),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_damaged_files_are_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / f"{DAY.key}-{name}").write_bytes(content)
    with pytest.raises(DataError, match=rf"{DAY.key}-{name}: must be a (CSV|Parquet) file\. Got "):
        files(tmp_path / ("{partition}-" + name)).extract(DAY, from_environment).frame()


def test_files_of_different_columns_are_not_mixed(tmp_path: Path) -> None:
    parcels().to_parquet(tmp_path / f"{DAY.key}-a.parquet")
    parcels().drop(columns="weight").to_parquet(tmp_path / f"{DAY.key}-b.parquet")
    with pytest.raises(DataError, match=r"-b\.parquet: must have the same columns as .*-a\.parquet\. Got \['weight'\]"):
        files(tmp_path / "{partition}-*.parquet").extract(DAY, from_environment).frame()


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("data/all.parquet", r"must contain \{partition\}"),
        ("data/{partition}.xlsx", "must end with .parquet, .csv or .csv.gz"),
    ],
)
def test_a_pattern_that_cannot_work_is_refused(pattern: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        files(pattern)


def test_a_function_gets_the_partition_in_utc(world: World) -> None:
    code = (
        "import pandas\ndef extract(start, end):\n"
        "    return pandas.DataFrame({'start': [start.isoformat()], 'end': [end.isoformat()]})\n"
    )
    found = world.pipeline(code).source.extract(DAY, from_environment).frame()
    assert found.iloc[0].tolist() == ["2026-01-05T00:00:00+00:00", "2026-01-06T00:00:00+00:00"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return [1]", "must return a pandas DataFrame, or an iterator of DataFrames. Got 'list'."),
        ("return None", "must return a pandas DataFrame, or an iterator of DataFrames. Got 'NoneType'."),
        (
            "raise ConnectionError('the warehouse is closed')",
            "must not raise, but raised ConnectionError: the warehouse is closed. Line 2",
        ),
    ],
)
def test_a_function_that_gives_no_rows_is_named(world: World, body: str, message: str) -> None:
    pipeline = world.pipeline(f"def extract(start, end):\n    {body}\n")
    with pytest.raises(DataError) as raised:
        pipeline.source.extract(DAY, from_environment).frame()
    assert message in str(raised.value) and ":extract" in str(raised.value)


def test_a_function_that_is_not_in_its_module_is_named(world: World) -> None:
    module = world.module("")
    pipeline = world.pipeline(source={"python": {"function": f"{module}:fetch"}})
    with pytest.raises(DataError, match=f"^{module}:fetch: must be a function in the module {module}"):
        pipeline.source.extract(DAY, from_environment).frame()
