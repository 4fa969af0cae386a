"""Models: what can be trained, saved and scored. One file per kind."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from pydantic import Field

from airworthy.evidence import Task
from airworthy.kinds import Kind

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Matrix:
    """Encoded features.

    Attributes:
        values: Shape (n, features), float64: numbers, category codes, NaN where missing.
        names: The features' names.
        is_category: Whether each column holds category codes.
    """

    values: np.ndarray
    names: tuple[str, ...]
    is_category: tuple[bool, ...]

    def rows(self, chosen: np.ndarray) -> Matrix:
        return Matrix(self.values[chosen], self.names, self.is_category)


class Fitted(Protocol):
    """A trained model that can be scored and saved."""

    def predict(self, values: np.ndarray) -> np.ndarray:
        """Returns shape (n,) for binary (probability) and regression, (n, classes) for multiclass."""

    def save(self, folder: Path, names: Sequence[str]) -> None:
        """Leaves an MLflow model in a new folder, in a format that cannot run code, under its kind's `file`.

        Args:
            folder: Must not exist yet.
            names: The features' names, in the order `predict` takes them.
        """


class Model(Kind):
    """A declared family of models. Its fields are its keys in a pipeline file.

    Attributes:
        file: The name of the file that holds the trained model.
    """

    file: ClassVar[str]

    params: dict[str, Any] = Field(default_factory=dict)

    def prepare(self, matrix: Matrix, label: np.ndarray, *, threads: int) -> Any:
        """Returns the training data as `fit` takes it: built once, shared by every trial."""
        return matrix, label

    @abstractmethod
    def fit(
        self, task: Task, classes: int, prepared: Any, params: dict[str, Any], *, seed: int, threads: int
    ) -> Fitted:
        """Returns a model trained with `self.params` overridden by `params`; the same inputs give the same model.

        Args:
            task: What the label is predicted as.
            classes: How many classes the label has; 0 for regression.
            prepared: What `prepare` returned.
            params: The drawn parameters of one trial.
            seed: Decides every random choice.
            threads: How many threads may be used.

        Raises:
            TrainError: A parameter is not known to the library.
        """

    @classmethod
    @abstractmethod
    def load(cls, file: Path, task: Task) -> Fitted:
        """Returns the model saved in a file, without running any code the file names.

        Raises:
            ModelError: The file is damaged or names a type that is not trusted.
        """


def signature(names: Sequence[str], outputs: int = 1) -> Any:
    """Returns the MLflow signature of a model over encoded features: one double per feature in, doubles out."""
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema, TensorSpec

    shape = (-1,) if outputs == 1 else (-1, outputs)
    inputs = Schema([ColSpec(DataType.double, name, required=False) for name in names])
    return ModelSignature(inputs, Schema([TensorSpec(np.dtype("float64"), shape)]))
