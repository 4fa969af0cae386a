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
