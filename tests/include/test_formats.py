"""What is in files: the types of text, damage of every kind, and files that are made to use up the memory."""

from __future__ import annotations

import gzip
import json
import random
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airworthy.columns import lossless
from airworthy.errors import AirworthyError, DataError, Problems
from airworthy.formats import File, Format, Limits
from airworthy.formats.csv import Csv
from airworthy.formats.jsonl import JsonLines
from airworthy.formats.pages import pages
from airworthy.formats.parquet import Parquet

MISSING = ("", "NA")
KINDS: dict[str, type[Format]] = {"csv": Csv, "jsonl": JsonLines, "parquet": Parquet}


def read(files: Sequence[Path], cell: int = 16 << 20, ratio: float = 200) -> pa.Table:
    """Returns the rows of files, as a source reads them."""
    form = KINDS[files[0].name.split(".")[1]](Limits(cell, ratio), MISSING)
    named = [File(path.name, path) for path in files]
    schema = form.survey(named)
    chunks = [chunk for file in named for chunk in form.read(file, schema)]
    assert all(chunk.schema == schema for chunk in chunks)
    return pa.concat_tables([schema.empty_table(), *chunks])


def written(folder: Path, name: str, content: bytes | str) -> Path:
    file = folder / name
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


# --- Types of text


@pytest.mark.parametrize(
    ("cells", "kind", "values"),
    [
        (["1", "-2", ""], "int64", [1, -2, None]),
        (["9223372036854775807", "NA"], "int64", [2**63 - 1, None]),
        (["1", "2.5"], "double", [1.0, 2.5]),
        (["1e3", "-0", "inf"], "double", [1000.0, -0.0, float("inf")]),
        (["true", "False", ""], "bool", [True, False, None]),
        (["007", "8"], "string", ["007", "8"]),
        (["007.5", "1"], "string", ["007.5", "1"]),
        (["0x10", "1"], "string", ["0x10", "1"]),
        (["+5", "1"], "string", ["+5", "1"]),
        (["1", "true"], "string", ["1", "true"]),
        (["9223372036854775808", "1"], "string", ["9223372036854775808", "1"]),  # one more than int64 holds
        (["9007199254740992", "0.5"], "double", [9007199254740992.0, 0.5]),
        (["9007199254740993", "0.5"], "string", ["9007199254740993", "0.5"]),  # one more than float64 holds
        (["2013-01-07T00:00:00Z", ""], "string", ["2013-01-07T00:00:00Z", None]),
        (["", "NA"], "null", [None, None]),
    ],
    ids=lambda value: ",".join(map(str, value)) if isinstance(value, list) else "",
)
@pytest.mark.parametrize("filler", [0, 500], ids=["together", "blocks_apart"])
def test_text_becomes_the_narrowest_type_that_loses_nothing(
    tmp_path: Path, cells: list[str], kind: str, values: list[Any], filler: int
) -> None:
    lines = "".join(f"{cell},x\n" + ",x\n" * filler for cell in cells)
    found = read([written(tmp_path, "a.csv", f"a,b\n{lines}")], cell=1024)["a"]
    assert str(found.type) == kind
    assert found.take(list(range(0, len(found), filler + 1))).to_pylist() == values


ROWS = st.lists(
    st.one_of(
        st.none(),
        st.integers(-(2**62), 2**62),
        st.integers(10**15, 2**53 + 9),
        st.integers(-9, 9),
        st.floats(allow_nan=False),
        st.booleans(),
    ),
    min_size=1,
    max_size=60,
)


@given(values=ROWS, cuts=st.randoms(use_true_random=False))
def test_the_rows_do_not_depend_on_how_they_are_cut(
    values: list[Any], cuts: random.Random, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """One file in large blocks is two files in small ones."""
    folder = tmp_path_factory.mktemp("cut")
    at = cuts.randrange(len(values) + 1)
    texts = ["" if value is None else str(value) for value in values]
    padding = "x" * 300

    def csv(cells: list[str]) -> str:
        return "a,b\n" + "".join(f"{cell},{padding}\n" for cell in cells)

    whole = read([written(folder, "whole.csv", csv(texts))])
    halves = [written(folder, "0.csv", csv(texts[:at])), written(folder, "1.csv", csv(texts[at:]))]
    assert read(halves, cell=1024).combine_chunks().equals(whole.combine_chunks())


def test_keys_that_a_line_leaves_out_are_missing(tmp_path: Path) -> None:
    lines = [{"a": 1, "b": "x"}, {"a": 2.5}, {"c": True}]
    files = [written(tmp_path, f"{n}.jsonl", json.dumps(line)) for n, line in enumerate(lines)]
    expected = [{"a": 1.0, "b": "x", "c": None}, {"a": 2.5, "b": None, "c": None}, {"a": None, "b": None, "c": True}]
    assert read(files).to_pylist() == expected
    whole = written(tmp_path, "whole.jsonl", "\n".join(map(json.dumps, lines)))
    assert read([whole]).to_pylist() == expected


def test_times_in_json_stay_as_they_are_written(tmp_path: Path) -> None:
    file = written(tmp_path, "a.jsonl", '{"t": "2013-01-07T00:00:00Z"}\n{"t": "2013-01-07 05:00"}\n')
    assert read([file])["t"].to_pylist() == ["2013-01-07T00:00:00Z", "2013-01-07 05:00"]


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path: Path) -> None:
    assert read([written(tmp_path, "a.csv", "\ufeffa\n1\n")]).column_names == ["a"]
    assert read([written(tmp_path, "a.jsonl", '\ufeff{"a": 1}\n')]).column_names == ["a"]


def test_parquet_types_become_those_of_the_tables(tmp_path: Path) -> None:
    from datetime import UTC, date, datetime
    from decimal import Decimal

    table = pa.table(
        {
            "small": pa.array([1, None], pa.uint8()),
            "half": pa.array([1.5, None], pa.float32()),
            "money": pa.array([Decimal("1.10"), None]),
            "day": pa.array([date(2013, 1, 7), None]),
            "local": pa.array([datetime(2013, 1, 7, 5), None], pa.timestamp("ns")),  # noqa: DTZ001
            "kind": pa.array(["a", None]).dictionary_encode(),
            "long": pa.array(["a", None], pa.large_string()),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    expected = [1, 1.5, 1.1, datetime(2013, 1, 7, tzinfo=UTC), datetime(2013, 1, 7, 5, tzinfo=UTC), "a", "a"]
    first, second = read([tmp_path / "a.parquet"]).to_pylist()
    assert list(first.values()) == expected and set(second.values()) == {None}


def test_a_quote_within_a_cell_opens_nothing(tmp_path: Path) -> None:
    lines = "".join(f'{number},5" pipe,"x\n""{number}"\n' for number in range(2000))
    found = read([written(tmp_path, "a.csv", f"a,b,c\n{lines}")], cell=1024)
    assert found["b"].to_pylist() == ['5" pipe'] * 2000
    assert found["c"].to_pylist() == [f'x\n"{number}' for number in range(2000)]


@given(cells=st.lists(st.text('",\n x', max_size=6), min_size=1, max_size=40))
def test_quoted_cells_are_never_cut(cells: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("quoted")
    quoted = ['"' + cell.replace('"', '""') + '"' for cell in cells]
    content = "a,b,c\n" + "".join(f'{cell},5" pipe,{"x" * 300}\n' for cell in quoted)
    found = read([written(folder, "a.csv", content)], cell=1024)
    assert found["a"].to_pylist() == [cell or None for cell in cells]


def test_numbers_in_json_that_decimals_hold_are_decimals(tmp_path: Path) -> None:
    lines = ['{"a": 1e300, "b": 9007199254740992}', '{"a": 2.5, "b": 0.5}{"a": 1, "b": 12345678901234567168}']
    found = read([written(tmp_path, "a.jsonl", "\n".join(lines))])
    assert found["a"].to_pylist() == [1e300, 2.5, 1.0]
    assert found["b"].to_pylist() == [2.0**53, 0.5, 12345678901234567168.0]


@pytest.mark.parametrize("filler", [0, 500], ids=["together", "blocks_apart"])
@pytest.mark.parametrize("values", [("12345678901234567890", "1"), ("9007199254740993", "1.5")])
def test_keys_in_json_that_decimals_would_make_one_are_refused(
    tmp_path: Path, values: tuple[str, str], filler: int
) -> None:
    lines = [f'{{"a": {values[0]}}}', *["{}"] * filler, f'{{"a": {values[1]}}}']
    with pytest.raises(DataError, match=rf"^a\.jsonl: row 1: a: must be .*Got 'one of {len(values[0])} digits'"):
        read([written(tmp_path, "a.jsonl", "\n".join(lines))], cell=1024)


def test_decimals_keep_their_whole_digits(tmp_path: Path) -> None:
    from decimal import Decimal

    keys = [12345678901234567, 12345678901234568, None]
    column = pa.array([key and Decimal(key) for key in keys], pa.decimal128(38, 0))
    found = read([parquet(tmp_path, {"a": column})])["a"]
    assert (found.type, found.to_pylist()) == (pa.int64(), keys)
    with pytest.raises(pa.ArrowInvalid):
        lossless(pa.chunked_array([column]), pa.float64())
    for value in ("12345678901234567.1", "-12345678901234567.1"):
        with pytest.raises(Problems, match=r"a\.parquet: a: must hold double"):
            read([parquet(tmp_path, {"a": [Decimal(value)]})])
    with pytest.raises(Problems, match=r"a\.parquet: a: must hold int64"):
        read([parquet(tmp_path, {"a": [Decimal(2**63)]})])


# --- Damage


def parquet(folder: Path, content: Any, name: str = "a.parquet", **options: Any) -> Path:
    pq.write_table(pa.table(content), folder / name, **options)
    return folder / name


BAD = {
    "empty.csv": (b"", "must not be empty. Deliver the file again"),
    "latin.csv": (b"a,b\n1,x\n2,caf\xe9\n", "latin.csv: line 3, byte 13: must be UTF-8. Got '0xe9'. Convert it"),
    "utf16.csv": ("a,b\n1,2\n".encode("utf-16"), "utf16.csv: line 1, byte 0: must be UTF-8. Got '0xff'"),
    "cut.csv": ("a\nx\nß".encode()[:-1], "cut.csv: line 3, byte 4: must be UTF-8. Got '0xc3'"),
    "ragged.csv": (b"a,b\n1,2\n1,secret,3\n", "ragged.csv: row 3: must have 2 cells, as the header does. Got 3."),
    "short.csv": (b"a,b\n1,2\nsecret\n", "short.csv: row 3: must have 2 cells, as the header does. Got 1."),
    "twice.csv": (b"a,b,a\n1,2,3\n", "must have each column once. Got ['a']"),
    "index.csv": (b",a\n0,1\n", "must give every column a name. Got 'none for column 1 of 2'"),
    "open.csv": (b'a,b\n1,"secret\n2,3\n', "must close every quote, but the last cell is still open"),
    "inch.csv": (b'a,b\n5" x,"secret\n2,3\n', "must close every quote, but the last cell is still open"),
    "cut.csv.gz": (gzip.compress(random.Random(7).randbytes(999))[:400], "must be a whole gzip file. Got 'Compressed"),
    "plain.csv.gz": (b"a,b\n1,2\n", 'must be a whole gzip file. Got "Not a gzipped file'),
    "cut.jsonl": (b'{"a": 1}\n{"a": "sec', "cut.jsonl: row 2: must be one JSON object with values of one type each"),
    "list.jsonl": (b"[1]\n", "list.jsonl: row 1: must be one JSON object with values of one type each"),
    "mixed.jsonl": (b'{"a": 1}\n{"a": "secret"}\n', "mixed.jsonl: row 2: must be one JSON object"),
    "twice.jsonl": (b'{"a": 1, "a": 2}\n', "twice.jsonl: row 1: must be one JSON object"),
    "nested.jsonl": (b'{"a": {"b": 1}}\n', "nested.jsonl: a: must hold numbers, text, bools or times. Got 'struct"),
    "empty.parquet": (b"", "empty.parquet: must be a Parquet file. Got "),
    "text.parquet": (b"a,b\n1,2\n", "text.parquet: must be a Parquet file. Got "),
}


@pytest.mark.parametrize("name", BAD)
def test_damage_is_named_with_file_place_and_remedy(tmp_path: Path, name: str) -> None:
    content, message = BAD[name]
    with pytest.raises(AirworthyError) as raised:
        read([written(tmp_path, name, content)])
    assert message in str(raised.value) and name in str(raised.value)
    assert "secret" not in str(raised.value) and str(tmp_path) not in str(raised.value)


def test_a_value_of_another_type_blocks_later_is_named_alike(tmp_path: Path) -> None:
    lines = ['{"a": 1}'] * 500 + ['{"a": "x"}']
    with pytest.raises(AirworthyError, match=r"^a\.jsonl: a: must hold values of one type. Got 'int64 and string'"):
        read([written(tmp_path, "a.jsonl", "\n".join(lines))], cell=1024)


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.95])
def test_a_parquet_file_that_was_cut_is_named(tmp_path: Path, keep: float) -> None:
    file = parquet(tmp_path, {"a": np.arange(10_000)})
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(DataError, match=r"^a\.parquet: must be a Parquet file"):
        read([file])


def test_parquet_pages_that_are_damaged_are_named(tmp_path: Path) -> None:
    file = parquet(
        tmp_path, {"a": np.random.default_rng(7).random(10_000)}, use_dictionary=False, write_page_checksum=True
    )
    content = bytearray(file.read_bytes())
    for place in (4, 20_000):  # a page header, and the middle of a page
        damaged = bytearray(content)
        damaged[place : place + 200] = random.Random(place).randbytes(200)
        file.write_bytes(damaged)
        with pytest.raises(DataError, match=r"^a\.parquet: must be a Parquet file"):
            read([file])


# --- Files made to use up the memory

LIMITED = """
import re, sys
from pathlib import Path
from airworthy.errors import AirworthyError
from test_formats import read

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) >> 10

before = peak()
try:
    print(read([Path(sys.argv[1])]).num_rows, "rows")
except AirworthyError as error:
    print(error)
print(peak() - before)
"""
BOUND = 700  # MiB beyond what the libraries take; each of these files asks for 1 GiB or more


def limited(file: Path) -> tuple[str, int]:
    """Returns what a process of its own told about reading a file, and the memory that took in MiB."""
    command = [sys.executable, "-c", LIMITED, str(file)]
    folder = Path(__file__).parent
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told, _, peak = done.stdout.strip().rpartition("\n")
    return told, int(peak)


def gibibyte(start: bytes, unit: bytes) -> bytes:
    """Returns about 1 MB of gzip that unpacks to 1 GiB."""
    return gzip.compress(start) + gzip.compress(unit * ((64 << 20) // len(unit))) * 16


UNPACKED = "must not unpack to more than 200 times its size of"
BOMBS = {
    "cell.csv.gz": (gibibyte(b"a,b\n1,", b"0"), "must not have a value of more than 16,777,216 bytes"),
    "quoted.csv.gz": (gibibyte(b'a,b\n1,"', b"0\n"), "must not have a value of more than 16,777,216 bytes"),
    "rows.csv.gz": (
        gibibyte(b"a,b\n", b"0," + b"0" * 1021 + b"\n"),
        "must not unpack to more than 200 times its size of",
    ),
    "header.csv.gz": (gibibyte(b"", b"a"), "must not have a value of more than 16,777,216 bytes"),
    "cell.jsonl.gz": (gibibyte(b'{"a": "', b"0"), "must not have a value of more than 16,777,216 bytes"),
    "rows.jsonl.gz": (
        gibibyte(b"", b'{"a": "' + b"0" * 1014 + b'"}\n'),
        "must not unpack to more than 200 times its size of",
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_text_that_unpacks_without_end_is_refused_in_bounded_memory(tmp_path: Path, name: str) -> None:
    content, message = BOMBS[name]
    assert len(content) < 8 << 20
    told, peak = limited(written(tmp_path, name, content))
    assert told.startswith(f"{name}: {message}") and "Raise `max_" in told
    assert peak < BOUND


def test_a_parquet_page_larger_than_memory_is_refused_unread(tmp_path: Path) -> None:
    cell = pa.array(["0" * (192 << 20)], pa.large_string())
    file = parquet(tmp_path, {"a": cell, "b": [1]}, compression="zstd", use_dictionary=False, write_statistics=False)
    told, peak = limited(file)
    assert re.match(
        r"a\.parquet: must not have a page of more than 134,217,728 bytes. Got '201,326,... bytes in a'", told
    )
    assert peak < 100


def test_a_long_value_that_many_rows_share_is_multiplied_in_pieces(tmp_path: Path) -> None:
    shared = pa.DictionaryArray.from_arrays(pa.array(np.zeros(4000, "int32")), pa.array(["0" * (1 << 20)]))
    options = {"compression": "zstd", "write_statistics": False, "dictionary_pagesize_limit": 1 << 30}
    file = parquet(tmp_path, {"a": shared}, **options)
    assert file.stat().st_size < 1 << 20
    told, peak = limited(file)
    assert told.startswith("a.parquet: must not unpack to more than 200 times its size of")
    assert peak < BOUND


def test_a_value_longer_than_allowed_is_refused(tmp_path: Path) -> None:
    for number, use_dictionary in enumerate((True, False)):
        file = parquet(tmp_path, {"a": ["x" * 5000, "y"]}, f"{number}.parquet", use_dictionary=use_dictionary)
        assert read([file]).num_rows == 2
        with pytest.raises(
            DataError, match=r"must not have a value of more than 4,096 bytes\. Got 'a longer one in a'"
        ):
            read([file], cell=4096)


def test_the_longest_values_allowed_are_read_few_rows_at_a_time(tmp_path: Path) -> None:
    values = ["x" * (8 << 20)] * 15 + ["y"] * 1000
    file = parquet(tmp_path, {"a": values}, use_dictionary=False, compression="none", write_statistics=False)
    form = Parquet(Limits(16 << 20, 200), MISSING)
    one = File(file.name, file)
    chunks = list(form.read(one, form.survey([one])))
    assert [value for chunk in chunks for value in chunk["a"].to_pylist()] == values
    assert max(chunk.nbytes for chunk in chunks) < 80 << 20


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("compression", ["none", "snappy", "zstd"])
def test_the_pages_of_a_file_hold_all_its_values(tmp_path: Path, version: str, compression: str) -> None:
    values = {"number": np.arange(50_000), "text": [f"row {number}" for number in range(50_000)]}
    options = {"data_page_version": version, "compression": compression, "data_page_size": 10_000}
    file = parquet(tmp_path, values, use_dictionary=False, **options)
    metadata = pq.read_metadata(file)
    with file.open("rb") as source:
        for number in range(metadata.num_columns):
            chunk = metadata.row_group(0).column(number)
            found = list(pages(source, chunk.data_page_offset, chunk.total_compressed_size))
            assert sum(page.values for page in found) == 50_000 and len(found) > 1
            assert sum(page.unpacked for page in found) < chunk.total_uncompressed_size
