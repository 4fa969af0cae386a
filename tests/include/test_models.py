from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import FunctionTransformer

from airworthy import kinds
from airworthy.encoding import Encoder, class_names, describe_features, encode_label
from airworthy.errors import ModelError, TrainError
from airworthy.models import Matrix, Model
from airworthy.models.sklearn import Sklearn
from airworthy.models.xgboost import Xgboost

ROWS = 400
TREES = {"max_depth": 3, "n_estimators": 20}


def frame(seed: int = 3) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    made = pd.DataFrame({"distance": rng.normal(size=ROWS), "carrier": rng.choice(["AA", "B6", "UA"], ROWS)})
    made["weekend"] = rng.random(ROWS) < 0.3
    signal = made["distance"] + (made["carrier"] == "B6") * 1.5 + made["weekend"]
    made.loc[rng.random(ROWS) < 0.1, "distance"] = np.nan
    made.loc[rng.random(ROWS) < 0.1, "carrier"] = None
    return made.assign(
        late=np.where(signal + rng.normal(0, 0.3, ROWS) > 0.8, "late", "on time"),
        delay=signal * 10,
        band=pd.cut(signal, [-np.inf, -0.2, 1, np.inf], labels=["early", "late", "later"]).astype(str),
    )


LABELS = {"binary": "late", "multiclass": "band", "regression": "delay"}
MODELS: list[Model] = [
    Xgboost(params=TREES),
    Sklearn(estimator="sklearn.ensemble.HistGradientBoostingClassifier", params={"max_iter": 20}),
    Sklearn(estimator="sklearn.ensemble.RandomForestClassifier", params={"n_estimators": 20}),
    Sklearn(estimator="sklearn.linear_model.LogisticRegression"),
    Sklearn(estimator="sklearn.neighbors.KNeighborsClassifier"),
]
CASES = [(model, task) for model in MODELS for task in ("binary", "multiclass")] + [
    (Xgboost(params=TREES), "regression"),
    (Sklearn(estimator="sklearn.ensemble.HistGradientBoostingRegressor", params={"max_iter": 20}), "regression"),
    (Sklearn(estimator="sklearn.linear_model.Ridge"), "regression"),
]
NAMES = [f"{model.kind()}-{getattr(model, 'estimator', '').rpartition('.')[2]}-{task}" for model, task in CASES]


def prepare(task) -> tuple[Matrix, np.ndarray, int, Encoder]:
    rows = frame()
    features = rows[["distance", "carrier", "weekend"]]
    encode = Encoder(describe_features(features))
    label = rows[LABELS[task]]
    classes = () if task == "regression" else class_names(label)
    return encode(features), encode_label(task, classes, label), len(classes), encode


def fit(model: Model, task, **params):
    matrix, label, classes, _ = prepare(task)
    prepared = model.prepare(matrix, label, threads=1)
    return model.fit(task, classes, prepared, params, seed=1, threads=1)


@pytest.mark.parametrize(("model", "task"), CASES, ids=NAMES)
def test_a_model_learns_saves_and_loads_with_the_same_answers(model: Model, task, tmp_path: Path) -> None:
    matrix, label, classes, encode = prepare(task)
    fitted = fit(model, task)
    found = fitted.predict(matrix.values)
    if task == "multiclass":
        assert found.shape == (ROWS, classes)
        assert (found.argmax(axis=1) == label).mean() > 0.6
        assert found.sum(axis=1) == pytest.approx(1, abs=1e-5)
    elif task == "binary":
        assert found.shape == (ROWS,)
        assert roc_auc_score(label, found) > 0.8
    else:
        assert np.corrcoef(label, found)[0, 1] > 0.8
    fitted.save(tmp_path / "model", matrix.names)
    loaded = model.load(tmp_path / "model" / model.file, task)
    assert (loaded.predict(matrix.values) == found).all()
    never_seen = pd.DataFrame({"distance": [None], "carrier": ["ZZ"], "weekend": [None]})
    assert np.isfinite(loaded.predict(encode(never_seen).values)).all()


@pytest.mark.parametrize("model", MODELS[:2], ids=["xgboost", "sklearn"])
def test_the_saved_folder_is_an_mlflow_model(model: Model, tmp_path: Path) -> None:
    import mlflow.pyfunc

    matrix, _, _, _ = prepare("binary")
    fitted = fit(model, "binary")
    fitted.save(tmp_path / "model", matrix.names)
    answers = mlflow.pyfunc.load_model(str(tmp_path / "model")).predict(
        pd.DataFrame(matrix.values, columns=matrix.names)
    )
    answers = np.asarray(answers)
    assert (answers[:, 1] if answers.ndim == 2 else answers) == pytest.approx(fitted.predict(matrix.values), abs=1e-6)


def test_the_same_inputs_give_the_same_xgboost_file(tmp_path: Path) -> None:
    names = prepare("binary")[0].names
    for folder in ("first", "second"):
        fit(MODELS[0], "binary", subsample=0.7).save(tmp_path / folder, names)
    first, second = ((tmp_path / folder / "model.ubj").read_bytes() for folder in ("first", "second"))
    assert first == second
    fit(MODELS[0], "binary", subsample=0.7, seed=2).save(tmp_path / "third", names)
    assert (tmp_path / "third" / "model.ubj").read_bytes() != first


@pytest.mark.parametrize(
    ("params", "seeded"),
    [
        ({}, False),
        ({"subsample": 1.0, "grow_policy": "lossguide", "max_leaves": 8}, False),
        ({"num_parallel_tree": 3}, False),
        ({"subsample": 0.5}, True),
        ({"colsample_bytree": 0.5}, True),
        ({"colsample_bylevel": 0.5}, True),
        ({"colsample_bynode": 0.5}, True),
        ({"booster": "dart", "rate_drop": 0.5}, True),
    ],
    ids=str,
)
def test_a_kind_knows_whether_its_seed_decides_anything(params: dict, seeded: bool) -> None:
    values = prepare("binary")[0].values
    first, *others = (fit(MODELS[0], "binary", **params, seed=seed).predict(values) for seed in range(4))
    assert any(not np.array_equal(first, other) for other in others) == seeded
    assert MODELS[0].seeded(params) == seeded
    assert Xgboost(params={**TREES, **params}).seeded({}) == seeded
    assert MODELS[1].seeded(params)


@pytest.mark.parametrize("model", MODELS[1:], ids=NAMES[2::2][: len(MODELS) - 1])
def test_the_same_inputs_give_the_same_scikit_learn_file(model: Model, tmp_path: Path) -> None:
    names = prepare("binary")[0].names
    kept = []  # so that the second one cannot take the place of the first in memory
    for folder in ("first", "second"):
        kept.append(fit(model, "binary"))
        kept[-1].save(tmp_path / folder, names)
    first, second = ((tmp_path / folder / model.file).read_bytes() for folder in ("first", "second"))
    assert first == second


def weighted(model: Model, task, weight: np.ndarray | None, chosen: np.ndarray | None = None):
    matrix, label, classes, _ = prepare(task)
    rows = np.arange(ROWS) if chosen is None else chosen
    matrix = Matrix(np.nan_to_num(matrix.values.round(1)), matrix.names, (False,) * 3)
    prepared = model.prepare(matrix.rows(rows), label[rows], weight=weight, threads=1)
    return model.fit(task, classes, prepared, {}, seed=1, threads=1).predict(matrix.values)


@pytest.mark.parametrize(
    ("model", "task"),
    [
        (Xgboost(params={**TREES, "min_child_weight": 3}), "binary"),
        (Xgboost(params=TREES), "multiclass"),
        (Xgboost(params=TREES), "regression"),
        (Xgboost(params={**TREES, "tree_method": "exact"}), "binary"),
        (Sklearn(estimator="sklearn.tree.DecisionTreeClassifier", params={"max_depth": 3}), "binary"),
        (
            Sklearn(steps={"impute": "sklearn.impute.SimpleImputer", "model": "sklearn.linear_model.Ridge"}),
            "regression",
        ),
        (
            Sklearn(
                steps={"impute": "sklearn.impute.SimpleImputer", "model": "sklearn.linear_model.LogisticRegression"},
                params={"model__tol": 1e-9, "model__max_iter": 1000},
            ),
            "multiclass",
        ),
    ],
    ids=str,
)
def test_a_weight_of_two_is_a_row_twice_and_of_none_is_no_row(model: Model, task) -> None:
    weight = np.random.default_rng(5).choice([0.0, 1.0, 2.0], ROWS)
    if model.params.get("tree_method") == "exact":
        weight = weight.clip(1)  # the values of rows that count nothing still decide between which ones it splits
    repeated = np.repeat(np.arange(ROWS), weight.astype(int))
    found, expected = weighted(model, task, weight), weighted(model, task, None, repeated)
    assert found == pytest.approx(expected, rel=1e-3, abs=2e-3)
    assert np.abs(found - weighted(model, task, None)).max() > 0.01


def test_an_estimator_without_weights_is_refused_if_rows_have_some() -> None:
    model = Sklearn(estimator="sklearn.neighbors.KNeighborsClassifier")
    with pytest.raises(TrainError, match="must take sample_weight, because rows have weights"):
        weighted(model, "binary", np.ones(ROWS))


STEPS = {
    "impute": "sklearn.impute.SimpleImputer",
    "scale": "sklearn.preprocessing.StandardScaler",
    "reduce": "sklearn.decomposition.PCA",
    "model": "sklearn.ensemble.RandomForestClassifier",
}


def test_a_pipeline_of_estimators_is_trained_with_its_steps_parameters(tmp_path: Path) -> None:
    model = Sklearn(steps=STEPS, params={"impute__strategy": "median", "reduce__n_components": 2})
    fitted = fit(model, "multiclass", model__n_estimators=7)
    own = fitted._model.steps[-1][1]
    assert [name for name, _ in own.steps] == list(STEPS)
    assert (own["impute"].strategy, own["reduce"].n_components_, len(own["model"].estimators_)) == ("median", 2, 7)
    assert own["model"].random_state == own["reduce"].random_state == 1
    fitted.save(tmp_path / "model", prepare("multiclass")[0].names)
    values = prepare("multiclass")[0].values
    loaded = model.load(tmp_path / "model" / model.file, "multiclass")
    assert (loaded.predict(values) == fitted.predict(values)).all() and loaded.predict(values).shape == (ROWS, 3)


def test_a_pipeline_whose_first_step_takes_no_missing_values_gets_what_a_single_estimator_gets() -> None:
    steps = {"reduce": "sklearn.decomposition.PCA", "model": "sklearn.linear_model.LogisticRegression"}
    fitted = fit(Sklearn(steps=steps), "binary")
    assert [name for name, _ in fitted._model.steps] == ["columntransformer", "pipeline"]


@pytest.mark.parametrize(
    ("declared", "rule"),
    [
        ({"steps": {"model": "os.system"}}, "steps.model"),
        ({"steps": {"a__b": "sklearn.linear_model.Ridge"}}, "a__b"),
        (
            {"steps": {"m": "sklearn.linear_model.Ridge"}, "estimator": "sklearn.linear_model.Ridge"},
            "must be either one",
        ),
        ({}, "must be either one"),
    ],
)
def test_what_is_neither_an_estimator_nor_a_pipeline_is_refused(declared: dict, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        kinds.parse("models", {"sklearn": declared})


@pytest.mark.parametrize(
    ("steps", "rule"),
    [
        ({"scale": "sklearn.preprocessing.StandardScaler"}, "must give probabilities|must be estimators"),
        ({"a": "sklearn.linear_model.LogisticRegression", "b": "sklearn.linear_model.LogisticRegression"}, "must be"),
        ({"a": "sklearn.nowhere.Thing"}, r"steps\.a: must be a class of the installed"),
    ],
)
def test_a_pipeline_that_cannot_train_is_named(steps: dict, rule: str) -> None:
    with pytest.raises(TrainError, match=rule):
        fit(Sklearn(steps=steps), "binary")


def test_one_prepared_matrix_serves_trials_with_other_parameters() -> None:
    matrix, label, classes, _ = prepare("binary")
    model = MODELS[0]
    shared = model.prepare(matrix, label, threads=1)
    for params in ({"max_depth": 2}, {"max_depth": 4, "max_bin": 16}, {"max_depth": 2}):
        fresh = model.prepare(matrix, label, threads=1)
        answers = [model.fit("binary", classes, data, params, seed=1, threads=1) for data in (shared, fresh)]
        assert (answers[0].predict(matrix.values) == answers[1].predict(matrix.values)).all()


@pytest.mark.parametrize("model", [Xgboost(params={"max_dpeth": 3}), Sklearn(estimator="sklearn.linear_model.Ridge")])
def test_a_parameter_the_library_does_not_know_is_refused(model: Model) -> None:
    with pytest.raises(TrainError, match=r"(must have the parameter\(s\) max_dpeth|only parameters that XGBoost uses)"):
        fit(model, "regression", max_dpeth=3)


@pytest.mark.parametrize(
    ("estimator", "task", "rule"),
    [
        ("sklearn.ensemble.NoSuchThing", "binary", "must be a class of the installed scikit-learn"),
        ("sklearn.nowhere.Ridge", "regression", "must be a class of the installed scikit-learn"),
        ("sklearn.linear_model.LogisticRegression", "regression", "must be a regressor"),
        ("sklearn.svm.LinearSVC", "binary", "must give probabilities"),
        ("sklearn.ensemble.VotingClassifier", "binary", "must not need arguments"),
    ],
)
def test_an_estimator_that_does_not_fit_is_named(estimator: str, task, rule: str) -> None:
    with pytest.raises(TrainError, match=rule):
        fit(Sklearn(estimator=estimator), task)


@pytest.mark.parametrize(
    "estimator", ["os.system", "sklearn.Ridge()", "xsklearn.linear_model.Ridge", "sklearn.linear_model"]
)
def test_only_scikit_learn_can_be_named(estimator: str) -> None:
    with pytest.raises(ValueError, match="estimator"):
        kinds.parse("models", {"sklearn": {"estimator": estimator}})


def test_a_parameter_of_the_wrong_type_is_explained() -> None:
    with pytest.raises(TrainError, match="max_depth expect int but value='deep'"):
        fit(Xgboost(params={"max_depth": "deep"}), "binary")


@pytest.mark.parametrize("model", MODELS[:2], ids=["xgboost", "sklearn"])
@pytest.mark.parametrize(
    "damage", [lambda content: content[: len(content) // 2], lambda content: b"", lambda content: b"x" * 99]
)
def test_a_damaged_file_is_refused(model: Model, damage, tmp_path: Path) -> None:
    fit(model, "binary").save(tmp_path / "model", prepare("binary")[0].names)
    file = tmp_path / "model" / model.file
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ModelError, match=f"model files: {model.file}"):
        model.load(file, "binary")


def test_a_skops_file_that_names_a_foreign_type_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.skops"
    skops.io.dump(FunctionTransformer(print), file)
    with zipfile.ZipFile(file) as archive:
        assert "print" in json.dumps(json.loads(archive.read("schema.json")))
    with pytest.raises(ModelError, match="must hold only trusted types"):
        Sklearn.load(file, "binary")


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "harm",))

    for model in MODELS[:2]:
        file = tmp_path / model.file
        file.write_bytes(pickle.dumps(Harm()))
        with pytest.raises(ModelError):
            model.load(file, "binary")
    assert not (tmp_path / "harm").exists()
