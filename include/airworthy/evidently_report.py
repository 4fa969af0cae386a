"""Evidently's report of the columns that drifted, on a sample, and whether it says the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from airworthy.drift import ColumnDrift, Drift
from airworthy.sketches import Kind

ROWS = 5_000
SEED = 20130101
METHODS: dict[Kind, str] = {"number": "wasserstein", "category": "jensenshannon"}


def confirm(found: Drift, before: pd.DataFrame, now: pd.DataFrame) -> tuple[Drift, Any]:
    """Returns the findings with what Evidently measures of those that drifted, and its snapshot; None if none did.

    Args:
        found: What was measured on all rows.
        before: Training rows.
        now: Rows of the partition.
    """
    chosen = [one for one in found.columns if one.drifted and one.score is not None]
    chosen = [one for one in chosen if one.column in before.columns and one.column in now.columns]
    kinds: dict[str, Kind] = {one.column: one.kind for one in chosen}
    training, partition = (_comparable(_sample(frame), kinds) for frame in (before, now))
    held = training.notna().any() & partition.notna().any()
    kinds = {name: kind for name, kind in kinds.items() if held[name]}
    if not kinds:
        return found, None
    snapshot = report(training, partition, kinds, {one.column: one.threshold for one in chosen})
    scores = {metric["config"]["column"]: float(metric["value"]) for metric in snapshot.dict()["metrics"]}
    return found.model_copy(update={"columns": tuple(_with(one, scores) for one in found.columns)}), snapshot


def report(before: pd.DataFrame, now: pd.DataFrame, kinds: Mapping[str, Kind], thresholds: Mapping[str, float]) -> Any:
    """Returns Evidently's snapshot of these columns, every one of which holds a value on both sides."""
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import ValueDrift

    definition = DataDefinition(
        numerical_columns=[name for name, kind in kinds.items() if kind == "number"],
        categorical_columns=[name for name, kind in kinds.items() if kind == "category"],
    )
    sides = [Dataset.from_pandas(frame[list(kinds)], data_definition=definition) for frame in (now, before)]
    metrics = [
        ValueDrift(column=name, method=METHODS[kind], threshold=thresholds[name]) for name, kind in kinds.items()
    ]
    return Report(metrics, include_tests=True).run(*sides)


def _with(one: ColumnDrift, scores: Mapping[str, float]) -> ColumnDrift:
    return one.model_copy(update={"sampled": scores[one.column]}) if one.column in scores else one


def _comparable(frame: pd.DataFrame, kinds: Mapping[str, Kind]) -> pd.DataFrame:
    """Returns numbers as finite floats or NaN, categories as text or None."""
    columns = {}
    for name, kind in kinds.items():
        if kind == "number":
            columns[name] = frame[name].astype("float64").replace([np.inf, -np.inf], np.nan)
        else:
            columns[name] = frame[name].astype(object).map(str, na_action="ignore")
    return pd.DataFrame(columns, index=frame.index)


def _sample(frame: pd.DataFrame) -> pd.DataFrame:
    return frame if len(frame) <= ROWS else frame.sample(ROWS, random_state=SEED)
