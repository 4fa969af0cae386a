"""Models: what can be trained, saved and scored. One file per kind."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
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
    """A trained model that can be scored and saved.

    One that can say what each feature adds to a prediction (SHAP values) has a method `contributions`, which
    takes a `Matrix` and returns shape (n, features), or (n, classes, features) for multiclass.
    """

    def predict(self, values: np.ndarray) -> np.ndarray:
        """Returns shape (n,) for binary (probability) and regression, (n, classes) for multiclass."""

    def save(self, folder: Path, names: Sequence[str]) -> None:
        """Leaves an MLflow model in a new folder, in a format that cannot run code, under its kind's `file`.

        Args:
            folder: Must not exist yet.
            names: The features' names, in the order `predict` takes them.
        """

    def size(self) -> int:
        """Returns how many bytes the saved model has."""


# Told of a model in training: how much of it is done, in percent, and what it predicts so far. It may raise to end it.
Watch = Callable[[int, Callable[["np.ndarray"], "np.ndarray"]], None]


class Model(Kind):
    """A declared family of models. Its fields are its keys in a pipeline file.

    Attributes:
        file: The name of the file that holds the trained model.
    """

    file: ClassVar[str]

    params: dict[str, Any] = Field(default_factory=dict)

    def code(self) -> str:
        """Returns the SHA-256 of the user's own code that the model is made of; "" if there is none."""
        return ""

    def prepare(self, matrix: Matrix, label: np.ndarray, *, weight: np.ndarray | None = None, threads: int) -> Any:
        """Returns the training data as `fit` takes it: built once, shared by every trial.

        Args:
            matrix: The features, shape (n, features).
            label: Shape (n,).
            weight: Shape (n,): how much each row counts; None lets all count the same.
            threads: How many threads may be used.
        """
        return matrix, label, weight

    @abstractmethod
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
    ) -> Fitted:
        """Returns a model trained with `self.params` overridden by `params`; the same inputs give the same model.

        Several threads may call it at once with the same `prepared`.

        Args:
            task: What the label is predicted as.
            classes: How many classes the label has; 0 for regression.
            prepared: What `prepare` returned.
            params: The drawn parameters of one trial.
            seed: Decides every random choice.
            threads: How many threads may be used.
            watch: Told on the way how good it is so far, by kinds that can; what it raises is passed on.

        Raises:
            TrainError: A parameter is not known to the library, or rows have weights and it takes none.
        """

    def seeded(self, params: Mapping[str, Any]) -> bool:
        """Returns whether the seed may decide anything of a training with these drawn parameters."""
        return True

    @classmethod
    def read_by_user(cls, file: Path) -> bool:
        """Returns whether loading a file lets a user's own code read it, which may run what stands in it."""
        return False

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
