"""The folder a model is: files that cannot run code, a contract, recorded requests and a training reference.

`airworthy.json` says what goes in and comes out, `requests.json` holds raw rows with the answers the
trained model gave, `reference.parquet` what it was trained on. MLflow's own files (`MLmodel`,
`requirements.txt`, ...) are there for MLflow's users; nothing here reads them.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
from pydantic import Field, ValidationError

from airworthy import kinds
from airworthy.config import Moment, Pipeline, Strict
from airworthy.encoding import Encoder, Feature, Input, conform
from airworthy.errors import ModelError
from airworthy.evidence import Servable, Task
from airworthy.features import compute_features
from airworthy.models import Fitted, Model

CONTRACT = "airworthy.json"
REQUESTS = "requests.json"
REFERENCE = "reference.parquet"


class Lookup(Strict):
    """Inputs that a client need not send, because serving looks them up.

    Attributes:
        view: The view's name.
        key: The inputs that name the entity.
        columns: The inputs that are looked up.
        max_age: Seconds after which a value counts as missing.
    """

    view: str
    key: tuple[str, ...]
    columns: tuple[str, ...]
    max_age: float | None


class Contract(Strict):
    """What a model takes and gives, and what it was made from.

    Attributes:
        kind: The model's kind, as in a pipeline file.
        file: The model file's name.
        classes: In the order of the predictions; the last is binary's positive class; () for regression.
        inputs: The raw columns a model needs, those of the views included.
        lookups: Which of them are looked up when a request does not have them.
        features: The columns the model was trained on, in order.
        features_function: The pipeline's `features`, or None.
        features_digest: SHA-256 of that function's module.
        holdout: `[start, end)` of the rows it was scored on.
        window: `[start, end)` of the rows it was trained on.
    """

    pipeline: str
    kind: str
    file: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+\.[a-z]+$")]
    task: Task
    classes: tuple[str, ...]
    inputs: tuple[Input, ...]
    lookups: tuple[Lookup, ...] = ()
    features: tuple[Feature, ...]
    features_function: str | None
    features_digest: str
    as_of: Moment
    holdout: tuple[Moment, Moment]
    window: tuple[Moment, Moment]
    params: dict[str, Any]
    seed: int


class LoadedModel:
    """A model that answers, from features or from raw rows."""

    def __init__(self, folder: Path, contract: Contract, pipeline: Pipeline, fitted: Fitted) -> None:
        self.folder = folder
        self.contract = contract
        self._pipeline = pipeline
        self._encode = Encoder(contract.features)
        self._fitted = fitted

    def predict(self, features: pd.DataFrame) -> np.ndarray:
        """Returns shape (n,) for binary (probability) and regression, (n, classes) for multiclass.

        Raises:
            DataError: Feature columns are missing or of the wrong type.
        """
        return np.asarray(self._fitted.predict(self._encode(features).values), dtype="float64")

    def predict_raw(self, raw: pd.DataFrame) -> np.ndarray:
        """Returns the predictions for raw rows as a request or the `raw` table has them; the label is not needed.

        Raises:
            DataError: Columns are missing, values are of the wrong type, or the user's `features` raised.
        """
        return self.predict(compute_features(self._pipeline, conform(self.contract.inputs, raw)))

    def replay(self, folder: Path | None = None) -> Servable:
        """Returns how the answers to the recorded requests, together and one by one, differ from the recorded ones.

        Args:
            folder: Where the requests are; None: among the model's own files.

        Raises:
            DataError: A recorded request cannot be answered.
        """
        recorded = json.loads(((folder or self.folder) / REQUESTS).read_text(encoding="utf-8"))
        raw = pd.DataFrame(recorded["data"], columns=recorded["columns"])
        expected = np.asarray(recorded["expected"], dtype="float64")
        started = time.perf_counter()
        together = self.predict_raw(raw)
        # A request is most often one row, and a feature that looks at other rows gives that row another value.
        alone = np.concatenate([self.predict_raw(raw.iloc[[row]]) for row in range(min(len(raw), _ALONE))])
        seconds = time.perf_counter() - started
        difference = max(_largest(together, expected), _largest(alone, expected[: len(alone)]))
        return Servable(requests=len(raw), largest_difference=difference, seconds=seconds)


_ALONE = 10


def write_model(
    folder: Path,
    contract: Contract,
    fitted: Fitted,
    requests: pd.DataFrame,
    expected: np.ndarray,
    reference: pd.DataFrame,
) -> str:
    """Leaves a model's files in a new folder; returns their digest.

    Args:
        folder: Must not exist yet.
        contract: Its `file` is the one the model's kind writes.
        fitted: The trained model.
        requests: Raw rows, shape (n, inputs).
        expected: The answers to them, shape (n,) or (n, classes).
        reference: A sample of what it was trained on, with the column `prediction`.
    """
    fitted.save(folder, [feature.name for feature in contract.features])
    (folder / CONTRACT).write_text(contract.model_dump_json(indent=1), encoding="utf-8")
    recorded = {"columns": list(requests.columns), "data": rows_of(requests), "expected": expected.tolist()}
    (folder / REQUESTS).write_text(json.dumps(recorded), encoding="utf-8")
    reference.to_parquet(folder / REFERENCE, index=False)
    return digest_of(folder)


def digest_of(folder: Path) -> str:
    """Returns the SHA-256 over the names and contents of the files that serving and monitoring read.

    Raises:
        ModelError: Files are missing, or the contract cannot be read.
    """
    names = sorted((CONTRACT, REQUESTS, REFERENCE, _contract(folder).file))
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise ModelError("model files", "must be complete", f"no {', '.join(missing)}", "Train the model again")
    parts = [f"{name} {hashlib.sha256((folder / name).read_bytes()).hexdigest()}\n" for name in names]
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def load_model(folder: Path, *, digest: str | None, pipeline: Pipeline) -> LoadedModel:
    """Returns the model in a folder, ready to answer.

    Args:
        folder: As `write_model` left it.
        digest: What `digest_of` must give; None trusts the folder as it is.
        pipeline: The pipeline it was trained for.

    Raises:
        ModelError: The digest differs, a file is damaged or missing, or it names a type that is not trusted.
    """
    where = f"{pipeline.name}: model files"
    if digest is not None and (found := digest_of(folder)) != digest:
        hint = "The files changed after training; roll back, or train again"
        raise ModelError(where, f"must have the recorded SHA-256 {digest[:12]}…", f"{found[:12]}…", hint)
    contract = _contract(folder)
    if contract.pipeline != pipeline.name:
        raise ModelError(where, "must belong to this pipeline", contract.pipeline)
    try:
        kind = kinds.find("models", contract.kind)
    except KeyError:
        raise ModelError(where, "must be of a known kind of model", contract.kind) from None
    assert issubclass(kind, Model)
    return LoadedModel(folder, contract, pipeline, kind.load(folder / contract.file, contract.task))


def rows_of(frame: pd.DataFrame) -> list[list[Any]]:
    """Returns the rows as JSON values: missing ones as None, moments in ISO 8601."""
    columns: list[Sequence[Any]] = []
    for name in frame.columns:
        column = frame[name]
        if column.dtype.kind == "M":
            column = column.map(pd.Timestamp.isoformat, na_action="ignore")
        columns.append(column.astype(object).where(column.notna(), None).tolist())
    return [list(row) for row in zip(*columns, strict=True)]


def _contract(folder: Path) -> Contract:
    try:
        return Contract.model_validate_json((folder / CONTRACT).read_bytes())
    except FileNotFoundError:
        raise ModelError("model files", f"must hold {CONTRACT}", hint="Train the model again") from None
    except ValidationError as error:
        raise ModelError(f"model files: {CONTRACT}", "must be a contract", str(error)) from None


def _largest(found: np.ndarray, expected: np.ndarray) -> float:
    if found.shape != expected.shape:
        return float("inf")
    difference = np.abs(found - expected)
    return float("inf") if np.isnan(difference).any() else float(difference.max(initial=0.0))
