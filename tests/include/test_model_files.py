from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from airworthy.config import Pipeline
from airworthy.encoding import (
    Encoder,
    align_classes,
    class_names,
    conform,
    describe_features,
    describe_inputs,
    encode_label,
)
from airworthy.errors import DataError, ModelError
from airworthy.features import compute_features
from airworthy.model_files import CONTRACT, REFERENCE, REQUESTS, Contract, digest_of, load_model, rows_of, write_model
from airworthy.models import Matrix
from toy_pipeline import Toy


@pytest.fixture
def pipeline(toy: Toy) -> Pipeline:
    return toy.pipeline()


def write(folder: Path, pipeline: Pipeline, rows: pd.DataFrame) -> str:
    features = compute_features(pipeline, rows)
    described = describe_features(features)
    encode = Encoder(described)
    label = encode_label("binary", ("False", "True"), rows["late"])
    model = pipeline.model
    fitted = model.fit("binary", 2, model.prepare(encode(features), label, threads=1), {}, seed=0, threads=1)
    requests = rows.drop(columns="late").head(30)
    start, end = datetime(2013, 1, 1, tzinfo=UTC), datetime(2013, 4, 1, tzinfo=UTC)
    contract = Contract(
        pipeline=pipeline.name,
        kind=model.kind(),
        file=model.file,
        task="binary",
        classes=("False", "True"),
        inputs=describe_inputs(requests),
        features=described,
        features_function=pipeline.features,
        features_digest="",
        as_of=end,
        holdout=(start, end),
        window=(start, end),
        params={},
        seed=0,
    )
    expected = fitted.predict(encode(features.head(30)).values)
    return write_model(folder, contract, fitted, requests, expected, features.head(100).assign(prediction=0.5))


@pytest.fixture
def rows(toy: Toy) -> pd.DataFrame:
    return toy.rows(days=40)


@pytest.fixture
def folder(tmp_path: Path, pipeline: Pipeline, rows: pd.DataFrame) -> Path:
    write(tmp_path / "model", pipeline, rows)
    return tmp_path / "model"


def test_a_written_model_answers_its_recorded_requests(folder: Path, pipeline: Pipeline) -> None:
    replayed = load_model(folder, digest=digest_of(folder), pipeline=pipeline).replay()
    assert (replayed.requests, replayed.largest_difference, replayed.error) == (30, 0.0, "")


def test_the_same_model_has_the_same_digest(
    folder: Path, tmp_path: Path, pipeline: Pipeline, rows: pd.DataFrame
) -> None:
    assert write(tmp_path / "again", pipeline, rows) == digest_of(folder)


@pytest.mark.parametrize("name", ["model.ubj", CONTRACT, REQUESTS, REFERENCE])
def test_a_changed_file_is_refused_before_it_is_loaded(folder: Path, pipeline: Pipeline, name: str) -> None:
    digest = digest_of(folder)
    file = folder / name
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(ModelError, match=f"must have the recorded SHA-256 {digest[:12]}.*The files changed"):
        load_model(folder, digest=digest, pipeline=pipeline)


@pytest.mark.parametrize("name", ["model.ubj", CONTRACT, REQUESTS, REFERENCE])
def test_a_missing_file_is_named(folder: Path, pipeline: Pipeline, name: str) -> None:
    digest = digest_of(folder)
    (folder / name).unlink()
    with pytest.raises(ModelError, match=name):
        load_model(folder, digest=digest, pipeline=pipeline)


def test_mlflows_own_files_do_not_matter(folder: Path, pipeline: Pipeline) -> None:
    digest = digest_of(folder)
    (folder / "MLmodel").write_text("flavors: {python_function: {loader_module: os}}")
    assert load_model(folder, digest=digest, pipeline=pipeline).replay().largest_difference == 0.0


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"pipeline": "churn"}, "must belong to this pipeline. Got 'churn'"),
        ({"kind": "pickle"}, "must be of a known kind of model. Got 'pickle'"),
        ({"file": "../../elsewhere.ubj"}, "must be a contract"),
        ({"seed": None}, "must be a contract"),
    ],
)
def test_a_contract_that_cannot_be_kept_is_refused(folder: Path, pipeline: Pipeline, change: dict, rule: str) -> None:
    content = json.loads((folder / CONTRACT).read_text())
    (folder / CONTRACT).write_text(json.dumps(content | change))
    with pytest.raises(ModelError, match=rule):
        load_model(folder, digest=None, pipeline=pipeline)


def test_a_feature_that_looks_at_other_rows_is_found_by_the_replay(toy: Toy, tmp_path: Path) -> None:
    code = 'def features(frame):\n    return frame[["wind"]].rank(pct=True)\n'
    (toy.folder / "code" / "toy_features.py").write_text(code)
    pipeline, rows = toy.pipeline(), toy.rows(days=40)
    rows["late"] = rows["wind"].rank(pct=True) > 0.5
    write(tmp_path / "model", pipeline, rows)
    assert load_model(tmp_path / "model", digest=None, pipeline=pipeline).replay().largest_difference > 0.1


def test_a_request_from_json_is_answered_like_the_row_it_was(
    folder: Path, pipeline: Pipeline, rows: pd.DataFrame
) -> None:
    model = load_model(folder, digest=None, pipeline=pipeline)
    raw = rows.drop(columns="late")
    sent = json.loads(json.dumps(rows_of(raw)))
    received = pd.DataFrame(sent, columns=raw.columns)
    assert (model.predict_raw(received) == model.predict_raw(raw)).all()
    typed = conform(model.contract.inputs, received)
    pd.testing.assert_frame_equal(typed, raw)


def test_more_columns_in_another_order_are_the_same_request(
    folder: Path, pipeline: Pipeline, rows: pd.DataFrame
) -> None:
    model = load_model(folder, digest=None, pipeline=pipeline)
    assert (model.predict_raw(rows[rows.columns[::-1]].assign(extra=1)) == model.predict_raw(rows)).all()


def test_a_request_without_its_columns_names_them(folder: Path, pipeline: Pipeline, rows: pd.DataFrame) -> None:
    model = load_model(folder, digest=None, pipeline=pipeline)
    with pytest.raises(DataError, match=r"request: must have the column\(s\) distance, wind"):
        model.predict_raw(rows.drop(columns=["distance", "wind"]))
    with pytest.raises(DataError, match=r"features: must have the column\(s\) wind"):
        model.predict(compute_features(pipeline, rows).drop(columns="wind"))


@pytest.mark.parametrize(
    ("column", "value", "rule"),
    [
        ("distance", "far", "request: distance: must hold number values"),
        ("flight", "AA1", "request: flight: must hold integer values"),
        ("time", "soon", "request: time: must hold timestamp values"),
    ],
)
def test_a_value_of_another_type_is_named(
    folder: Path, pipeline: Pipeline, rows: pd.DataFrame, column: str, value: str, rule: str
) -> None:
    model = load_model(folder, digest=None, pipeline=pipeline)
    with pytest.raises(DataError, match=rule):
        model.predict_raw(rows.head(2).astype({column: object}).assign(**{column: value}))


def test_missing_values_and_new_categories_score(folder: Path, pipeline: Pipeline, rows: pd.DataFrame) -> None:
    model = load_model(folder, digest=None, pipeline=pipeline)
    asked = rows.head(3).assign(carrier_name=["ZZ", None, "AA"], distance=[None, np.inf, 1.0], wind=None)
    assert np.isfinite(model.predict_raw(asked)).all()


def test_encoding_gives_numbers_codes_and_nan() -> None:
    trained = pd.DataFrame({"x": [1, 2], "carrier": ["UA", "AA"], "flag": [True, False], "maybe": [True, None]})
    encode = Encoder(describe_features(trained))
    assert encode.is_category == (False, True, False, False)
    asked = pd.DataFrame(
        {
            "x": pd.array([None, 3], dtype="Int64"),
            "carrier": ["AA", "ZZ"],
            "flag": [None, True],
            "maybe": [False, pd.NA],
        }
    )
    found: Matrix = encode(asked)
    np.testing.assert_array_equal(found.values, [[np.nan, 0, np.nan, 0], [3, np.nan, 1, np.nan]])


@pytest.mark.parametrize(
    ("values", "names", "positions"),
    [
        ([True, False, True], ("False", "True"), [1, 0, 1]),
        ([0.0, 1.0, 1.0], ("0", "1"), [0, 1, 1]),
        ([10, 2, 10], ("2", "10"), [1, 0, 1]),
        (["b", "a", "c"], ("a", "b", "c"), [1, 0, 2]),
    ],
)
def test_classes_are_named_and_ordered_by_value(values: list, names: tuple[str, ...], positions: list[int]) -> None:
    label = pd.Series(values)
    assert class_names(label) == names
    assert encode_label("multiclass", names, label).tolist() == positions


def test_an_unknown_class_is_named() -> None:
    with pytest.raises(DataError, match=r"label late: must be one of 0, 1. Got '2'"):
        encode_label("binary", ("0", "1"), pd.Series([0, 1, 2], name="late"))


def test_a_regression_label_of_words_is_named() -> None:
    with pytest.raises(DataError, match="label delay: must hold numbers"):
        encode_label("regression", (), pd.Series(["far"], name="delay"))


def test_probabilities_are_aligned_by_the_names_of_the_classes() -> None:
    found = align_classes(np.array([[0.3, 0.7]]), ("b", "a"), ("a", "new", "b"))
    assert found.tolist() == [[0.7, 0.0, 0.3]]
