"""`python: {class: "pipelines.churn:Model", params: {...}}`: a class of the user's own with `fit` and `predict`.

The saved file holds the model's state, never code: the class is the one in include/pipelines. If its source is not
what it was when the model was trained, the model must prove that it answers the recorded requests as then
(`serving.check`).
"""

from __future__ import annotations

import importlib.util
import inspect
import io
import json
import logging
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import AfterValidator, ConfigDict, Field

from airworthy.errors import AirworthyError, ModelError, TrainError
from airworthy.evidence import Task
from airworthy.models import Model, Watch, signature
from airworthy.skops_files import canonical, moved
from airworthy.user_code import Function, copied, copy_name, digest, found, raising

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

log = logging.getLogger(__name__)

_STATE = "state.skops"
_OWN = "own/"  # the files that the class's own `save` left
_ABOUT = "about.json"


def _ours(path: str) -> str:
    if not (path.startswith("pipelines.") and ":" in path):
        raise ValueError("must be a class in include/pipelines, written as `pipelines.module:Class`")
    return path


class Python(Model):
    """A class of include/pipelines, made with `params`, with `seed` and `threads` where it takes them.

    `fit(features, label)` and `predict(features)` are given a pandas DataFrame of float64: numbers, codes of categories
    in the order of their names, and NaN where missing. The label is 0 or 1, the number of the class, or a number.
    `predict` returns a probability, a row of probabilities, or a number; a class with `predict_proba` is asked for
    that as scikit-learn would. `fit` gets `sample_weight` as well if rows have weights.

    A class with `save(folder)` and a static or class method `load(folder)` stores itself; of any other one
    skops stores the attributes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, serialize_by_alias=True)

    file: ClassVar[str] = "model.zip"

    path: Annotated[Function, AfterValidator(_ours)] = Field(alias="class", examples=["pipelines.churn:Model"])

    def code(self) -> str:
        return digest(self.path)

    def fit(
        self,
        task: Task,
        classes: int,
        prepared: Any,
        params: dict[str, Any],
        *,
        seed: int,
        threads: int,
        watch: Watch | None = None,
    ) -> FittedPython:
        matrix, label, weight = prepared
        given, code = {**self.params, **params}, self.code()
        with raising(self.path):
            made = _made(self.path, given, {"seed": seed, "random_state": seed, "threads": threads, "n_jobs": threads})
            weights = {} if weight is None else _weights(self.path, made, weight)
            made.fit(_frame(matrix.values, matrix.names), label.copy(), **weights)
        return FittedPython(made, self.path, code, task, classes, matrix.names)

    @classmethod
    def read_by_user(cls, file: Path) -> bool:
        try:
            with zipfile.ZipFile(file) as archive:
                return any(name.startswith(_OWN) for name in archive.namelist())
        except (zipfile.BadZipFile, OSError):
            return False  # `load` says what is wrong with it

    @classmethod
    def load(cls, file: Path, task: Task) -> FittedPython:
        where, changed = f"model files: {file.name}", False
        try:
            with zipfile.ZipFile(file) as archive:
                about = json.loads(archive.read(_ABOUT))
                path, code = _ours(about["class"]), str(about["code"])
                _require_present(where, path)
                now = digest(path)
                changed = now != code
                if changed:
                    log.warning("%s: %s is not as it was when the model was trained", where, path)
                restored = _restored(where, path, code, archive)
                names = tuple(about["names"])
                return FittedPython(restored, path, now, task, about["classes"], names, code_changed=changed)
        except AirworthyError:
            raise
        except Exception as error:  # a damaged file breaks in zipfile, json, or what reads the parts
            damaged = "The file is damaged; roll back, or train again"
            hint = "Bring back the code as it was when the model was trained, or train again" if changed else damaged
            raise ModelError(where, "must be a saved model", f"{type(error).__name__}: {error}", hint) from None


class FittedPython:
    """A trained object of a user's class.

    Args:
        code: The digest of the source that the object's class was made of.
        code_changed: Whether that is not what it was when the model was trained.
    """

    def __init__(
        self,
        model: Any,
        path: str,
        code: str,
        task: Task,
        classes: int,
        names: Sequence[str],
        *,
        code_changed: bool = False,
    ) -> None:
        self.code_changed = code_changed
        self._code = code
        self._model = model
        self._path = path
        self._task = task
        self._classes = classes
        self._names = tuple(names)

    def predict(self, values: np.ndarray) -> np.ndarray:
        import numpy as np

        features = _frame(values, self._names)
        probable = self._task != "regression" and hasattr(self._model, "predict_proba")
        with raising(self._path):
            answer = (self._model.predict_proba if probable else self._model.predict)(features)
            predicted = np.asarray(answer, dtype="float64")
        if probable and self._task == "binary" and predicted.ndim == 2 and predicted.shape[1] == 2:
            predicted = predicted[:, 1]
        shape = (len(values), self._classes) if self._task == "multiclass" else (len(values),)
        if predicted.shape != shape:
            raise ModelError(self._path, f"must predict the shape {shape} for a {self._task} label", predicted.shape)
        low, high = predicted.min(initial=0), predicted.max(initial=0)
        if not np.isfinite(predicted).all() or (self._task != "regression" and not 0 <= low <= high <= 1):
            rule = "must predict finite numbers" if self._task == "regression" else "must predict probabilities"
            raise ModelError(self._path, rule, f"{low:g} to {high:g}")
        return predicted

    def size(self) -> int:
        return len(self._packed())

    def save(self, folder: Path, names: Sequence[str]) -> None:
        from mlflow.models import Model as MlflowModel

        folder.mkdir()
        (folder / Python.file).write_bytes(self._packed())
        described = MlflowModel(signature=signature(names, self._classes if self._task == "multiclass" else 1))
        described.add_flavor("airworthy", **{"class": self._path, "data": Python.file})
        described.save(str(folder / "MLmodel"))

    def _packed(self) -> bytes:
        about = {"class": self._path, "code": self._code, "classes": self._classes, "names": self._names}
        parts = {_ABOUT: json.dumps(about).encode(), **self._state()}
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            for name in sorted(parts):
                archive.writestr(zipfile.ZipInfo(name), parts[name])  # its fixed date keeps equal models equal
        return packed.getvalue()

    def _state(self) -> dict[str, bytes]:
        import skops.io

        if hasattr(self._model, "save"):
            with tempfile.TemporaryDirectory() as folder, raising(self._path):
                self._model.save(Path(folder))
                files = sorted(file for file in Path(folder).rglob("*") if file.is_file())
                return {f"{_OWN}{file.relative_to(folder).as_posix()}": file.read_bytes() for file in files}
        content = skops.io.dumps(self._model)
        if untrusted := sorted(set(skops.io.get_untrusted_types(data=content)) - set(_trusted(self._path, self._code))):
            hint = "Give the class `save(folder)` and `load(folder)`, or keep only numbers, texts and arrays in it"
            raise TrainError(self._path, "must be saved without types that are not trusted", untrusted, hint)
        return {_STATE: canonical(content)}


def _made(path: str, params: dict[str, Any], offered: dict[str, Any]) -> Any:
    its_class = found(copied(path))
    known = inspect.signature(its_class).parameters
    takes_all = any(one.kind is one.VAR_KEYWORD for one in known.values())
    if unknown := sorted(set(params) - set(known)) if not takes_all else []:
        hint = "Check the spelling in model.python.params and tune.space"
        raise TrainError(path, f"must have the parameter(s) {', '.join(unknown)}", sorted(known), hint)
    made = its_class(**{name: value for name, value in offered.items() if name in known} | params)
    if missing := [name for name in ("fit", "predict") if not callable(getattr(made, name, None))]:
        raise TrainError(path, f"must have the method(s) {', '.join(missing)}")
    return made


def _weights(path: str, made: Any, weight: np.ndarray) -> dict[str, np.ndarray]:
    known = inspect.signature(made.fit).parameters.values()
    if not any(one.name == "sample_weight" or one.kind is one.VAR_KEYWORD for one in known):
        hint = "Give fit() that argument, or leave train.weight and train.imbalance out"
        raise TrainError(path, "must take sample_weight in fit(), because rows have weights", hint=hint)
    return {"sample_weight": weight.copy()}


def _require_present(where: str, path: str) -> None:
    try:
        module = importlib.util.find_spec(path.partition(":")[0])
    except ModuleNotFoundError:
        module = None
    if module is None:
        hint = "Put the module there as it was when the model was trained"
        raise ModelError(where, f"needs {path}, which is not in include/pipelines", hint=hint)


def _restored(where: str, path: str, code: str, archive: zipfile.ZipFile) -> Any:
    import skops.io
    from skops.io.exceptions import UntrustedTypesFoundException

    own = [name for name in archive.namelist() if name.startswith(_OWN)]
    if own:
        with tempfile.TemporaryDirectory() as folder, raising(path):
            archive.extractall(folder, own)
            its_class: Any = found(copied(path))
            return its_class.load(Path(folder, _OWN))
    found(copied(path))  # imported, so that skops finds it
    now, module = digest(path), path.partition(":")[0]
    state = moved(archive.read(_STATE), copy_name(module, code), copy_name(module, now))
    try:
        return skops.io.loads(state, trusted=_trusted(path, now))
    except UntrustedTypesFoundException as error:
        raise ModelError(where, "must hold only trusted types", str(error), "Do not load it") from None


def _trusted(path: str, code: str) -> list[str]:
    """Returns the types a state may name beyond skops' own list: the class itself, and dtypes."""
    module, _, name = path.partition(":")
    return [f"{copy_name(module, code)}.{name}", "numpy.dtype"]


def _frame(values: np.ndarray, names: Sequence[str]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(values, columns=list(names), copy=True)  # other trials learn from the same rows
