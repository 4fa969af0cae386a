"""What became of one expectation, in words and as a document of Great Expectations."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from airworthy.config import Expectation

MASK = "***"
_SHOWN = 300
# What tells something of a personal column, but no value of it.
_OPEN = {
    "element_count", "unexpected_count", "unexpected_percent", "unexpected_percent_total",
    "unexpected_percent_nonmissing", "missing_count", "missing_percent", "partial_unexpected_index_list",
}  # fmt: skip
_COUNTED = {
    "expect_column_proportion_of_non_null_values_to_be_between",
    "expect_column_proportion_of_unique_values_to_be_between",
    "expect_column_unique_value_count_to_be_between",
}

Status = Literal["passed", "failed", "error"]


@dataclass
class Outcome:
    """What became of one expectation.

    Attributes:
        title: The expectation and its columns, e.g. `expect_column_values_to_be_between(distance)`.
        is_row_level: Whether it judges single rows.
        is_warning: Whether the file gives it a lower severity than `critical`.
        status: `error` means it could not be judged; `reason` says why, or what was observed.
        unexpected: How many rows fail a row-level expectation.
        rows: The positions of these rows; None if there are too many to list.
        result: Great Expectations' own result, as JSON.
    """

    expectation: Expectation
    title: str
    is_row_level: bool = False
    is_warning: bool = False
    status: Status = "error"
    reason: str = ""
    unexpected: int = 0
    rows: np.ndarray | None = None
    result: dict[str, Any] = field(default_factory=dict)


def columns_of(expectation: Expectation) -> list[str]:
    """Returns the columns that an expectation names as its own."""
    kwargs = expectation.kwargs
    columns = [kwargs[name] for name in ("column", "column_A", "column_B") if name in kwargs]
    return [str(column) for column in [*columns, *kwargs.get("column_list", ())]]


def title(expectation: Expectation) -> str:
    """Returns the expectation and its columns, e.g. `expect_column_to_exist(id)`."""
    columns = columns_of(expectation)
    return f"{expectation.type}({', '.join(columns)})" if columns else expectation.type


def judge(outcome: Outcome, found: dict[str, Any], masked: Collection[str]) -> None:
    """Leaves in the outcome what a result of Great Expectations says.

    Args:
        outcome: What to fill.
        found: The result, as JSON.
        masked: Columns of which no value may be told.
    """
    raised = _raised(found["exception_info"])
    if hides := _hides(outcome.expectation, masked):
        found = _without_values(outcome.expectation, found)
    outcome.result = found
    if raised is not None:
        outcome.reason = MASK if hides else raised[:_SHOWN]
        return
    details = found["result"]
    outcome.status = "passed" if found["success"] else "failed"
    failed = outcome.status == "failed"
    if "element_count" not in details:  # it judged the type of a column, not its values
        outcome.is_row_level = False
    if outcome.is_row_level and failed:
        outcome.unexpected = int(details["unexpected_count"])
        seen = list(dict.fromkeys(map(_show, details["partial_unexpected_list"])))
        examples = f", e.g. {', '.join(seen[:3])}" if seen else ""
        outcome.reason = f"{outcome.unexpected} of {details['element_count']} rows fail{examples}"
    elif "observed_value" in details:
        outcome.reason = f"observed {_show(details['observed_value'])}"
    elif failed:
        outcome.reason = "it does not"


def _raised(info: dict[str, Any]) -> str | None:
    """Returns the message of the exception in a result; of several metrics, of the first."""
    for one in (info, *info.values()):
        if isinstance(one, dict) and one.get("raised_exception"):
            return str(one["exception_message"])
    return None


def _hides(expectation: Expectation, masked: Collection[str]) -> bool:
    """Returns whether a result may hold values of masked columns; one that names no column may hold any."""
    columns = columns_of(expectation)
    return any(column in masked for column in columns) or (
        bool(masked) and not columns and not expectation.type.startswith("expect_table_")
    )


def _without_values(expectation: Expectation, found: dict[str, Any]) -> dict[str, Any]:
    open_ = _OPEN | {"observed_value"} if expectation.type in _COUNTED else _OPEN
    result = {key: value if key in open_ else _masked(value) for key, value in found["result"].items()}
    info = found["exception_info"]
    return {**found, "result": result, "exception_info": info if _raised(info) is None else _masked(info)}


def _masked(value: Any) -> Any:
    """Returns the same structure without a value; numbers of a structure may be values as well."""
    if isinstance(value, dict):
        return {key: inner if key in ("count", "raised_exception") else _masked(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_masked(inner) for inner in value]
    return value if value is None else MASK


def _show(value: Any) -> str:
    text = json.dumps(value, default=lambda other: other.item() if hasattr(other, "item") else str(other))
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
