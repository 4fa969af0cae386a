"""What a version says about the rows of a request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from airworthy.serving.champion import Champion
from airworthy.serving.counters import Counters
from airworthy.serving.inputs import typed
from airworthy.serving.rows import Rows


def columns_of(champion: Champion, rows: Rows, counters: Counters) -> dict[str, list[Any]]:
    """Returns what the model is given: typed, looked up where it is of a view, None where it may be left out.

    Raises:
        DataError: A view cannot be looked up by what was sent.
        Problems: The rows do not fit the model's contract.
        ServiceError: A view's store does not answer.
    """
    columns = typed(champion.model.contract.inputs, rows, champion.may_lack, champion.pipeline.set_aside)
    columns = champion.lookups.fill(columns, rows.count, counters)
    return columns | {name: [None] * rows.count for name in champion.optional if name not in columns}


def some_of(rows: Rows, chosen: Sequence[int]) -> Rows:
    """Returns the chosen rows, in that order."""
    if len(chosen) == rows.count:
        return rows
    columns = {name: [values[number] for number in chosen] for name, values in rows.columns.items()}
    return Rows(columns, len(chosen), rows.text)


def as_json(prediction: np.ndarray, classes: tuple[str, ...]) -> list[Any]:
    """Returns the predictions as an answer has them: numbers, or the probability of each class."""
    rows: list[Any] = prediction.tolist()
    return rows if prediction.ndim == 1 else [dict(zip(classes, row, strict=True)) for row in rows]
