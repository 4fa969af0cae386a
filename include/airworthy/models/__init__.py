"""Models: what can be trained, saved and scored. One file per kind."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from airworthy.evidence import Task
from airworthy.kinds import Kind

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


class Fitted(Protocol):
    """A trained model that can be scored and saved."""

    def predict(self, features: pd.DataFrame) -> np.ndarray:
        """Returns shape (n,) for binary (probability) and regression, (n, classes) for multiclass."""

    def save(self, folder: Path) -> str:
        """Writes the model into a folder in a format that cannot run code; returns the file's name."""


class Model(Kind):
    """A declared family of models. Its fields are its keys in a pipeline file."""

    flavor: ClassVar[str]

    params: dict[str, Any] = {}

    @abstractmethod
    def fit(
        self,
        task: Task,
        classes: tuple[str, ...],
        features: pd.DataFrame,
        label: np.ndarray,
        params: dict[str, Any],
        *,
        seed: int,
        threads: int,
    ) -> Fitted:
        """Returns a model trained with `self.params` overridden by `params`."""

    @classmethod
    @abstractmethod
    def load(cls, file: Path, task: Task) -> Fitted:
        """Returns the model saved in a file, without running any code the file names.

        Raises:
            ModelError: The file is damaged or names a type that is not trusted.
        """
