"""The folder a model is: files that cannot run code, a contract, recorded requests and a training reference.

`airworthy.json` says what goes in and comes out, `requests.json` holds raw rows with the answers the
trained model gave, `reference.parquet` a sample of what it was trained on, `sketches.json` how all of that was
distributed (models from before there were sketches have none). MLflow's own files (`MLmodel`, `requirements.txt`,
...) are there for MLflow's users; nothing here reads them.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
from pydantic import Field, ValidationError

from airworthy import kinds
from airworthy.config import Moment, Pipeline, Strict
from airworthy.encoding import Encoder, Feature, Input, conform, frame_of
from airworthy.errors import ModelError
from airworthy.evidence import Measured, Task
from airworthy.features import compute_features
from airworthy.models import Fitted, Model

CONTRACT = "airworthy.json"
REQUESTS = "requests.json"
_ALONE = 10  # recorded requests that are also asked one by one
REFERENCE = "reference.parquet"
SKETCHES = "sketches.json"


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
        model_code: SHA-256 of the module that the model's class is in; "" if it is none of the user's own.
        holdout: `[start, end)` of the rows it was scored on.
        window: `[start, end)` of the rows it was trained on.
        sketched: Whether there are sketches of these rows.
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
    model_code: str = ""
    as_of: Moment
    holdout: tuple[Moment, Moment]
    window: tuple[Moment, Moment]
    params: dict[str, Any]
    seed: int
    sketched: bool = False


class LoadedModel:
    """A model that answers, from features or from raw rows."""

    def __init__(self, folder: Path, contract: Contract, pipeline: Pipeline, fitted: Fitted) -> None:
        self.folder = folder
        self.contract = contract
        self._pipeline = pipeline
        self._encode = Encoder(contract.features)
        self._fitted = fitted
        self._direct = self._inputs_are_features()

    @property
    def code_changed(self) -> bool:
        """Whether the source of the model's class, one of the user's own, is not what it was in training."""
        return bool(getattr(self._fitted, "code_changed", False))

    def predict(self, features: pd.DataFrame) -> np.ndarray:
        """Returns shape (n,) for binary (probability) and regression, (n, classes) for multiclass.

        Raises:
            DataError: Feature columns are missing or of the wrong type.
        """
        return np.asarray(self._fitted.predict(self._encode(features).values), dtype="float64")

    def contributions(self, features: pd.DataFrame) -> np.ndarray | None:
        """Returns each feature's part in each prediction, shape (n, features) or (n, classes, features).

        None if this kind of model cannot say.
        """
        explain = getattr(self._fitted, "contributions", None)
        return None if explain is None else np.asarray(explain(self._encode(features)), dtype="float64")

    def predict_raw(self, raw: pd.DataFrame) -> np.ndarray:
        """Returns the predictions for raw rows as a request or the `raw` table has them; the label is not needed.

        Raises:
            DataError: Columns are missing, values are of the wrong type, or the user's `features` raised.
        """
        return self.predict(compute_features(self._pipeline, conform(self.contract.inputs, raw)))

    @property
    def direct(self) -> bool:
        """Whether `predict_columns` needs no frame, because every feature is a column of the request as it is."""
        return self._direct

    def predict_columns(self, columns: Mapping[str, Sequence[Any]], rows: int) -> np.ndarray:
        """Returns what `predict_raw` does for the same rows, from Python values.

        Args:
            columns: Values of the declared types by input, None where missing.
            rows: How many each column has.

        Raises:
            DataError: The user's `features` raised.
        """
        if self._direct:
            return np.asarray(self._fitted.predict(self._encode.of_columns(columns, rows)), dtype="float64")
        return self.predict(compute_features(self._pipeline, frame_of(self.contract.inputs, columns)))

    def _inputs_are_features(self) -> bool:
        numbers = ("integer", "number", "boolean")
        kinds = {column.name: "number" if column.type in numbers else column.type for column in self.contract.inputs}
        pipeline = self._pipeline
        withheld = {*pipeline.key, *pipeline.pii, pipeline.time, pipeline.label.column}
        return pipeline.features is None and all(
            feature.name not in withheld
            and kinds.get(feature.name) == ("string" if feature.type == "category" else "number")
            for feature in self.contract.features
        )

    def requests(self) -> pd.DataFrame:
        """Returns the recorded requests: raw rows without the label, as JSON has them."""
        recorded = self.recorded()
        return pd.DataFrame(recorded["data"], columns=recorded["columns"])

    def recorded(self) -> dict[str, Any]:
        """Returns the recorded requests as JSON has them, `columns` and `data`, and the answers, `expected`."""
        return _recorded(self.folder)

    def save(self, folder: Path) -> None:
        """Leaves the same model in a new folder: its own files bit by bit, MLflow's beside them written anew.

        So what MLflow is told to import and to run when somebody loads the model with it comes from here, whoever
        wrote the folder that this one was loaded from.
        """
        self._fitted.save(folder, [feature.name for feature in self.contract.features])
        for name in files_of(self.folder):
            shutil.copyfile(self.folder / name, folder / name)

    def replay(self, folder: Path | None = None) -> Measured:
        """Returns how the answers to the recorded requests, together and one by one, differ from the recorded ones.

        Args:
            folder: Where the requests are; None: among the model's own files.

        Raises:
            DataError: A recorded request cannot be answered.
        """
        recorded = _recorded(folder or self.folder)
        raw = pd.DataFrame(recorded["data"], columns=recorded["columns"])
        expected = np.asarray(recorded["expected"], dtype="float64")
        started = time.perf_counter()
        together = self.predict_raw(raw)
        # A request is most often one row, and a feature that looks at other rows gives that row another value.
        each = np.concatenate([self.predict_raw(raw.iloc[[row]]) for row in range(min(len(raw), _ALONE))])
        seconds = time.perf_counter() - started
        difference = max(largest_difference(together, expected), largest_difference(each, expected[: len(each)]))
        return Measured(requests=len(raw), largest_difference=difference, seconds=seconds)


def write_model(
    folder: Path,
    contract: Contract,
    fitted: Fitted,
    requests: pd.DataFrame,
    expected: np.ndarray,
    reference: pd.DataFrame,
    sketches: str = "",
) -> str:
    """Leaves a model's files in a new folder; returns their digest.

    Args:
        folder: Must not exist yet.
        contract: Its `file` is the one the model's kind writes.
        fitted: The trained model.
        requests: Raw rows, shape (n, inputs).
        expected: The answers to them, shape (n,) or (n, classes).
        reference: A sample of what it was trained on, with the column `prediction`.
        sketches: How all of it was distributed, as `reference.Reference` writes it, if the contract speaks of that.
    """
    fitted.save(folder, [feature.name for feature in contract.features])
    (folder / CONTRACT).write_text(contract.model_dump_json(indent=1), encoding="utf-8")
    recorded = {"columns": list(requests.columns), "data": rows_of(requests), "expected": expected.tolist()}
    (folder / REQUESTS).write_text(json.dumps(recorded), encoding="utf-8")
    reference.to_parquet(folder / REFERENCE, index=False)
    if contract.sketched:
        (folder / SKETCHES).write_text(sketches, encoding="utf-8")
    return digest_of(folder)


def files_of(folder: Path) -> list[str]:
    """Returns the names of the files that serving and monitoring read, which are those that the digest covers.

    Raises:
        ModelError: The contract cannot be read.
    """
    contract = _contract(folder)
    return sorted((CONTRACT, REQUESTS, REFERENCE, contract.file, *([SKETCHES] if contract.sketched else [])))


def digest_of(folder: Path) -> str:
    """Returns the SHA-256 over the names and contents of `files_of`.

    Raises:
        ModelError: Files are missing, or the contract cannot be read.
    """
    names = files_of(folder)
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise ModelError("model files", "must be complete", f"no {', '.join(missing)}", "Train the model again")
    parts = [f"{name} {hashlib.sha256((folder / name).read_bytes()).hexdigest()}\n" for name in names]
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def load_model(folder: Path, *, digest: str | None, pipeline: Pipeline, foreign: bool = False) -> LoadedModel:
    """Returns the model in a folder, ready to answer.

    Args:
        folder: As `write_model` left it.
        digest: What `digest_of` must give; None trusts the folder as it is.
        pipeline: The pipeline it was trained for.
        foreign: Whether the files come from somebody who need not be trusted.

    Raises:
        ModelError: The digest differs, a file is damaged or missing, or it names a type that is not trusted; or it is
            foreign, and a user's own code would read it.
    """
    where = f"{pipeline.name}: model files"
    if digest is not None and (found := digest_of(folder)) != digest:
        hint = f"The files changed after training; train again, or `airworthy rollback {pipeline.name}`"
        raise ModelError(where, f"must have the recorded SHA-256 {digest[:12]}…", f"{found[:12]}…", hint)
    contract = _contract(folder)
    if contract.pipeline != pipeline.name:
        raise ModelError(where, "must belong to this pipeline", contract.pipeline)
    try:
        kind = kinds.find("models", contract.kind)
    except KeyError:
        raise ModelError(where, "must be of a known kind of model", contract.kind) from None
    assert issubclass(kind, Model)
    if foreign and kind.read_by_user(folder / contract.file):
        rule = "must not be read by the class's own `load`, which may run what stands in a file from elsewhere"
        raise ModelError(where, rule, contract.file, "If you trust whoever made it, import it with --trust")
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


def _recorded(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / REQUESTS).read_text(encoding="utf-8"))
    return found


def _contract(folder: Path) -> Contract:
    try:
        return Contract.model_validate_json((folder / CONTRACT).read_bytes())
    except FileNotFoundError:
        raise ModelError("model files", f"must hold {CONTRACT}", hint="Train the model again") from None
    except ValidationError as error:
        raise ModelError(f"model files: {CONTRACT}", "must be a contract", str(error)) from None


def largest_difference(found: np.ndarray, expected: np.ndarray) -> float:
    """Returns how far an answer is from the recorded one at most; infinity if it is no number or none is there."""
    if found.shape != expected.shape:
        return float("inf")
    difference = np.abs(found - expected)
    return float("inf") if np.isnan(difference).any() else float(difference.max(initial=0.0))
