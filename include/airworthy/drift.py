"""How far the rows of a partition are from what the champion was trained on, column by column.

Distances are Evidently's: normed Wasserstein for numbers, Jensen-Shannon for categories. P-values are no use
here: at a few thousand rows they flag every column. Evidently leaves missing values out, so that a column
that is half gone looks unchanged; the share of missing values is therefore compared as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pandas as pd

from airworthy.config import Strict

ROWS = 5_000
SEED = 20130101

Kind = Literal["number", "category"]
METHODS: dict[Kind, str] = {"number": "wasserstein", "category": "jensenshannon"}


class ColumnDrift(Strict):
    """One column of a partition against the training reference.

    Attributes:
        score: The distance; None if either side holds no values to compare.
        missing: Share of missing values in the partition.
        reference_missing: The same in the reference.
        note: Why the column counts as drifted beside its score; "" if there is nothing to add.
    """

    column: str
    kind: Kind
    score: float | None
    threshold: float
    missing: float
    reference_missing: float
    drifted: bool
    note: str = ""


def measure(
    reference: pd.DataFrame, current: pd.DataFrame, kinds: Mapping[str, Kind], thresholds: Mapping[str, float]
) -> tuple[list[ColumnDrift], Any]:
    """Returns one finding per column of `kinds`, in its order, and Evidently's snapshot (None if nothing compares).

    A column that one side does not have counts as all missing there.

    Args:
        reference: At most `ROWS` rows of it are compared, drawn with a fixed seed.
        current: The same.
        kinds: Column name to kind.
        thresholds: Column name to the distance from which on it has drifted; differences in the share of missing
            values are held against it too.
    """
    before, now = _comparable(reference, kinds), _comparable(current, kinds)
    gone, was_gone = now.isna().mean(), before.isna().mean()
    compared = [name for name in kinds if gone[name] < 1 and was_gone[name] < 1]
    varying = [name for name in compared if pd.concat([before[name], now[name]]).nunique() > 1]
    snapshot = _compare(before, now, {name: kinds[name] for name in varying}, thresholds) if varying else None
    scores = dict.fromkeys(compared, 0.0) | (_scores(snapshot) if snapshot else {})
    findings = []
    for name, kind in kinds.items():
        score, threshold = scores.get(name), thresholds[name]
        missing_moved = abs(gone[name] - was_gone[name]) >= threshold
        findings.append(
            ColumnDrift(
                column=name,
                kind=kind,
                score=score,
                threshold=threshold,
                missing=float(gone[name]),
                reference_missing=float(was_gone[name]),
                drifted=missing_moved or (score is not None and score >= threshold),
                note=f"is missing in {gone[name]:.0%} of rows, in training {was_gone[name]:.0%}"
                if missing_moved
                else "",
            )
        )
    return findings, snapshot


def _comparable(frame: pd.DataFrame, kinds: Mapping[str, Kind]) -> pd.DataFrame:
    """Returns numbers as finite floats or NaN, categories as text or None."""
    columns = {}
    for name, kind in kinds.items():
        column = frame[name] if name in frame.columns else pd.Series(np.nan, index=frame.index)
        if kind == "number":
            columns[name] = column.astype("float64").replace([np.inf, -np.inf], np.nan)
        else:
            columns[name] = column.astype(object).map(str, na_action="ignore")
    return pd.DataFrame(columns, index=frame.index)


def _compare(
    before: pd.DataFrame, now: pd.DataFrame, kinds: Mapping[str, Kind], thresholds: Mapping[str, float]
) -> Any:
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import ValueDrift

    definition = DataDefinition(
        numerical_columns=[name for name, kind in kinds.items() if kind == "number"],
        categorical_columns=[name for name, kind in kinds.items() if kind == "category"],
    )

    def dataset(frame: pd.DataFrame) -> Dataset:
        return Dataset.from_pandas(_sample(frame[list(kinds)]), data_definition=definition)

    metrics = [
        ValueDrift(column=name, method=METHODS[kind], threshold=thresholds[name]) for name, kind in kinds.items()
    ]
    return Report(metrics, include_tests=True).run(dataset(now), dataset(before))


def _sample(frame: pd.DataFrame) -> pd.DataFrame:
    return frame if len(frame) <= ROWS else frame.sample(ROWS, random_state=SEED)


def _scores(snapshot: Any) -> dict[str, float]:
    return {metric["config"]["column"]: float(metric["value"]) for metric in snapshot.dict()["metrics"]}
