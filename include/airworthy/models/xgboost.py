"""`xgboost: {params: {...}}`: gradient-boosted trees with native categories, saved as UBJ."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, ClassVar

from airworthy.errors import ModelError, TrainError
from airworthy.evidence import Task
from airworthy.models import Matrix, Model, Watch, signature

if TYPE_CHECKING:
    import numpy as np
    from xgboost import Booster, DMatrix

_OBJECTIVE = {"binary": "binary:logistic", "multiclass": "multi:softprob", "regression": "reg:squarederror"}
_ROUNDS = 100
_BINS = 256
_KEPT = 4  # quantised copies of the rows, one for each `max_bin` that trials draw
# With these, and without what is named below, trees are the same for every seed.
_UNSEEDED = {
    **dict.fromkeys(("subsample", "colsample_bytree", "colsample_bylevel", "colsample_bynode"), 1),
    "booster": "gbtree",
    "tree_method": "hist",
}
_MAY_DRAW = {"objective", "updater"}
_WATCHED = (0.25, 0.5, 0.75)  # of the rounds
_CHECKING = Lock()  # Python's record of warnings is one for all threads


class Rows:
    """Training rows in the forms that trials ask for, each made once; safe to be shared by threads."""

    def __init__(self, matrix: Matrix, label: np.ndarray, weight: np.ndarray | None, threads: int) -> None:
        self._values = matrix.values
        self._described: dict[str, Any] = {
            "label": label,
            "weight": weight,
            "feature_names": list(matrix.names),
            "feature_types": ["c" if is_category else "float" for is_category in matrix.is_category],
            "nthread": threads,
        }
        self._quantised: dict[int, DMatrix] = {}
        self._lock = Lock()

    def of(self, settings: Mapping[str, Any]) -> DMatrix:
        """Returns the rows for a training with these settings.

        Quantised rows are never changed by a training. A plain matrix is: XGBoost leaves its index of them in it,
        so each training that needs one gets its own.
        """
        from xgboost import DMatrix, QuantileDMatrix

        if settings["tree_method"] != "hist" or settings.get("booster", "gbtree") == "gblinear":
            return DMatrix(self._values, **self._described)
        bins = int(settings.get("max_bin", _BINS))
        with self._lock:
            if bins not in self._quantised:
                if len(self._quantised) == _KEPT:
                    self._quantised.pop(next(iter(self._quantised)))
                self._quantised[bins] = QuantileDMatrix(self._values, max_bin=bins, **self._described)
            return self._quantised[bins]


class Xgboost(Model):
    """XGBoost with the `hist` method. `params` are XGBoost's own; `n_estimators` is the number of rounds."""

    file: ClassVar[str] = "model.ubj"

    def prepare(self, matrix: Matrix, label: np.ndarray, *, weight: np.ndarray | None = None, threads: int) -> Rows:
        return Rows(matrix, label, weight, threads)

    def fit(
        self,
        task: Task,
        classes: int,
        prepared: Rows,
        params: dict[str, Any],
        *,
        seed: int,
        threads: int,
        watch: Watch | None = None,
    ) -> FittedXgboost:
        import xgboost

        settings = {
            "objective": _OBJECTIVE[task],
            "tree_method": "hist",
            "seed": seed,
            "nthread": threads,
            **({"num_class": classes} if task == "multiclass" else {}),
            **self.params,
            **params,
        }
        rounds = int(settings.pop("n_estimators", _ROUNDS))
        callbacks = [] if watch is None else [_watching(watch, rounds)]
        try:
            rows = prepared.of(settings)
            _require_known(settings, rows)
            return FittedXgboost(xgboost.train(settings, rows, num_boost_round=rounds, callbacks=callbacks))
        except (xgboost.core.XGBoostError, ValueError, TypeError) as error:
            raise TrainError("model.xgboost", "must be able to train", _reason(error), "Check params") from error

    def seeded(self, params: Mapping[str, Any]) -> bool:
        settings = {**self.params, **params}
        drawn = any(settings.get(name, value) != value for name, value in _UNSEEDED.items())
        return drawn or not _MAY_DRAW.isdisjoint(settings)

    @classmethod
    def load(cls, file: Path, task: Task) -> FittedXgboost:
        from xgboost import Booster
        from xgboost.core import XGBoostError

        try:
            booster = Booster({"nthread": 1})
            booster.load_model(file)
        except (XGBoostError, ValueError, OSError) as error:
            hint = "The file is damaged; train again, or `airworthy rollback <pipeline>`"
            raise ModelError(f"model files: {file.name}", "must be an XGBoost model", _reason(error), hint) from None
        return FittedXgboost(booster)


class FittedXgboost:
    """A trained booster."""

    def __init__(self, booster: Booster) -> None:
        self._booster = booster

    def predict(self, values: np.ndarray) -> np.ndarray:
        found: np.ndarray = self._booster.inplace_predict(values)
        return found.astype("float64")  # a metric computed in 32 bits differs from the same one in 64

    def contributions(self, matrix: Matrix) -> np.ndarray:
        """Returns SHAP values, in log-odds for classes, by TreeSHAP (Lundberg et al., arXiv:1802.03888, 2018)."""
        from xgboost import DMatrix

        types = ["c" if is_category else "float" for is_category in matrix.is_category]
        rows = DMatrix(matrix.values, feature_names=list(matrix.names), feature_types=types, nthread=1)
        found: np.ndarray = self._booster.predict(rows, pred_contribs=True)
        return found[..., :-1]  # the last one is the mean prediction

    def size(self) -> int:
        return len(self._booster.save_raw("ubj"))

    def save(self, folder: Path, names: Sequence[str]) -> None:
        import mlflow.xgboost
        import numpy as np
        import xgboost

        outputs = np.shape(self.predict(np.full((1, len(names)), np.nan)))[1:]
        mlflow.xgboost.save_model(
            self._booster,
            str(folder),
            signature=signature(names, *outputs),
            pip_requirements=[f"xgboost=={xgboost.__version__}"],
        )


def _watching(watch: Watch, rounds: int) -> Any:
    """Returns XGBoost's callback that tells `watch` of the model at some of its rounds."""
    from xgboost.callback import TrainingCallback

    percents = {max(1, round(rounds * share)): round(100 * share) for share in _WATCHED}

    class Watching(TrainingCallback):
        def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
            if epoch + 1 in percents and epoch + 1 < rounds:
                watch(percents[epoch + 1], FittedXgboost(model).predict)
            return False

    return Watching()


def _require_known(settings: Mapping[str, Any], rows: DMatrix) -> None:
    """Returns if XGBoost uses every parameter.

    It only warns of a misspelt one; a model that was not trained as declared is worse than none.
    """
    from xgboost import Booster, core

    core._LIB.XGBRegisterLogCallback(core._LIB.callback)  # it warns in Python only in the thread that imported it
    with _CHECKING, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Booster(dict(settings), [rows]).save_config()  # configures it, as the first round would
    for warning in caught:
        if "are not used" in str(warning.message):
            names = ", ".join(re.findall(r'"(.+?)"', str(warning.message)))
            hint = "Check the spelling in model.xgboost.params and tune.space"
            raise TrainError("model.xgboost", "must have only parameters that XGBoost uses", names, hint)


def _reason(error: Exception) -> str:
    """Returns what XGBoost said, without its source file, line and stack."""
    text = str(error).partition("Stack trace")[0].strip()
    return text.rpartition("\n")[2].rpartition(": ")[2] if text.startswith("[") else text
