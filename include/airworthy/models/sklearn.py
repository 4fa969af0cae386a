"""`sklearn: {estimator: sklearn.ensemble.HistGradientBoostingClassifier, params: {...}}`, saved through skops.

Or a pipeline: `sklearn: {steps: {impute: sklearn.impute.SimpleImputer, ...}, params: {impute__strategy: median}}`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

from airworthy.errors import ModelError, TrainError
from airworthy.evidence import Task
from airworthy.explain import problem
from airworthy.models import Matrix, Model, Watch, signature
from airworthy.skops_files import canonical

if TYPE_CHECKING:
    import numpy as np

# Types beyond skops' own list that our estimators need, and that hold nothing but numbers.
_TRUSTED = (
    "numpy.dtype",
    "sklearn._loss.loss.HalfTweedieLossIdentity",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.metrics._dist_metrics.EuclideanDistance64",
    "sklearn.neighbors._kd_tree.KDTree",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.tree._tree.Tree",
)
_MOST_CATEGORIES = 100

Estimator = Annotated[
    str,
    Field(pattern=r"^sklearn(\.[a-z_]+)+\.[A-Z]\w+$", examples=["sklearn.ensemble.HistGradientBoostingClassifier"]),
]
Step = Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*(_[a-z0-9]+)*$")]


class Sklearn(Model):
    """An estimator of scikit-learn, or a pipeline of them. `params` are its own, of a pipeline `<step>__<param>`.

    Estimators that take missing values (trees) get category codes as numbers; for all others numbers
    are imputed and scaled, and categories one-hot encoded. Of a pipeline the first step decides that.

    Attributes:
        estimator: What is trained.
        steps: Instead of it: estimators by name, in order; the last one predicts.
    """

    file: ClassVar[str] = "model.skops"

    estimator: Estimator | None = None
    steps: dict[Step, Estimator] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.estimator is None) == (not self.steps):
            raise problem("must be either one `estimator` or a pipeline of `steps`", self.estimator)
        return self

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
    ) -> FittedSklearn:
        from threadpoolctl import threadpool_limits

        matrix, label, weight = prepared
        estimator = self._estimator(task, {**self.params, **params}, seed, threads)
        model = _with_encoding(estimator, matrix)
        weights = {} if weight is None else self._weights(model, weight)
        try:
            with threadpool_limits(threads):
                model.fit(matrix.values, label, **weights)
        except (ValueError, TypeError, AttributeError) as error:
            raise TrainError(f"model.sklearn: {self._name}", "must be able to train", str(error)) from error
        return FittedSklearn(model, task, classes)

    @classmethod
    def load(cls, file: Path, task: Task) -> FittedSklearn:
        import skops.io
        from skops.io.exceptions import UntrustedTypesFoundException

        where = f"model files: {file.name}"
        try:
            model = skops.io.load(file, trusted=list(_TRUSTED))
        except UntrustedTypesFoundException as error:
            raise ModelError(where, "must hold only trusted types", str(error), "Do not load it") from None
        except Exception as error:  # a damaged file breaks in zipfile, json, numpy or scikit-learn itself
            hint = "The file is damaged; train again, or `airworthy rollback <pipeline>`"
            raise ModelError(where, "must be a scikit-learn model", f"{type(error).__name__}: {error}", hint) from None
        return FittedSklearn(model, task, len(model.classes_) if task == "multiclass" else 0)

    @property
    def _name(self) -> str:
        return self.estimator or list(self.steps.values())[-1]

    @property
    def _where(self) -> str:
        return "model.sklearn.estimator" if self.estimator else "model.sklearn.steps"

    def _estimator(self, task: Task, params: dict[str, Any], seed: int, threads: int) -> Any:
        from sklearn.base import is_regressor
        from sklearn.pipeline import Pipeline

        if self.estimator:
            made = _make(self._where, self.estimator)
        else:
            made = Pipeline([(name, _make(f"{self._where}.{name}", path)) for name, path in self.steps.items()])
        try:
            regresses = is_regressor(made)
            known = made.get_params()
        except (AttributeError, TypeError) as error:
            raise TrainError(self._where, "must be estimators, the last of which predicts", str(error)) from None
        if task == "regression" and not regresses:
            raise TrainError(self._where, "must be a regressor for a regression label", self._name)
        if unknown := sorted(set(params) - set(known)):
            hint = "Check the spelling in model.sklearn.params and tune.space"
            raise TrainError(self._where, f"must have the parameter(s) {', '.join(unknown)}", self._name, hint)
        made.set_params(**_defaults(known, seed, threads) | params)
        if task != "regression" and not hasattr(made, "predict_proba"):
            raise TrainError(self._where, f"must give probabilities for a {task} label", self._name)
        return made

    def _weights(self, model: Any, weight: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the weights as the pipeline's `fit` takes them, for its last step."""
        from sklearn.utils.validation import has_fit_parameter

        path, last = [], model
        while hasattr(last, "steps"):
            name, last = last.steps[-1]
            path.append(name)
        if not has_fit_parameter(last, "sample_weight"):
            hint = "Choose another estimator, or leave train.weight and train.imbalance out"
            raise TrainError(self._where, "must take sample_weight, because rows have weights", self._name, hint)
        return {"__".join([*path, "sample_weight"]): weight}


class FittedSklearn:
    """A trained pipeline of scikit-learn."""

    def __init__(self, model: Any, task: Task, classes: int) -> None:
        self._model = model
        self._task = task
        self._classes = classes

    def predict(self, values: np.ndarray) -> np.ndarray:
        import numpy as np

        if self._task == "regression":
            return np.asarray(self._model.predict(values))
        found = np.asarray(self._model.predict_proba(values))
        if self._task == "binary":
            return found[:, 1]
        every = np.zeros((len(values), self._classes))
        every[:, self._model.classes_.astype(int)] = found  # a class absent from the training rows has no column
        return every

    def size(self) -> int:
        import skops.io

        return len(skops.io.dumps(self._model))

    def save(self, folder: Path, names: Sequence[str]) -> None:
        import mlflow.sklearn
        import sklearn
        import skops
        import skops.io

        found = set(skops.io.get_untrusted_types(data=skops.io.dumps(self._model)))
        if untrusted := sorted(found - set(_TRUSTED)):
            hint = "Choose an estimator without them"
            raise TrainError("model.sklearn", "must be saved without types that are not trusted", untrusted, hint)
        classes = 1 if self._task == "regression" else len(self._model.classes_)
        mlflow.sklearn.save_model(
            self._model,
            str(folder),
            serialization_format="skops",
            skops_trusted_types=list(_TRUSTED),
            signature=signature(names, classes),
            pyfunc_predict_fn="predict" if self._task == "regression" else "predict_proba",
            pip_requirements=[f"scikit-learn=={sklearn.__version__}", f"skops=={skops.__version__}"],
        )
        file = folder / Sklearn.file
        file.write_bytes(canonical(file.read_bytes()))


def _with_encoding(estimator: Any, matrix: Matrix) -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler
    from sklearn.utils import get_tags

    if get_tags(estimator).input_tags.allow_nan:
        return make_pipeline(estimator)
    categories = [number for number, is_category in enumerate(matrix.is_category) if is_category]
    numbers = [number for number, is_category in enumerate(matrix.is_category) if not is_category]
    scaled = make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler())
    flags = OneHotEncoder(handle_unknown="infrequent_if_exist", max_categories=_MOST_CATEGORIES, sparse_output=False)
    columns = ColumnTransformer([("number", scaled, numbers), ("category", flags, categories)], sparse_threshold=0)
    return make_pipeline(columns, estimator)


def _make(where: str, path: str) -> Any:
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)()
    except (ImportError, AttributeError):
        raise TrainError(where, "must be a class of the installed scikit-learn", path) from None
    except TypeError as error:
        raise TrainError(where, "must not need arguments that are not in params", str(error)) from None


def _defaults(known: Mapping[str, Any], seed: int, threads: int) -> dict[str, Any]:
    """Returns the seed and the number of threads for every estimator that takes them."""
    chosen = {"random_state": seed, **({"n_jobs": threads} if threads > 1 else {})}
    return {name: chosen[name.rpartition("__")[2]] for name in known if name.rpartition("__")[2] in chosen}
