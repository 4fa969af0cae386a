"""What a request must hold, and that scoring without a frame gives what scoring with one does."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from airworthy.encoding import Input, conform, frame_of
from airworthy.errors import Problems
from airworthy.model_files import LoadedModel, load_model
from airworthy.serving.inputs import typed
from airworthy.serving.rows import Rows, read_rows
from test_model_files import write
from toy_pipeline import toy_at

INPUTS = [
    Input(name="count", type="integer"),
    Input(name="share", type="number"),
    Input(name="flag", type="boolean"),
    Input(name="at", type="timestamp"),
    Input(name="name", type="string"),
]
GOOD: dict[str, Any] = {"count": 3, "share": 0.5, "flag": True, "at": "2013-01-01T10:00:00Z", "name": "x"}
ZONE = timezone(timedelta(hours=2))
YEARS = (pd.Timestamp(1700, 1, 1).to_pydatetime(), pd.Timestamp(2200, 1, 1).to_pydatetime())
VALUES = {
    "integer": some.integers(-(2**63), 2**63 - 1),
    "number": some.floats(allow_nan=False, allow_infinity=False) | some.integers(-(2**70), 2**70),
    "boolean": some.booleans(),
    "timestamp": some.datetimes(*YEARS, timezones=some.just(ZONE)).map(datetime.isoformat),
    "string": some.sampled_from(["AA", "B6", "UA", "ZZ", "", "é"]) | some.text(max_size=5),
}


def sent(**changes: Any) -> bytes:
    return json.dumps({"dataframe_records": [GOOD, {**GOOD, **changes}]}).encode()


def complaint(body: bytes, kind: str = "application/json") -> str:
    with pytest.raises(Problems) as refused:
        typed(INPUTS, read_rows(body, kind))
    return str(refused.value)


@pytest.mark.parametrize(
    ("column", "value", "got"),
    [
        ("count", 1.5, "1.5"),
        ("count", "1", "'1'"),
        ("count", True, "True"),
        ("count", 2**63, "9223372036854775808"),
        ("count", float("nan"), "nan"),
        ("share", float("nan"), "nan"),
        ("share", float("-inf"), "-inf"),
        ("share", "0.5", "'0.5'"),
        ("share", True, "True"),
        ("share", 10**400, "1000"),
        ("share", [1], "[1]"),
        ("flag", 1, "1"),
        ("flag", "true", "'true'"),
        ("at", 1356998400, "1356998400"),
        ("at", "noon", "'noon'"),
        ("at", "2013-02-30T00:00:00Z", "'2013-02-30T00:00:00Z'"),
        ("name", 7, "7"),
        ("name", {"a": 1}, "{'a': 1}"),
    ],
)
def test_a_value_of_another_type_is_refused_with_row_column_and_rule(column: str, value: Any, got: str) -> None:
    found = complaint(sent(**{column: value}))
    assert found.startswith(f"request: row 1: {column}: must be ")
    assert f"Got {got}" in found and "\n" not in found


def test_all_problems_are_told_at_once() -> None:
    row = {**GOOD, "count": "x", "share": None, "name": 5, "colour": "red"}
    del row["flag"]
    found = complaint(json.dumps({"instances": [row]}).encode()).splitlines()
    assert [line.partition(". Got")[0] for line in found] == [
        "request: must have the column(s) flag",
        "request: must have no column that the model does not take",
        "request: row 0: count: must be a whole number of 64 bits, or null",
        "request: row 0: name: must be text, or null",
    ]
    assert "Got ['colour']. It takes count, share, flag, at, name." in found[1]


@pytest.mark.parametrize("literal", [b"NaN", b"Infinity", b"-Infinity", b"1e999"])
def test_what_json_knows_no_number_for_is_refused(literal: bytes) -> None:
    body = json.dumps({"dataframe_records": [GOOD]}).encode().replace(b"0.5", literal)
    assert complaint(body).startswith("request: row 0: share: must be a finite number, or null. Got ")


@pytest.mark.parametrize(("column", "cell"), [("count", "1.5"), ("share", "nan"), ("share", "1_0"), ("flag", "maybe")])
def test_a_cell_of_csv_of_another_type_is_refused(column: str, cell: str) -> None:
    row = {name: str(value) for name, value in GOOD.items()} | {column: cell}
    body = f"{','.join(row)}\n{','.join(row.values())}\n".encode()
    assert f"request: row 0: {column}: must be " in complaint(body, "text/csv")
    assert f"Got {cell!r}." in complaint(body, "text/csv") or cell == "nan"


def test_csv_means_the_same_as_json() -> None:
    body = b"count,share,flag,at,name\n3,0.5,TRUE,2013-01-01T10:00:00Z,x\n3.0,5e-1,1,2013-01-01 10:00,x\n,,,,\n"
    found = typed(INPUTS, read_rows(body, "text/csv; charset=utf-8"))
    at = datetime(2013, 1, 1, 10, tzinfo=UTC)
    expected = {"count": 3, "share": 0.5, "flag": True, "at": at, "name": "x"}
    assert found == {name: [value, value, None] for name, value in expected.items()}


@settings(max_examples=150)
@given(some.data())
def test_a_frame_of_typed_values_is_the_one_that_training_makes(data: some.DataObject) -> None:
    count = data.draw(some.integers(1, 4))
    missing = data.draw(some.booleans())
    sent = {
        column.name: data.draw(
            some.lists(
                VALUES[column.type] | (some.none() if missing else some.nothing()), min_size=count, max_size=count
            )
        )
        for column in INPUTS
    }
    found = frame_of(INPUTS, typed(INPUTS, Rows(sent, count)))
    expected = conform(INPUTS, pd.DataFrame(sent, dtype=object))
    pd.testing.assert_frame_equal(found, expected, check_exact=True)


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[LoadedModel]:
    """One model for which columns are features as they are, one with a function, and one of scikit-learn."""
    toy = toy_at(tmp_path, "http://127.0.0.1:1", monkeypatch)
    rows = toy.rows(days=20).assign(stops=lambda frame: frame["flight"] % 3, rush=lambda frame: frame["day"] % 2 == 0)
    rows["rush"] = rows["rush"].astype(object).where(rows["flight"] != 7, None)
    sklearn = {"sklearn": {"estimator": "sklearn.linear_model.LogisticRegression"}}
    found = []
    for number, changes in enumerate([{"features": None}, {}, {"features": None, "model": sklearn}]):
        pipeline = toy.pipeline(**changes)
        write(tmp_path / str(number), pipeline, rows)
        found.append(load_model(tmp_path / str(number), digest=None, pipeline=pipeline))
    return found


def test_columns_are_scored_exactly_as_frames_are(models: list[LoadedModel]) -> None:
    assert [model.direct for model in models] == [True, False, True]

    @settings(max_examples=40, suppress_health_check=list(HealthCheck))
    @given(some.data())
    def holds(data: some.DataObject) -> None:
        count = data.draw(some.integers(1, 5))
        values = {name: values | some.none() for name, values in VALUES.items()}
        values["number"] = some.floats(-1e6, 1e6) | some.none()
        values["timestamp"] = VALUES["timestamp"]  # the toy's own function needs one
        inputs = models[0].contract.inputs
        sent = {
            column.name: data.draw(some.lists(values[column.type], min_size=count, max_size=count)) for column in inputs
        }
        columns = typed(inputs, Rows(sent, count))
        for model in models:
            direct = model.predict_columns(columns, count)
            np.testing.assert_array_equal(direct, model.predict_raw(pd.DataFrame(sent, dtype=object)))

    holds()
