"""Turns raw rows, features and labels into what a model takes, the same way in training and in serving."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal

import numpy as np
import pandas as pd

from airworthy.config import Strict
from airworthy.errors import DataError
from airworthy.evidence import Task
from airworthy.models import Matrix


class Input(Strict):
    """One raw column of a request."""

    name: str
    type: Literal["integer", "number", "boolean", "timestamp", "string"]


class Feature(Strict):
    """One feature column; a category's code is its position in `categories`."""

    name: str
    type: Literal["number", "category"]
    categories: tuple[str, ...] = ()


_INPUT_TYPES = {"i": "integer", "u": "integer", "f": "number", "b": "boolean", "M": "timestamp"}


def describe_inputs(raw: pd.DataFrame) -> tuple[Input, ...]:
    """Returns the columns and types that a request has to have to look like `raw`."""

    def kind(column: pd.Series[Any]) -> Any:
        if column.dtype.kind == "O" and pd.api.types.infer_dtype(column, skipna=True) == "boolean":
            return "boolean"
        return _INPUT_TYPES.get(column.dtype.kind, "string")

    return tuple(Input(name=str(name), type=kind(raw[name])) for name in raw.columns)


def conform(inputs: Sequence[Input], raw: pd.DataFrame) -> pd.DataFrame:
    """Returns the declared columns in order, typed as in training; other columns are left out.

    Raises:
        DataError: Columns are missing, or a value is not of its column's type.
    """
    if missing := [column.name for column in inputs if column.name not in raw.columns]:
        raise DataError("request", f"must have the column(s) {', '.join(missing)}", list(map(str, raw.columns)))
    columns = {}
    for column in inputs:
        try:
            columns[column.name] = _convert(raw[column.name], column.type)
        except (ValueError, TypeError) as error:
            raise DataError(f"request: {column.name}", f"must hold {column.type} values", str(error)) from None
    return pd.DataFrame(columns, index=raw.index)


def _convert(values: pd.Series[Any], kind: str) -> pd.Series[Any]:
    if kind == "timestamp":
        if values.dtype.kind != "M":
            values = pd.to_datetime(values.astype("string"), utc=True, format="ISO8601")
        elif values.dt.tz is None:
            values = values.dt.tz_localize("UTC")
        return values.astype("datetime64[us, UTC]")
    if kind == "integer" and values.notna().all():
        numbers = pd.to_numeric(values)
        return numbers.astype("int64") if numbers.dtype.kind in "biu" else numbers
    if kind in ("integer", "number"):
        return pd.to_numeric(values).astype("float64")
    if kind == "boolean":
        flags = values.astype("boolean")
        return flags.astype("bool") if flags.notna().all() else flags.astype(object).where(flags.notna(), None)
    return values.astype(object).where(values.notna(), None)


def frame_of(inputs: Sequence[Input], columns: Mapping[str, Sequence[Any]]) -> pd.DataFrame:
    """Returns what `conform` makes of the same rows, from values that are known to be of the declared types.

    Args:
        inputs: What the model takes.
        columns: Python values of these types by column, None where missing, moments with a zone.
    """
    return pd.DataFrame({column.name: _array(column.type, columns[column.name]) for column in inputs})


def _array(kind: str, values: Sequence[Any]) -> Any:
    if kind == "timestamp":
        moments = np.array([_naive(value) for value in values], dtype="datetime64[us]")
        return pd.DatetimeIndex(moments).tz_localize("UTC")
    missing = None in values
    if kind == "number" or (kind == "integer" and missing):
        return np.array(_numbers(values), dtype="float64")
    if kind == "integer":
        return np.array(values, dtype="int64")
    return np.array(values, dtype="bool" if kind == "boolean" and not missing else object)


def _naive(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.replace(tzinfo=None) - (moment.utcoffset() or timedelta())


def _numbers(values: Sequence[Any]) -> Sequence[Any]:
    return [np.nan if value is None else value for value in values] if None in values else values


def describe_features(features: pd.DataFrame) -> tuple[Feature, ...]:
    """Returns the feature columns; the categories of a string column are the values it holds, sorted."""
    described = []
    for name in features.columns:
        column = features[name]
        if column.dtype.kind in "iufb" or pd.api.types.infer_dtype(column, skipna=True) == "boolean":
            described.append(Feature(name=name, type="number"))
        else:
            seen = tuple(sorted(map(str, column.dropna().unique())))
            described.append(Feature(name=name, type="category", categories=seen))
    return tuple(described)


class Encoder:
    """Encodes features as numbers; what training has never seen becomes a missing value."""

    def __init__(self, features: Sequence[Feature]) -> None:
        self.names = tuple(feature.name for feature in features)
        self.is_category = tuple(feature.type == "category" for feature in features)
        self._categories = [pd.Index(feature.categories, dtype=object) for feature in features]
        self._codes = [{name: code for code, name in enumerate(feature.categories)} for feature in features]

    def __call__(self, features: pd.DataFrame) -> Matrix:
        """Returns shape (n, features): numbers, category codes, and NaN where missing, infinite or never seen.

        Raises:
            DataError: Columns are missing, or a number column holds something else.
        """
        if missing := [name for name in self.names if name not in features.columns]:
            got = list(map(str, features.columns))
            raise DataError("features", f"must have the column(s) {', '.join(missing)} the model was trained on", got)
        values = np.empty((len(features), len(self.names)))
        for number, (name, is_category) in enumerate(zip(self.names, self.is_category, strict=True)):
            column = features[name]
            if is_category:
                codes = self._categories[number].get_indexer(pd.Index(column.astype(object)))
                values[:, number] = np.where(codes < 0, np.nan, codes)
            else:
                try:
                    values[:, number] = column.to_numpy("float64", na_value=np.nan)
                except (ValueError, TypeError) as error:
                    raise DataError(f"features: {name}", "must hold numbers", str(error)) from None
        values[~np.isfinite(values)] = np.nan
        return Matrix(values, self.names, self.is_category)

    def of_columns(self, columns: Mapping[str, Sequence[Any]], rows: int) -> np.ndarray:
        """Returns what a call with the same features as a frame encodes, without building one.

        Args:
            columns: Python values by feature: finite numbers and bools, of a category text; None where missing.
            rows: How many each column has.
        """
        values = np.empty((rows, len(self.names)))
        for number, (name, is_category) in enumerate(zip(self.names, self.is_category, strict=True)):
            column = columns[name]
            if is_category:
                codes = self._codes[number]
                values[:, number] = [codes.get(value, np.nan) for value in column]
            else:
                values[:, number] = _numbers(column)
        return values


def class_names(label: pd.Series[Any]) -> tuple[str, ...]:
    """Returns the classes a label column holds, in order of value; the last one is binary's positive class."""
    return tuple(_class_name(value) for value in sorted(label.unique()))


def encode_label(task: Task, classes: Sequence[str], label: pd.Series[Any]) -> np.ndarray:
    """Returns numbers for regression, else each row's position in `classes`.

    Args:
        task: What the label is predicted as.
        classes: As from `class_names`; not used for regression.
        label: Without missing values.

    Raises:
        DataError: The label holds a class that `classes` does not name, or no numbers for regression.
    """
    if task == "regression":
        try:
            return label.to_numpy(dtype="float64")
        except (ValueError, TypeError) as error:
            raise DataError(f"label {label.name}", "must hold numbers for regression", str(error)) from None
    codes, found = pd.factorize(label)
    names = [_class_name(value) for value in found]
    if unknown := sorted(set(names) - set(classes)):
        raise DataError(f"label {label.name}", f"must be one of {', '.join(classes)}", ", ".join(unknown))
    positions: np.ndarray = np.array([classes.index(name) for name in names], dtype="int64")
    return positions[codes]


def extend_classes(task: Task, classes: Sequence[str], label: pd.Series[Any]) -> tuple[str, ...]:
    """Returns the classes, for multiclass with those appended that only `label` holds."""
    if task != "multiclass":
        return tuple(classes)
    return (*classes, *(name for name in class_names(label) if name not in classes))


def align_classes(prediction: np.ndarray, classes: Sequence[str], every: Sequence[str]) -> np.ndarray:
    """Returns multiclass probabilities with a column for each class of `every`, zero where the model knows none."""
    if prediction.ndim == 1 or tuple(classes) == tuple(every):
        return prediction
    aligned = np.zeros((len(prediction), len(every)))
    aligned[:, [every.index(name) for name in classes]] = prediction
    return aligned


def _class_name(value: Any) -> str:
    # A column of 0 and 1 turns into 0.0 and 1.0 as soon as one label is missing; it is the same label.
    return str(int(value)) if isinstance(value, float | np.floating) and float(value).is_integer() else str(value)
