"""From raw rows to features: the one function that process, serving and the servable check all call."""

from __future__ import annotations

from typing import Any

import pandas as pd

from airworthy.config import RESERVED, Pipeline
from airworthy.errors import DataError, Problems
from airworthy.user_code import call, digest


def compute_features(pipeline: Pipeline, raw: pd.DataFrame) -> pd.DataFrame:
    """Returns one row of features per raw row, with the same index, as numbers, bools and strings.

    The label is taken out first, so no feature can be made of it, and so are the `pii` columns. A pipeline
    without `features` uses every other column but key and time.

    Args:
        pipeline: Names the user's function.
        raw: Raw rows; the label column may be missing.

    Raises:
        DataError: The user's function raised; the message names its line.
        Problems: What it returned cannot be features; every reason is listed.
    """
    inputs = raw.drop(columns=[pipeline.label.column, *pipeline.pii], errors="ignore")
    if pipeline.features is None:
        found = inputs.drop(columns=[*(set(pipeline.key) - set(pipeline.pii)), pipeline.time])
        where = pipeline.name
    else:
        found = _call(pipeline, pipeline.features, inputs)
        where = pipeline.features
    if not isinstance(found, pd.DataFrame):
        raise DataError(where, "must return a pandas DataFrame", type(found).__name__)
    if problems := [*_shape_problems(pipeline, where, raw, found)]:
        raise Problems(where, problems)
    if strings := [name for name, kind in found.dtypes.items() if _holds_strings(kind)]:
        found = found.astype(dict.fromkeys(strings, object))  # without any it is a copy, a quarter of a single answer
    if problems := _type_problems(where, found):
        raise Problems(where, problems)
    return found


def _call(pipeline: Pipeline, function: str, inputs: pd.DataFrame) -> Any:
    try:
        return call(function, inputs)
    except DataError as error:
        cause = error.__cause__
        asked = [
            name for name in pipeline.pii if isinstance(cause, KeyError | AttributeError) and repr(name) in str(cause)
        ]
        if not asked:
            raise
        rule = f"must do without {', '.join(asked)}, because a column named in `pii` is never given to it"
        raise DataError(function, rule, hint=error.hint) from cause


def features_digest(pipeline: Pipeline) -> str:
    """Returns the SHA-256 of the source of the module that `features` is in; "" if the pipeline has none."""
    return "" if pipeline.features is None else digest(pipeline.features)


def _shape_problems(pipeline: Pipeline, where: str, raw: pd.DataFrame, found: pd.DataFrame) -> list[DataError]:
    problems = []
    names = [str(name) for name in found.columns]
    if not found.index.equals(raw.index):
        hint = "Neither drop, add nor reorder rows; keep the index"
        problems.append(DataError(where, "must return one row per raw row, in the same order", len(found), hint))
    if not names:
        problems.append(DataError(where, "must return at least one column"))
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        problems.append(DataError(where, "must return each column once", repeated))
    reserved = {*pipeline.key, pipeline.time, pipeline.label.column, *pipeline.pii, *RESERVED}
    if taken := sorted(reserved & set(names)):
        hint = "The tables keep key, time, label and prediction themselves; give the feature another name"
        problems.append(DataError(where, "must not return a column that the tables have already", taken, hint))
    return problems


def _type_problems(where: str, found: pd.DataFrame) -> list[DataError]:
    problems = []
    for name in found.columns:
        kind = found[name].dtype
        held = pd.api.types.infer_dtype(found[name], skipna=True) if kind.kind == "O" else str(kind)
        if not (pd.api.types.is_numeric_dtype(kind) or held in ("string", "boolean", "empty")):
            hint = "Convert the column in features(), e.g. a time into hours"
            problems.append(DataError(f"{where}: {name}", "must hold numbers, bools or strings", held, hint))
    return problems


def _holds_strings(kind: object) -> bool:
    return isinstance(kind, pd.CategoricalDtype | pd.StringDtype)
