"""A change of raw data never reaches a model silently: it gets exactly its inputs, or a clear error."""

from __future__ import annotations

import pandas as pd
import pytest

from airworthy.config import Pipeline
from airworthy.errors import Problems
from airworthy.partitions import parse_key
from airworthy.stages.ingest import ingest
from airworthy.stages.monitor import score
from airworthy.stages.process import process
from airworthy.stages.validate import validate
from airworthy.store import Store
from serving_process import promote, trained
from toy_pipeline import Toy

APRIL = parse_key("month", "2013-04-01")
MAY = parse_key("month", "2013-05-01")


def april(toy: Toy) -> pd.DataFrame:
    rows = toy.rows(days=120)
    return rows[rows["time"] >= APRIL.start].reset_index(drop=True)


def declared(toy: Toy, on_change: str, features: str | None) -> Pipeline:
    source = {"files": {"glob": str(toy.folder / "{partition}.parquet")}}
    return toy.pipeline(source=source, features=features, contract={"on_change": on_change})


def champion(toy: Toy, features: str | None) -> Store:
    """Returns the tables of a pipeline with a contract, learnt in January, and a champion of the end of March."""
    pipeline = declared(toy, "block", features)
    rows = toy.rows(days=120)
    for month in ("2013-01-01", "2013-02-01", "2013-03-01"):
        partition = parse_key("month", month)
        chosen = rows["time"].between(partition.start, partition.end, inclusive="left")
        bring(toy, pipeline, rows[chosen].reset_index(drop=True), month)
    promote(toy, trained(toy, pipeline))
    return Store(toy.profile.store_uri, toy.name)


def bring(toy: Toy, pipeline: Pipeline, rows: pd.DataFrame, month: str = APRIL.key) -> None:
    """Takes rows through ingest, validate and process."""
    partition, store = parse_key("month", month), Store(toy.profile.store_uri, toy.name)
    rows.to_parquet(toy.folder / f"{month}.parquet")
    raw = ingest(pipeline, partition, store)
    process(pipeline, partition, validate(pipeline, partition, raw, store, toy.profile.reports_dir), store)


FEATURES = pytest.mark.parametrize("features", [None, "toy_features:features"], ids=["raw columns", "code"])


@FEATURES
def test_a_model_is_not_given_a_new_column(toy: Toy, features: str | None) -> None:
    store = champion(toy, features)
    bring(toy, declared(toy, "block", features), april(toy))
    expected = score(declared(toy, "block", features), APRIL, toy.profile)
    bring(toy, declared(toy, "evolve", features), april(toy).assign(rain=1.5))
    assert ("rain" in store.read("features").columns) == (features is None)
    if features is None:
        assert store.read("features").groupby(store.read("features")["time"] < APRIL.start)[
            "rain"
        ].count().tolist() == [
            len(april(toy)),
            0,
        ]
    assert score(declared(toy, "evolve", features), APRIL, toy.profile) == expected.model_copy(
        update={"changed": False}
    )


@FEATURES
@pytest.mark.parametrize("on_change", ["warn", "evolve"])
def test_a_model_does_not_score_without_what_it_was_trained_on(toy: Toy, features: str | None, on_change: str) -> None:
    store = champion(toy, features)
    pipeline = declared(toy, on_change, features)
    bring(toy, pipeline, april(toy).drop(columns="wind"))
    assert store.read("features", partitions=[APRIL.key])["wind"].isna().all()
    with pytest.raises(Problems, match=r"features\[2013-04-01\]: wind: must hold values.*The source left out wind"):
        score(pipeline, APRIL, toy.profile)
    assert store.version("predictions") is None


def test_a_column_that_is_empty_at_its_source_is_scored(toy: Toy) -> None:
    champion(toy, None)
    pipeline = declared(toy, "warn", None)
    bring(toy, pipeline, april(toy).assign(wind=float("nan")))
    assert score(pipeline, APRIL, toy.profile).rows == len(april(toy))


@FEATURES
def test_a_model_is_given_decimals_as_it_was_given_whole_numbers(toy: Toy, features: str | None) -> None:
    rows = toy.rows
    toy.rows = lambda days=100, seed=0: rows(days, seed).assign(distance=lambda f: f["distance"].round().astype(int))  # type: ignore[method-assign]
    store = champion(toy, features)
    whole = april(toy)
    pipeline = declared(toy, "evolve", features)
    bring(toy, pipeline, whole)
    expected = score(pipeline, APRIL, toy.profile)
    half = whole.assign(distance=whole["distance"].astype("float64"))
    half.loc[0, "distance"] += 0.5
    if features is not None:  # what code returns must stay as the table has it, and the error says so
        with pytest.raises(Problems, match=r"features\[2013-04-01\]: distance: must hold int64, as the table does"):
            bring(toy, pipeline, half)
        return
    bring(toy, pipeline, half)
    assert store.read("features")["distance"].dtype == "float64"
    score(pipeline, APRIL, toy.profile)
    found = store.read("predictions", partitions=[APRIL.key])
    before = store.read("predictions", partitions=[APRIL.key], version=expected.version)
    assert found["prediction"].iloc[1:].equals(before["prediction"].iloc[1:])


def test_what_code_makes_of_a_new_column_is_refused_with_the_remedy(toy: Toy) -> None:
    code = "def features(frame):\n    return frame.drop(columns=['flight', 'day', 'time'])\n"
    (toy.folder / "code" / "all_features.py").write_text(code)
    champion(toy, "all_features:features")
    with pytest.raises(Problems, match=r"features\[2013-04-01\]: rain: is not a column of the table.*new table"):
        bring(toy, declared(toy, "evolve", "all_features:features"), april(toy).assign(rain=1.5))
