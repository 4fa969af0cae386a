"""A class of the user's own is trained, saved without its code, and served as the file in include/pipelines has it."""

from __future__ import annotations

import hashlib
import json
import sys
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from airworthy.config import Pipeline
from airworthy.errors import DataError, ModelError, Problems, TrainError
from airworthy.model_files import digest_of, load_model
from airworthy.models import Matrix
from airworthy.models.python import Python
from airworthy.registry import Registry
from airworthy.serving.check import check_in_fresh_process
from airworthy.stages.evaluate import evaluate, judge
from airworthy.stages.train import train
from serving_process import promote
from toy_pipeline import Toy

AS_OF = datetime(2013, 4, 1, tzinfo=UTC)
MODELS = '''
import json
from dataclasses import dataclass, field

import numpy as np


class Linear:
    """Least squares on columns without missing values, squeezed into a probability."""

    def __init__(self, ridge=1.0, seed=None):
        self.ridge, self.seed = ridge, seed

    def fit(self, features, label, sample_weight=None):
        self.names = list(features.columns)
        self.means = features.mean()[self.names].to_numpy()
        filled = np.c_[features.fillna(features.mean()).to_numpy(), np.ones(len(features))]
        weight = np.ones(len(label)) if sample_weight is None else sample_weight
        square = (filled * weight[:, None]).T @ filled + self.ridge * np.eye(filled.shape[1])
        self.slope = np.linalg.solve(square, (filled * weight[:, None]).T @ label)

    def score(self, features):
        values = features.to_numpy()
        filled = np.where(np.isnan(values), self.means, values)
        return np.c_[filled, np.ones(len(filled))] @ self.slope

    def predict(self, features):
        return np.clip(self.score(features), 0, 1)


class Regressor(Linear):
    predict = Linear.score


class Classes(Linear):
    """One line for each class."""

    def fit(self, features, label):
        self.parts = []
        for number in range(int(label.max()) + 1):
            part = Linear(self.ridge)
            part.fit(features, (label == number).astype(float))
            self.parts.append((part.means, part.slope))

    def predict_proba(self, features):
        found = []
        for self.means, self.slope in self.parts:
            found.append(np.exp(5 * self.score(features)))
        return np.array(found).T / np.sum(found, axis=0)[:, None]


@dataclass
class Stored:
    """Saves itself, in two files."""

    ridge: float = 1.0
    inner: object = field(default=None)

    def fit(self, features, label):
        self.inner = Linear(self.ridge)
        self.inner.fit(features, label)

    def predict(self, features):
        return self.inner.predict(features)

    def save(self, folder):
        (folder / "deep").mkdir()
        (folder / "deep" / "slope.json").write_text(json.dumps(self.inner.slope.tolist()))
        (folder / "means.json").write_text(json.dumps(self.inner.means.tolist()))

    @classmethod
    def load(cls, folder):
        made = cls(inner=Linear())
        made.inner.slope = np.array(json.loads((folder / "deep" / "slope.json").read_text()))
        made.inner.means = np.array(json.loads((folder / "means.json").read_text()))
        return made


class Wrong(Linear):
    def predict(self, features):
        return self.score(features) * 1000


class Raising(Linear):
    def fit(self, features, label):
        raise KeyError("no such thing")


class Odd(Linear):
    def fit(self, features, label):
        super().fit(features, label)
        self.callback = print


class InPlace(Linear):
    def fit(self, features, label, sample_weight):
        super().fit(features, label, sample_weight)
        features.fillna(0, inplace=True)
        features.loc[:, "a"] = 0
        label[:] = 1
        sample_weight[:] = 5

    def predict(self, features):
        found = super().predict(features)
        features.loc[:, "b"] = 0
        return found


class Edited(Linear):
    def fit(self, features, label):
        super().fit(features, label)
        with open(__file__, "a") as file:
            file.write("# meanwhile\\n")


class Half:
    def fit(self, features, label):
        pass
'''


@pytest.fixture
def code(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file pipelines/toy_model.py, in this process and in those it starts."""
    folder = toy.folder / "code" / "pipelines"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "toy_model.py").write_text(MODELS)
    for name in [name for name in sys.modules if name.partition(".")[0] == "pipelines"]:
        monkeypatch.delitem(sys.modules, name)
    yield folder / "toy_model.py"
    for name in [name for name in sys.modules if name.partition(".")[0] == "pipelines"]:
        del sys.modules[name]


def declared(toy: Toy, name: str, **changes: Any) -> Pipeline:
    return toy.pipeline(model={"python": {"class": f"pipelines.toy_model:{name}", "params": {"ridge": 0.1}}}, **changes)


def rows(toy: Toy, task: str) -> Any:
    made = toy.rows()
    delay = made["distance"] * 10 + made["wind"].fillna(0)
    if task == "binary":
        return made
    bands = np.where(delay > 5, "late", np.where(delay < -5, "early", "on time"))
    return made.assign(late=delay if task == "regression" else bands)


@pytest.mark.parametrize(
    ("name", "task", "metric"),
    [
        ("Linear", "binary", "roc_auc"),
        ("Stored", "binary", "roc_auc"),
        ("Classes", "multiclass", "accuracy"),
        ("Regressor", "regression", "r2"),
    ],
)
def test_a_class_is_tuned_saved_and_answers_in_a_fresh_process(
    toy: Toy, code: Path, tmp_path: Path, name: str, task: str, metric: str
) -> None:
    tune = {"trials": 2, "space": {"ridge": {"float": [0.01, 1]}}}
    pipeline = declared(toy, name, label={"column": "late", "task": task}, tune=tune)
    toy.fill(pipeline, rows(toy, task))
    challenger = train(pipeline, AS_OF, toy.profile)
    assert challenger.metrics[metric] > 0.6
    files = Registry(toy.profile).download(challenger.model_id, tmp_path / "model")
    loaded = load_model(files, digest=challenger.digest, pipeline=pipeline)
    assert loaded.replay().largest_difference < 1e-12 and loaded.contract.model_code == pipeline.model.code()
    assert check_in_fresh_process(files, challenger.digest, pipeline.name).largest_difference < 1e-12
    if name == "Stored":  # from elsewhere, its own `load` might run what somebody put into its files
        with pytest.raises(ModelError, match=r"must not be read by the class's own `load`.*--trust"):
            load_model(files, digest=challenger.digest, pipeline=pipeline, foreign=True)
    else:
        load_model(files, digest=challenger.digest, pipeline=pipeline, foreign=True)
    loaded.save(tmp_path / "again")
    assert digest_of(tmp_path / "again") == challenger.digest
    with zipfile.ZipFile(files / "model.zip") as archive:
        names = set(archive.namelist())
    assert names == {
        "about.json",
        *(("own/deep/slope.json", "own/means.json") if name == "Stored" else ["state.skops"]),
    }
    again = train(pipeline, AS_OF, toy.profile)
    assert again.reused
    code.write_text(MODELS + "# a second edition\n")
    assert not train(pipeline, AS_OF, toy.profile).reused  # other code, another model


def matrix(seed: int = 0) -> tuple[Matrix, np.ndarray]:
    values = np.random.default_rng(seed).normal(size=(200, 3))
    return Matrix(values, ("a", "b", "c"), (False,) * 3), (values[:, 0] > values[:, 1]).astype(int)


def fitted(name: str, weight: np.ndarray | None = None, **params: Any) -> Any:
    found, label = matrix()
    model = Python.model_validate({"class": f"pipelines.toy_model:{name}", "params": params})
    prepared = model.prepare(found, label, weight=weight, threads=1)
    return model.fit("binary", 2, prepared, {}, seed=7, threads=1)


@pytest.mark.parametrize("name", ["Linear", "Stored"])
def test_code_that_changed_since_training_is_told_and_used(
    toy: Toy, code: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    made = fitted(name)
    made.save(tmp_path / "model", ["a", "b", "c"])
    file = tmp_path / "model" / "model.zip"
    answers = made.predict(matrix()[0].values)
    loaded = Python.load(file, "binary")
    assert (loaded.predict(matrix()[0].values) == answers).all() and not loaded.code_changed and not caplog.messages
    code.write_text(MODELS + "# a comment\n")
    loaded = Python.load(file, "binary")
    assert (loaded.predict(matrix()[0].values) == answers).all() and loaded.code_changed
    told = f"model files: model.zip: pipelines.toy_model:{name} is not as it was when the model was trained"
    assert caplog.messages == [told]
    code.write_text(MODELS.replace("np.clip(", "1 - np.clip("))
    assert (Python.load(file, "binary").predict(matrix()[0].values) == 1 - answers).all()
    assert (made.predict(matrix()[0].values) == answers).all()
    code.write_text(MODELS)
    assert (Python.load(file, "binary").predict(matrix()[0].values) == answers).all()


def test_a_champion_whose_code_was_edited_is_judged_if_it_answers_as_in_training(toy: Toy, code: Path) -> None:
    pipeline = declared(toy, "Linear", gates=["beats_champion"])
    toy.fill(pipeline, toy.rows())
    champion = train(pipeline, AS_OF, toy.profile)
    entry = promote(toy, champion)
    code.write_text(MODELS + "# a comment\n")
    challenger = train(pipeline, AS_OF, toy.profile)
    assert challenger.model_id != champion.model_id
    found = evaluate(pipeline, challenger, entry, toy.profile)
    assert found.champion_metrics == found.challenger_metrics
    code.write_text(MODELS.replace("np.clip(", "1 - np.clip("))
    found = evaluate(pipeline, challenger, entry, toy.profile)
    (verdict,) = judge(pipeline, challenger, found, toy.profile)
    assert found.champion_metrics is None and verdict.blocks
    assert "the champion could not be scored" in verdict.reason and "its code changed since" in verdict.reason


def test_code_that_is_edited_during_a_training_makes_no_model(toy: Toy, code: Path) -> None:
    pipeline = declared(toy, "Edited")
    toy.fill(pipeline, toy.rows())
    with pytest.raises(TrainError, match="must be trained by one code, but its modules changed meanwhile"):
        train(pipeline, AS_OF, toy.profile)
    assert Registry(toy.profile).trainings(pipeline.name) == []


def test_a_module_that_is_not_there_is_told(toy: Toy, code: Path, tmp_path: Path) -> None:
    fitted("Linear").save(tmp_path / "model", ["a", "b", "c"])
    code.unlink()
    with pytest.raises(ModelError, match=r"needs pipelines\.toy_model:Linear, which is not in include/pipelines\. Put"):
        Python.load(tmp_path / "model" / "model.zip", "binary")


def test_a_class_that_works_in_place_leaves_other_trials_rows_alone(toy: Toy, code: Path) -> None:
    found, label = matrix()
    values, known, weight = found.values.copy(), label.copy(), np.ones(len(label))
    model = Python.model_validate({"class": "pipelines.toy_model:InPlace"})
    made = model.fit("binary", 2, model.prepare(found, label, weight=weight, threads=1), {}, seed=1, threads=1)
    made.predict(found.values)
    assert (found.values == values).all() and (label == known).all() and (weight == 1).all()


def test_a_module_counts_with_what_it_imports_from_its_package(toy: Toy, code: Path) -> None:
    model = Python.model_validate({"class": "pipelines.toy_model:Linear"})
    assert model.code() == hashlib.sha256(code.read_bytes()).hexdigest()
    (code.parent / "deep").mkdir()
    for name in ("shared.py", "deep/__init__.py", "deep/far.py", "alone.py"):
        (code.parent / name).write_text("")
    (code.parent / "shared.py").write_text("import pipelines.toy_model\nfrom .deep.far import nothing\n")
    (code.parent / "deep" / "__init__.py").write_text("def far(): raise KeyError\n")
    seen = {model.code()}
    for line in ("from pipelines import shared", "from .shared import x", "def late():\n    import pipelines.shared"):
        code.write_text(f"{MODELS}\n{line}\n")
        seen.add(model.code())
        for name in ("shared.py", "deep/far.py"):
            before = (code.parent / name).read_text()
            (code.parent / name).write_text(before + f"# {line!r}\n")
            assert model.code() not in seen, f"{line}: {name} was not seen"
            seen.add(model.code())
        now = model.code()
        (code.parent / "alone.py").write_text(f"# {line!r}\n")
        assert model.code() == now
    assert not {"pipelines.shared", "pipelines.deep.far"} & sys.modules.keys(), "looking ran the code"
    code.write_text("def broken(:\n")
    assert model.code() == hashlib.sha256(code.read_bytes()).hexdigest()


@pytest.mark.parametrize("named", ["os:system", "toy_features:features", "pipelines.toy_model"])
def test_only_classes_of_the_users_own_folder_are_made(toy: Toy, code: Path, tmp_path: Path, named: str) -> None:
    with pytest.raises(Problems, match=r"model\.python\.class (must be|must be written)"):
        toy.pipeline(model={"python": {"class": named}})
    file = tmp_path / "model.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("about.json", json.dumps({"class": named, "code": "", "classes": 2, "names": ["a"]}))
    with pytest.raises(ModelError, match=r"must be a saved model.*must be a class in include/pipelines"):
        Python.load(file, "binary")


def test_a_state_that_names_another_type_is_refused(toy: Toy, code: Path, tmp_path: Path) -> None:
    made = fitted("Linear")
    made.save(tmp_path / "model", ["a", "b", "c"])
    file = tmp_path / "model" / "model.zip"
    with zipfile.ZipFile(file) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("about.json", parts["about.json"].replace(b":Linear", b":Regressor"))
        archive.writestr("state.skops", parts["state.skops"])
    with pytest.raises(ModelError, match="must hold only trusted types"):
        Python.load(file, "binary")


@pytest.mark.parametrize("content", [b"", b"PK", b"x" * 99])
def test_a_damaged_file_is_refused(toy: Toy, code: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.zip").write_bytes(content)
    with pytest.raises(ModelError, match="must be a saved model"):
        Python.load(tmp_path / "model.zip", "binary")


def test_equal_trainings_give_equal_bytes_and_the_seed_is_given(toy: Toy, code: Path) -> None:
    first, second = fitted("Linear"), fitted("Linear")
    assert first._packed() == second._packed() and first.size() == len(first._packed())
    assert first._model.seed == 7 and fitted("Linear", seed=3)._model.seed == 3


def test_a_weight_of_two_is_a_row_twice(toy: Toy, code: Path) -> None:
    found, label = matrix()
    twice = np.arange(len(label)) < 50
    weighted = fitted("Linear", 1.0 + twice)
    model = Python.model_validate({"class": "pipelines.toy_model:Linear"})
    chosen = np.r_[np.arange(len(label)), np.flatnonzero(twice)]
    repeated = model.fit(
        "binary", 2, model.prepare(found.rows(chosen), label[chosen], threads=1), {}, seed=1, threads=1
    )
    plain = fitted("Linear")
    assert weighted._model.slope != pytest.approx(plain._model.slope)
    weighted._model.means = repeated._model.means  # of the rows it saw; there are no missing values here
    assert weighted._model.slope == pytest.approx(repeated._model.slope)


@pytest.mark.parametrize(
    ("name", "params", "weight", "error", "message"),
    [
        ("Linear", {"rigde": 1}, None, TrainError, r"must have the parameter\(s\) rigde"),
        ("Half", {}, None, TrainError, r"must have the method\(s\) predict"),
        ("Classes", {}, np.ones(200), TrainError, r"must take sample_weight in fit\(\)"),
        ("Raising", {}, None, DataError, "must not raise, but raised KeyError.*raise KeyError"),
        ("Nowhere", {}, None, DataError, "Nowhere: must be"),
    ],
)
def test_a_class_that_does_not_fit_is_named(
    toy: Toy, code: Path, name: str, params: dict, weight: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        fitted(name, weight, **params)


def test_what_is_no_probability_is_refused(toy: Toy, code: Path) -> None:
    with pytest.raises(ModelError, match=r"pipelines.toy_model:Wrong: must predict probabilities. Got '-?[0-9.e+]+ to"):
        fitted("Wrong").predict(matrix()[0].values)


def test_what_cannot_be_saved_without_code_is_refused(toy: Toy, code: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainError, match=r"must be saved without types that are not trusted.*print.*save"):
        fitted("Odd").save(tmp_path / "model", ["a", "b", "c"])
