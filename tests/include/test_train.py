from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from airworthy.errors import Problems, ServiceError, TrainError
from airworthy.metrics import score
from airworthy.model_files import REFERENCE, digest_of, load_model
from airworthy.registry import Registry
from airworthy.resources import Usage
from airworthy.stages.train import train
from airworthy.stages.training_data import intervals, read_training_data, row_weights
from airworthy.store import Store
from toy_pipeline import TOY_START, Toy

AS_OF = datetime(2013, 4, 1, tzinfo=UTC)
TUNE = {
    "trials": 3,
    "space": {
        "max_depth": {"int": [1, 4]},
        "eta": {"float": [0.05, 0.5], "log": True},
        "max_bin": {"choice": [16, 64]},
    },
}


def day(month: int, day: int, hour: int = 0) -> datetime:
    return datetime(2013, month, day, hour, tzinfo=UTC)


def test_the_holdout_ends_where_labels_are_known(toy: Toy) -> None:
    pipeline = toy.pipeline(label={"column": "late", "matures_after": "2 days"})
    assert intervals(pipeline, AS_OF) == ((TOY_START, day(3, 1)), (day(3, 1), day(3, 30)))
    pipeline = toy.pipeline(train={"holdout": "2 weeks", "window": "1 month"})
    assert intervals(pipeline, AS_OF) == ((day(2, 18), day(3, 18)), (day(3, 18), day(3, 31)))


def test_a_moment_that_leaves_no_rows_is_named(toy: Toy) -> None:
    with pytest.raises(TrainError, match="as_of: must leave time to train on after 2013-01-01"):
        intervals(toy.pipeline(), day(1, 20))


def test_only_rows_with_a_known_label_in_time_count(toy: Toy) -> None:
    pipeline = toy.pipeline()
    rows = toy.rows()
    rows["late"] = rows["late"].astype("boolean")
    rows.loc[rows["day"].isin([3, 70]), "late"] = pd.NA
    store = toy.fill(pipeline, rows)
    data = read_training_data(pipeline, AS_OF, store)
    assert (data.window["time"].min(), data.window["time"].max()) < (day(1, 2), day(3, 1))
    assert data.holdout["time"].min() >= day(3, 1)
    assert data.holdout["time"].max() < day(3, 31)
    assert set(data.window["day"]) == set(range(59)) - {3}
    assert set(data.holdout["day"]) == set(range(59, 89)) - {70}
    assert data.features.rows == len(data.window) + len(data.holdout)


def test_training_puts_everything_on_record(toy: Toy, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    pipeline = toy.pipeline(tune=TUNE)
    store = toy.fill(pipeline, toy.rows())
    challenger = train(pipeline, AS_OF, toy.profile, tags={"airflow.run_id": "manual__1"})
    run = MlflowClient(toy.mlflow_uri).get_run(challenger.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["airflow.run_id"] == "manual__1"
    assert run.data.tags["window"] == "2013-01-01 00:00 to 2013-03-01 00:00"
    assert run.data.tags["holdout"] == "2013-03-01 00:00 to 2013-03-31 00:00"
    assert run.data.tags["features.version"] == str(store.version("features"))
    assert run.data.tags["features.digest"] == challenger.features.digest
    assert run.data.tags["features.function"] == "toy_features:features"
    assert len(run.data.tags["features.function_digest"]) == 64
    assert "code" in run.data.tags
    assert {name: run.data.metrics[name] for name in challenger.metrics} == pytest.approx(challenger.metrics)
    assert challenger.metrics["roc_auc"] > 0.75
    registry = Registry(toy.profile)
    trials = registry.load_json(challenger.run_id, "trials.json")
    cost = ["stopped_at", "seconds", "cpu_seconds", "peak_mb", "latency_ms", "size_mb"]
    assert trials["columns"] == ["trial", "value", *cost, "eta", "max_bin", "max_depth"]
    assert len(trials["data"]) == 3
    best = max(trials["data"], key=lambda row: row[1])
    assert run.data.params == {
        "n_estimators": "15",
        "eta": str(best[8]),
        "max_bin": str(best[9]),
        "max_depth": str(best[10]),
    }
    assert all(row[4] > 0 and row[5] >= 0 for row in trials["data"])
    taken = {name: run.data.metrics[f"resources/{name}"] for name in Usage._fields}
    assert taken["cpu_seconds"] >= sum(row[4] for row in trials["data"])
    assert 0 <= taken["peak_mb"] < taken["resident_mb"]  # a trial may grow where the process had shrunk before
    assert taken["seconds"] >= max(row[3] for row in trials["data"])
    history = MlflowClient(toy.mlflow_uri).get_metric_history(challenger.run_id, "best_roc_auc")
    assert [(point.step, point.value) for point in history] == [
        (row[0], max(other[1] for other in trials["data"][: row[0] + 1])) for row in trials["data"]
    ]
    page = registry.load_artifact(challenger.run_id, "tuning.html").decode()
    assert "3 trials, 0 of them stopped early" in page and "<svg" in page
    assert registry.load_json(challenger.run_id, "environment.json")["mlflow"].startswith("3.")
    assert len([line for line in caplog.messages if line.startswith("trial ")]) == 3


def test_the_recorded_model_gives_the_recorded_score(toy: Toy, tmp_path: Path) -> None:
    pipeline = toy.pipeline(tune=TUNE)
    rows = toy.rows()
    toy.fill(pipeline, rows)
    challenger = train(pipeline, AS_OF, toy.profile)
    files = Registry(toy.profile).download(challenger.model_id, tmp_path / "model")
    assert digest_of(files) == challenger.digest
    model = load_model(files, digest=challenger.digest, pipeline=pipeline)
    holdout = rows[(rows["time"] >= day(3, 1)) & (rows["time"] < day(3, 31))]
    predicted = model.predict_raw(holdout.drop(columns="late"))
    assert (
        score("binary", "roc_auc", holdout["late"].to_numpy().astype(int), predicted) == challenger.metrics["roc_auc"]
    )
    replayed = model.replay()
    assert (replayed.requests, replayed.largest_difference) == (50, 0.0)
    reference = pd.read_parquet(files / REFERENCE)
    assert list(reference.columns) == ["distance", "carrier_name", "wind", "hour", "long", "prediction"]
    assert len(reference) == 59 * 20
    assert reference["prediction"].between(0, 1).all()


def test_training_again_makes_no_second_model(toy: Toy) -> None:
    pipeline = toy.pipeline()
    rows = toy.rows()
    toy.fill(pipeline, rows[rows["time"] < AS_OF])
    first = train(pipeline, AS_OF, toy.profile)
    toy.fill(pipeline, rows)  # later partitions arrive, which makes a new version of the table
    again = train(pipeline, AS_OF, toy.profile)
    assert not first.reused
    assert again == first.model_copy(update={"reused": True})
    assert [found.run_id for found in Registry(toy.profile).trainings(pipeline.name)] == [first.run_id]


@pytest.mark.parametrize("change", ["rows", "declaration", "as_of", "code"])
def test_what_changes_the_training_makes_another_model(toy: Toy, change: str) -> None:
    pipeline, as_of = toy.pipeline(), AS_OF
    rows = toy.rows()
    toy.fill(pipeline, rows)
    first = train(pipeline, as_of, toy.profile)
    if change == "rows":
        rows.loc[5, "distance"] = 9.0
        toy.fill(pipeline, rows)
    elif change == "declaration":
        pipeline = toy.pipeline(model={"xgboost": {"params": {"max_depth": 2, "n_estimators": 15}}})
    elif change == "as_of":
        as_of = day(4, 2)
    else:
        module = toy.folder / "code" / "toy_features.py"
        module.write_text(module.read_text() + "# a second edition\n")
    second = train(pipeline, as_of, toy.profile)
    assert not second.reused
    assert second.training_key != first.training_key


def test_the_same_training_in_another_place_gives_the_same_files(toy: Toy) -> None:
    pipeline = toy.pipeline(tune=TUNE)
    toy.fill(pipeline, toy.rows())
    first = train(pipeline, AS_OF, toy.profile)
    MlflowClient(toy.mlflow_uri).delete_run(first.run_id)
    second = train(pipeline, AS_OF, toy.profile)
    assert second.run_id != first.run_id
    assert (second.training_key, second.digest) == (first.training_key, first.digest)


def test_tuning_does_not_see_the_holdout(toy: Toy) -> None:
    pipeline = toy.pipeline(tune=TUNE)
    rows = toy.rows()
    toy.fill(pipeline, rows)
    first = train(pipeline, AS_OF, toy.profile)
    later = rows["time"] >= day(3, 1)
    rows.loc[later, "late"] = np.random.default_rng(1).permutation(rows.loc[later, "late"])
    toy.fill(pipeline, rows)
    second = train(pipeline, AS_OF, toy.profile)
    client = MlflowClient(toy.mlflow_uri)
    params = [client.get_run(challenger.run_id).data.params for challenger in (first, second)]
    assert params[0] == params[1]
    assert second.metrics["roc_auc"] == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(
    ("task", "label", "model"),
    [
        ("multiclass", "band", {"xgboost": {"params": {"n_estimators": 10}}}),
        ("multiclass", "band", {"sklearn": {"estimator": "sklearn.linear_model.LogisticRegression"}}),
        ("regression", "delay", {"xgboost": {"params": {"n_estimators": 10}}}),
        ("regression", "delay", {"sklearn": {"estimator": "sklearn.ensemble.HistGradientBoostingRegressor"}}),
    ],
)
def test_other_tasks_and_models(toy: Toy, tmp_path: Path, task: str, label: str, model: dict) -> None:
    pipeline = toy.pipeline(label={"column": label, "task": task}, model=model)
    rows = toy.rows().drop(columns="late")
    delay = rows["distance"] * 10 + (rows["carrier_name"] == "B6") * 5
    band = np.where(delay > 5, "late", np.where(delay < -5, "early", "on time"))
    band[(rows["time"] > day(3, 5)) & (delay > 20)] = "very late"  # a class the window has never seen
    toy.fill(pipeline, rows.assign(**{label: band if label == "band" else delay}))
    challenger = train(pipeline, AS_OF, toy.profile)
    assert challenger.metrics["accuracy" if task == "multiclass" else "r2"] > 0.6
    files = Registry(toy.profile).download(challenger.model_id, tmp_path / "model")
    loaded = load_model(files, digest=challenger.digest, pipeline=pipeline)
    assert loaded.replay().largest_difference == pytest.approx(0.0, abs=1e-12)
    assert loaded.contract.classes == (("early", "late", "on time") if task == "multiclass" else ())


def test_rows_count_as_their_weight_says_and_excluded_columns_are_not_learned(toy: Toy, tmp_path: Path) -> None:
    rows = toy.rows().assign(share=1.0, region="north")
    rows.loc[rows["carrier_name"] == "B6", "share"] = 0.0
    learning = {"holdout": "1 month", "weight": "share", "exclude": ["region", "distance"]}
    plain = toy.pipeline(features=None, train={"holdout": "1 month"})
    toy.fill(plain, rows)
    first = train(plain, AS_OF, toy.profile)
    pipeline = toy.pipeline(features=None, train=learning)
    second = train(pipeline, AS_OF, toy.profile)
    registry, models = Registry(toy.profile), []
    for challenger, declared in ((first, plain), (second, pipeline)):
        files = registry.download(challenger.model_id, tmp_path / challenger.run_id)
        models.append(load_model(files, digest=challenger.digest, pipeline=declared))
    names = [{feature.name for feature in model.contract.features} for model in models]
    assert names[0] - names[1] == {"share", "region", "distance"} and names[1] == {"carrier_name", "wind"}
    inputs = [{column.name for column in model.contract.inputs} for model in models]
    assert inputs[0] - inputs[1] == {"share", "region", "distance"}  # no request has to have them
    request = rows.drop(columns=["share", "region", "distance", "late"]).head(1)
    asked = [models[1].predict_raw(request.assign(carrier_name=name))[0] for name in ("AA", "UA", "B6")]
    assert len(set(asked)) < 3  # no row of B6 counted, so B6 is told apart from at most one of the others


def test_balanced_classes_have_equal_sums_of_weights(toy: Toy) -> None:
    from sklearn.utils.class_weight import compute_sample_weight

    label = np.array([0] * 90 + [1] * 10)
    frame = pd.DataFrame({"share": np.linspace(1, 3, 100)})
    balanced = toy.pipeline(train={"imbalance": "balanced"})
    assert row_weights(balanced, frame, label) == pytest.approx(compute_sample_weight("balanced", label))
    both = row_weights(toy.pipeline(train={"imbalance": "balanced", "weight": "share"}), frame, label)
    assert both is not None and both.sum() == pytest.approx(200) and both[label == 1].sum() == pytest.approx(100)
    assert both[1] / both[0] == pytest.approx(frame["share"][1] / frame["share"][0])
    assert row_weights(toy.pipeline(), frame, label) is None


def test_a_balanced_model_gives_the_rare_class_a_higher_probability(toy: Toy) -> None:
    rows = toy.rows()
    toy.fill(toy.pipeline(), rows)
    plain = train(toy.pipeline(), AS_OF, toy.profile)
    balanced = train(toy.pipeline(train={"holdout": "1 month", "imbalance": "balanced"}), AS_OF, toy.profile)
    assert balanced.metrics["log_loss"] > plain.metrics["log_loss"]  # half of the weight is late, a quarter of the rows
    assert balanced.metrics["roc_auc"] == pytest.approx(plain.metrics["roc_auc"], abs=0.05)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0, -1.0], r"train.weight: share: must be at least 0 in every row, but is not in 590 of 1,180. Got '-1'"),
        ([1.0, np.nan], r"must be at least 0 in every row, but is not in 590 of 1,180. Got 'nan'"),
        ([0.0, 0.0], "must be above 0 in some row"),
        (["a", "b"], "must hold numbers"),
    ],
)
def test_weights_that_are_none_are_named(toy: Toy, values: list, message: str) -> None:
    pipeline = toy.pipeline(features=None, train={"holdout": "1 month", "weight": "share"})
    rows = toy.rows()
    toy.fill(pipeline, rows.assign(share=np.resize(np.array(values), len(rows))))
    with pytest.raises(TrainError, match=message):
        train(pipeline, AS_OF, toy.profile)


def test_columns_that_are_not_there_are_all_named(toy: Toy) -> None:
    pipeline = toy.pipeline(train={"holdout": "1 month", "weight": "shares", "exclude": ["winds"]})
    toy.fill(pipeline, toy.rows())
    with pytest.raises(Problems, match=r"train.weight: must name a column of features. Got 'shares'[^$]*Got 'winds'"):
        train(pipeline, AS_OF, toy.profile)
    every = ["distance", "carrier_name", "wind", "hour", "long"]
    with pytest.raises(Problems, match="must leave a column to learn from"):
        train(toy.pipeline(train={"holdout": "1 month", "exclude": every}), AS_OF, toy.profile)


def test_a_label_with_one_class_is_named(toy: Toy) -> None:
    pipeline = toy.pipeline()
    toy.fill(pipeline, toy.rows().assign(late=False))
    with pytest.raises(TrainError, match=r"label late: must hold more than one class in the 1,180 rows.*only False"):
        train(pipeline, AS_OF, toy.profile)


def test_a_holdout_with_one_class_is_named(toy: Toy) -> None:
    pipeline = toy.pipeline()
    rows = toy.rows()
    rows.loc[rows["time"] >= day(3, 1), "late"] = True
    toy.fill(pipeline, rows)
    with pytest.raises(
        TrainError, match=r"label late: must hold both classes in the 600 rows of the holdout.*only True"
    ):
        train(pipeline, AS_OF, toy.profile)


def test_a_binary_label_with_three_classes_is_named(toy: Toy) -> None:
    pipeline = toy.pipeline()
    rows = toy.rows()
    toy.fill(pipeline, rows.assign(late=rows["day"] % 3))
    with pytest.raises(TrainError, match=r"label late: must hold two classes to be binary. Got '0, 1, 2'"):
        train(pipeline, AS_OF, toy.profile)


def test_no_features_table_is_named(toy: Toy) -> None:
    pipeline = toy.pipeline()
    with pytest.raises(TrainError, match=f"{pipeline.name}: features: must exist.*Run {pipeline.name}.ingest"):
        train(pipeline, AS_OF, toy.profile)


def test_a_holdout_that_is_not_ingested_is_named(toy: Toy) -> None:
    pipeline = toy.pipeline()
    rows = toy.rows()
    toy.fill(pipeline, rows[rows["time"] < day(3, 1)])
    with pytest.raises(TrainError, match=r"must have labelled rows from 2013-03-01 .* \(the holdout\)"):
        train(pipeline, AS_OF, toy.profile)


def test_mlflow_being_down_is_named_with_what_to_do(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airworthy.mlflow_server._ANSWER_WITHIN", 0.5)
    pipeline = toy.pipeline()
    toy.fill(pipeline, toy.rows())
    profile = toy.profile.model_copy(update={"mlflow_uri": "http://127.0.0.1:1"})
    with pytest.raises(ServiceError, match=r"MLflow at http://127.0.0.1:1: must answer.*make up"):
        train(pipeline, AS_OF, profile)
    assert Store(profile.store_uri, pipeline.name).version("features") is not None
