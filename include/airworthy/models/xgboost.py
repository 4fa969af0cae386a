"""`xgboost: {params: {...}}`: gradient-boosted trees with native categories, saved as UBJ."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from airworthy.errors import ModelError, TrainError
from airworthy.evidence import Task
from airworthy.models import Matrix, Model, signature

if TYPE_CHECKING:
    import numpy as np
    from xgboost import Booster, DMatrix

_OBJECTIVE = {"binary": "binary:logistic", "multiclass": "multi:softprob", "regression": "reg:squarederror"}
_ROUNDS = 100


class Xgboost(Model):
    """XGBoost with the `hist` method. `params` are XGBoost's own; `n_estimators` is the number of rounds."""

    file: ClassVar[str] = "model.ubj"

    def prepare(self, matrix: Matrix, label: np.ndarray, *, threads: int) -> DMatrix:
        """Returns the quantised rows; XGBoost builds its index on them once and keeps it for every trial."""
        from xgboost import DMatrix

        types = ["c" if is_category else "float" for is_category in matrix.is_category]
        return DMatrix(matrix.values, label, feature_names=list(matrix.names), feature_types=types, nthread=threads)

    def fit(
        self, task: Task, classes: int, prepared: DMatrix, params: dict[str, Any], *, seed: int, threads: int
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
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                booster = xgboost.train(settings, prepared, num_boost_round=rounds)
            except (xgboost.core.XGBoostError, ValueError, TypeError) as error:
                raise TrainError("model.xgboost", "must be able to train", _reason(error), "Check params") from error
        for warning in caught:
            # XGBoost ignores a misspelt parameter; a model that was not trained as declared is worse than none.
            if "are not used" in str(warning.message):
                names = ", ".join(re.findall(r'"(.+?)"', str(warning.message)))
                hint = "Check the spelling in model.xgboost.params and tune.space"
                raise TrainError("model.xgboost", "must have only parameters that XGBoost uses", names, hint)
        return FittedXgboost(booster)

    @classmethod
    def load(cls, file: Path, task: Task) -> FittedXgboost:
        from xgboost import Booster
        from xgboost.core import XGBoostError

        try:
            booster = Booster({"nthread": 1})
            booster.load_model(file)
        except (XGBoostError, ValueError, OSError) as error:
            hint = "The file is damaged; roll back, or train again"
            raise ModelError(f"model files: {file.name}", "must be an XGBoost model", _reason(error), hint) from None
        return FittedXgboost(booster)


class FittedXgboost:
    """A trained booster."""

    def __init__(self, booster: Booster) -> None:
        self._booster = booster

    def predict(self, values: np.ndarray) -> np.ndarray:
        found: np.ndarray = self._booster.inplace_predict(values)
        return found.astype("float64")  # a metric computed in 32 bits differs from the same one in 64

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


def _reason(error: Exception) -> str:
    """Returns what XGBoost said, without its source file, line and stack."""
    text = str(error).partition("Stack trace")[0].strip()
    return text.rpartition("\n")[2].rpartition(": ")[2] if text.startswith("[") else text
