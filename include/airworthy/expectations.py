"""Runs Great Expectations on a frame, and says which rows fail at a bounded cost."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

import numpy as np
import pandas as pd

from airworthy.config import Expectation

# Under Airflow, whose root logger is at INFO, importing it prints hundreds of lines.
logging.getLogger("great_expectations").setLevel(logging.WARNING)

_NUMBER = "airworthy_number"
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


def run(frame: pd.DataFrame, expectations: Sequence[Expectation], *, listed: int) -> list[Outcome]:
    """Returns one outcome per expectation, in order.

    Listing a failing row costs about 60 microseconds, so the expectations run without that first, and
    those with at most `listed` failing rows run again to list them.

    Args:
        frame: What to check.
        expectations: Under Great Expectations' own names.
        listed: More failing rows than this are counted, but not listed.
    """
    frame = frame.reset_index(drop=True)
    outcomes = [Outcome(expectation, _title(expectation)) for expectation in expectations]
    built = [_build(outcome, frame) for outcome in outcomes]
    for number, result in _results(frame, dict(enumerate(built)), "SUMMARY"):
        _judge(outcomes[number], result)
    again = {
        number: built[number]
        for number, outcome in enumerate(outcomes)
        if outcome.status == "failed" and outcome.is_row_level and outcome.unexpected <= listed
    }
    for number, result in _results(frame, again, "COMPLETE"):
        outcomes[number].rows = np.sort(np.array(result.result["unexpected_index_list"], dtype="int64"))
    return outcomes


def _title(expectation: Expectation) -> str:
    columns = _columns(expectation)
    return f"{expectation.type}({', '.join(columns)})" if columns else expectation.type


def _columns(expectation: Expectation) -> list[str]:
    kwargs = expectation.kwargs
    columns = [kwargs[name] for name in ("column", "column_A", "column_B") if name in kwargs]
    return [str(column) for column in [*columns, *kwargs.get("column_list", ())]]


def _build(outcome: Outcome, frame: pd.DataFrame) -> Any:
    """Returns Great Expectations' object, or None with the reason in the outcome."""
    from great_expectations.expectations import expectation as gx
    from great_expectations.expectations.registry import get_expectation_impl

    expectation = outcome.expectation
    implementation = get_expectation_impl(expectation.type)
    row_level = (gx.ColumnMapExpectation, gx.ColumnPairMapExpectation, gx.MulticolumnMapExpectation)
    outcome.is_row_level = issubclass(implementation, row_level)
    missing = [column for column in _columns(expectation) if column not in frame.columns]
    if missing and expectation.type != "expect_column_to_exist":
        there = ", ".join(map(str, frame.columns))
        outcome.reason = f"the column {', '.join(missing)} does not exist; there are {there}"
        return None
    try:
        built = implementation(**expectation.kwargs)
    except (ValueError, TypeError) as error:  # pydantic's error about a misspelt or missing argument is a ValueError
        outcome.reason = "; ".join(line.strip() for line in str(error).splitlines()[1:]) or str(error)
        return None
    outcome.is_warning = str(getattr(built.severity, "value", built.severity)) != "critical"
    return built


def _results(frame: pd.DataFrame, built: dict[int, Any], result_format: str) -> Iterator[tuple[int, Any]]:
    """Yields Great Expectations' results with the keys of `built`; it gives them in an order of its own."""
    import great_expectations as gx

    suite = gx.ExpectationSuite(name="checks")
    for number, one in built.items():
        if one is not None:
            suite.expectations.append(one.copy(update={"meta": {_NUMBER: number}}, deep=False))
    if not suite.expectations:
        return
    batch = _whole_frames().get_batch(batch_parameters={"dataframe": frame})
    for result in batch.validate(suite, result_format={"result_format": result_format}).results:
        yield result.expectation_config.meta[_NUMBER], result


@cache
def _whole_frames() -> Any:
    import great_expectations as gx

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}  # type: ignore[assignment]
    asset = context.data_sources.add_pandas("memory").add_dataframe_asset("raw")
    return asset.add_batch_definition_whole_dataframe("whole")


def _judge(outcome: Outcome, result: Any) -> None:
    found = result.to_json_dict()
    outcome.result = found
    details, info = found["result"], found["exception_info"]
    raised = [one for one in (info, *info.values()) if isinstance(one, dict) and one.get("raised_exception")]
    if raised:
        outcome.reason = str(raised[0]["exception_message"])[:_SHOWN]
        return
    outcome.status = "passed" if found["success"] else "failed"
    failed = outcome.status == "failed"
    if outcome.is_row_level and failed:
        outcome.unexpected = int(details["unexpected_count"])
        seen = list(dict.fromkeys(map(_show, details["partial_unexpected_list"])))
        examples = f", e.g. {', '.join(seen[:3])}" if seen else ""
        outcome.reason = f"{outcome.unexpected} of {details['element_count']} rows fail{examples}"
    elif "observed_value" in details:
        outcome.reason = f"observed {_show(details['observed_value'])}"
    elif failed:
        outcome.reason = "it does not"


def _show(value: Any) -> str:
    text = json.dumps(value, default=lambda other: other.item() if hasattr(other, "item") else str(other))
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
