from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from airworthy.config import Expectation
from airworthy.expectations import Outcome, run
from airworthy.expectations.regex import re2
from airworthy.expectations.rows import FILES, SCANNED, UntranslatableError, opened
from airworthy.masking import mask_outcomes


def expect(name: str, **kwargs: Any) -> Expectation:
    return Expectation(type=f"expect_{name}", kwargs=kwargs)


def judged(rows: ds.Dataset | dict[str, Any], *expectations: Expectation, listed: int = 100) -> list[Outcome]:
    dataset = ds.dataset(pa.table(rows)) if isinstance(rows, dict) else rows
    return run(dataset, expectations, listed=listed)


def written(folder: Path, table: pa.Table, files: int, *, group: int = 1000) -> ds.Dataset:
    size = -(-len(table) // files)
    for number in range(files):
        part = table.slice(number * size, size)
        pq.write_table(part, folder / f"part-{number:02}.parquet", row_group_size=group)
    return ds.dataset(sorted(map(str, folder.glob("*.parquet"))))


ORDERED = pa.table({"n": np.arange(50_000), "word": [f"w{number % 7}" for number in range(50_000)]})
FEW = (
    expect("column_values_to_be_in_set", column="word", value_set=[f"w{number}" for number in range(6)]),
    expect("column_values_to_be_increasing", column="n", strictly=True),
    expect("column_values_to_be_between", column="n", max_value=49_989),
)


@pytest.mark.parametrize("in_memory", [True, False])
def test_failing_rows_are_found_in_the_order_of_many_files_and_batches(tmp_path: Path, in_memory: bool) -> None:
    rows = ds.dataset(ORDERED) if in_memory else written(tmp_path, ORDERED, 7)
    words, order, last = judged(rows, *FEW, listed=50_000)
    assert words.rows is not None and words.rows.tolist() == list(range(6, 50_000, 7))
    assert order.status == "passed"
    assert last.rows is not None and last.rows.tolist() == list(range(49_990, 50_000))
    assert words.result["result"]["partial_unexpected_index_list"] == list(range(6, 146, 7))


def test_files_of_parquet_are_read_by_duckdb_and_others_by_arrow(tmp_path: Path) -> None:
    parquet = written(tmp_path, ORDERED, 2)
    older = parquet.replace_schema(parquet.schema.append(pa.field("later", pa.string())))
    cases = pa.table({"n": [1], "N": [2]})
    other = written(tmp_path / "N", cases, 1) if (tmp_path / "N").mkdir() is None else parquet
    for dataset, table in ((parquet, FILES), (ds.dataset(ORDERED), SCANNED), (older, SCANNED), (other, SCANNED)):
        with opened(dataset) as rows:
            assert rows.table == table
    missing = expect("column_values_to_not_be_null", column="later")
    assert judged(older, missing, listed=0)[0].unexpected == 50_000


def test_columns_that_differ_in_case_only_are_different() -> None:
    small, large = (expect("column_max_to_be_between", column=name, max_value=3) for name in ("n", "N"))
    assert [one.status for one in judged({"n": [1, 2], "N": [5, 6]}, small, large)] == ["passed", "failed"]


@pytest.mark.parametrize("name", ['a"b', "a'; DROP TABLE x; --", "$v0", "c0", "position", "select", "ä b"])
def test_a_column_may_have_any_name(tmp_path: Path, name: str) -> None:
    table = pa.table({"other": [1, 2, 3], name: ["x", "y'", None]})
    for rows in (ds.dataset(table), written(tmp_path, table, 1)):
        (found,) = judged(rows, expect("column_values_to_not_be_in_set", column=name, value_set=["y'"]))
        assert found.rows is not None and found.rows.tolist() == [1]


def test_text_with_a_zero_byte_is_itself() -> None:
    (found,) = judged({"a": ["x", "x\0y", "x"]}, expect("column_values_to_be_unique", column="a"))
    assert found.rows is not None and found.rows.tolist() == [0, 2]


def test_the_smallest_text_is_found_where_one_is_missing() -> None:
    (found,) = judged({"a": ["b", None, "a"]}, expect("column_values_to_not_be_null", column="a", mostly=0.5))
    assert found.status == "passed"
    (count,) = judged(
        {"a": ["b", None, "a"]}, expect("column_unique_value_count_to_be_between", column="a", max_value=1)
    )
    assert (count.status, count.reason) == ("failed", "observed 2")


def test_a_pattern_of_like_works_as_in_sql() -> None:
    (found,) = judged(
        {"a": ["ab", "b", None]}, expect("column_values_to_match_like_pattern", column="a", like_pattern="a%")
    )
    assert (found.status, found.reason) == ("failed", '1 of 3 rows fail, e.g. "b"')


def test_a_wrong_type_fails_as_a_column_not_as_rows() -> None:
    (found,) = judged({"a": [1, 2]}, expect("column_values_to_be_of_type", column="a", type_="str"))
    assert (found.status, found.is_row_level, found.reason) == ("failed", False, 'observed "int64"')


def test_what_cannot_be_read_is_an_error_and_never_passed(tmp_path: Path) -> None:
    rows = written(tmp_path, ORDERED, 1)
    whole = (tmp_path / "part-00.parquet").read_bytes()
    (tmp_path / "part-00.parquet").write_bytes(
        whole[: len(whole) // 3] + b"\0" * 4000 + whole[len(whole) // 3 + 4000 :]
    )
    for found in judged(rows, *FEW):
        assert found.status == "error" and found.reason and found.rows is None


@pytest.mark.parametrize(
    "expectation",
    [
        expect("column_mean_to_be_between", column="word", max_value=5),
        expect("column_values_to_be_between", column="n", min_value=5, max_value=1),
        expect("column_values_to_match_regex", column="word", regex="("),
        expect("column_values_to_be_between", column="n", max_valu=1),
        expect("table_row_count_to_equal_other_table", other_table_name="x"),
        Expectation(type="unexpected_rows_expectation", kwargs={"unexpected_rows_query": "SELECT * FROM {batch}"}),
    ],
)
def test_what_cannot_be_judged_is_an_error_with_its_reason(expectation: Expectation) -> None:
    fine = expect("table_row_count_to_equal", value=3)
    found, other = judged({"n": [1, 2, 3], "word": ["a", "b", "c"]}, expectation, fine)
    assert found.status == "error" and found.reason and other.status == "passed"


def test_one_metric_that_overflows_leaves_the_others_alone() -> None:
    rows = {"a": [2**62, 1], "b": [2**62, 1]}
    total = expect("multicolumn_sum_to_equal", column_list=["a", "b"], sum_total=2)
    found, other = judged(rows, total, expect("column_max_to_be_between", column="a", max_value=2**62))
    assert (found.status, found.unexpected, other.status) == ("failed", 1, "passed")


CANARY = "canary-4711"
PERSONAL = {
    "name": [CANARY, CANARY, "x", None],
    "n": [4711, 4711, 2, 3],
    "city": ["A", "A", "B", "B"],
}


@pytest.mark.parametrize(
    "expectation",
    [
        expect("column_values_to_be_unique", column="name"),
        expect("column_values_to_be_in_set", column="name", value_set=["x"]),
        expect("column_values_to_match_regex", column="name", regex="^(?!c)"),
        expect("column_values_to_match_strftime_format", column="n", strftime_format="%Y"),
        expect("column_max_to_be_between", column="n", max_value=10),
        expect("column_most_common_value_to_be_in_set", column="name", value_set=["x"]),
        expect("column_distinct_values_to_be_in_set", column="name", value_set=["x"]),
        expect("column_mean_to_be_between", column="name", max_value=3),
        expect("compound_columns_to_be_unique", column_list=["city", "name"]),
        expect("column_pair_values_to_be_equal", column_A="city", column_B="name"),
    ],
)
def test_no_value_of_a_personal_column_is_told(expectation: Expectation) -> None:
    pipeline: Any = SimpleNamespace(pii=("name", "n"))
    (found,) = mask_outcomes(pipeline, run(ds.dataset(pa.table(PERSONAL)), [expectation], listed=10))
    told = json.dumps(found.result, default=str) + found.reason
    assert found.status != "passed"
    assert CANARY not in told and "4711" not in told


@pytest.mark.parametrize("pattern", [r"a(?=b)", r"(a)\1", r"\bword", r"a$b", r"(?i)a", r"a{2000}", "(", r"(?:a$)*b"])
def test_a_pattern_that_re2_would_read_otherwise_is_left_to_python(pattern: str) -> None:
    with pytest.raises(UntranslatableError):
        re2(pattern)
