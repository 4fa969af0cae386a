"""What became of one expectation, in words and as a document of Great Expectations."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from airworthy.config import Expectation

_SHOWN = 300

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

    @property
    def quarantines(self) -> bool:
        """Whether rows fail it that must not go on."""
        return self.status == "failed" and self.is_row_level and not self.is_warning


def columns_of(expectation: Expectation) -> list[str]:
    """Returns the columns that an expectation names as its own."""
    kwargs = expectation.kwargs
    columns = [kwargs[name] for name in ("column", "column_A", "column_B") if name in kwargs]
    return [str(column) for column in [*columns, *kwargs.get("column_list", ())]]


def title(expectation: Expectation) -> str:
    """Returns the expectation and its columns, e.g. `expect_column_to_exist(id)`."""
    columns = columns_of(expectation)
    return f"{expectation.type}({', '.join(columns)})" if columns else expectation.type


def judge(outcome: Outcome, found: dict[str, Any]) -> None:
    """Leaves in the outcome what a result of Great Expectations says.

    Args:
        outcome: What to fill.
        found: The result, as JSON.
    """
    raised = _raised(found["exception_info"])
    outcome.result = found
    if raised is not None:
        outcome.reason = raised[:_SHOWN]
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


def _show(value: Any) -> str:
    text = json.dumps(value, default=lambda other: other.item() if hasattr(other, "item") else str(other))
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
