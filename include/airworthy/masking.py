"""Keeps the values of `pii` columns out of all that people read: results, pages, samples, logs and messages."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from airworthy.config import Pipeline
from airworthy.errors import AirworthyError, DataError, Problems
from airworthy.expectations import Outcome

MASK = "[masked]"
UNSAID = "(not shown, as it may hold personal data)"

# What these observe is how many values there are, never which.
_COUNTING = frozenset(
    {
        "expect_column_proportion_of_non_null_values_to_be_between",
        "expect_column_proportion_of_unique_values_to_be_between",
        "expect_column_to_exist",
        "expect_column_unique_value_count_to_be_between",
        "expect_column_values_to_be_in_type_list",
        "expect_column_values_to_be_of_type",
    }
)
_COUNTS = re.compile(r"(element|unexpected|missing)_(count|percent\w*)")
_TEXT_LIMIT = 2_000
_VALUE_LIMIT = 100
_ALONE = 4  # shorter values are parts of ordinary words
_ABOUT = re.compile(r"\w+\[[^\]]*\]: (.+)")  # as the store writes it: raw[2013-01-07]: column
_NUMBER = re.compile(r"(?<![\w.])[-+]?\d[\d,]*(?:\.\d+)?(?:[eE][-+]?\d+)?(?!\w)")
_DATE = re.compile(r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?)?")


def mask_rows(pipeline: Pipeline, rows: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows with every value of a `pii` column replaced; what is missing stays missing."""
    hidden = [name for name in pipeline.pii if name in rows.columns]
    return rows.assign(**{name: rows[name].astype(object).where(rows[name].isna(), MASK) for name in hidden})


def mask_outcomes(pipeline: Pipeline, outcomes: Iterable[Outcome]) -> list[Outcome]:
    """Returns the outcomes; those that looked at a `pii` column keep their counts, and nothing that was observed."""
    masked = list(outcomes)
    for outcome in masked if pipeline.pii else ():
        if _names(outcome.expectation.kwargs) & set(pipeline.pii):
            _mask(outcome)
        else:
            outcome.result = _mask_keys(outcome.result, frozenset(pipeline.pii))
    return masked


def _names(kwargs: Any) -> set[str]:
    """Returns every text in an expectation's arguments that may name a column."""
    if isinstance(kwargs, dict):
        return {name for value in kwargs.values() for name in _names(value)}
    if isinstance(kwargs, list | tuple):
        return {name for value in kwargs for name in _names(value)}
    return {kwargs} if isinstance(kwargs, str) else set()


def _mask(outcome: Outcome) -> None:
    found = outcome.result
    if not found:
        return  # it was not run, and the reason speaks of its arguments
    details = found.get("result") or {}
    kept = {name: value for name, value in details.items() if _COUNTS.fullmatch(name)}
    if outcome.status == "error":
        outcome.reason = f"it raised an error {UNSAID}"
        raised = {"raised_exception": True, "exception_message": UNSAID, "exception_traceback": None}
        outcome.result = {**found, "result": kept, "exception_info": raised}
        return
    if outcome.expectation.type in _COUNTING and not outcome.is_row_level:
        return  # of text, types are judged value by value
    if "observed_value" in details:
        kept["observed_value"] = MASK
    outcome.result = {**found, "result": kept}
    if outcome.is_row_level and outcome.status == "failed":
        outcome.reason = f"{outcome.unexpected} of {details.get('element_count', 'the')} rows fail"
    elif "observed_value" in details:
        outcome.reason = f"observed {MASK}"


def _mask_keys(value: Any, hidden: frozenset[str]) -> Any:
    if isinstance(value, dict):
        return {key: MASK if key in hidden else _mask_keys(held, hidden) for key, held in value.items()}
    return [_mask_keys(held, hidden) for held in value] if isinstance(value, list) else value


@contextmanager
def masked_errors(pipeline: Pipeline, rows: Callable[[], ds.Dataset] | None = None) -> Iterator[None]:
    """Raises what the block raises, without a value of a `pii` column in it or in its causes.

    What a library or a user's function said is left out as a whole, unless the error is about a column
    that is not personal or `rows` are given to look the values up in. A pipeline without `pii` is not touched.

    Args:
        rows: Returns the rows that the block works on; called on an error only.
    """
    try:
        yield
    except Exception as error:
        if not pipeline.pii:
            raise
        masked = _masked(pipeline, error, None if rows is None else rows())
        if masked is error:
            raise
        raise masked from None


def _masked(pipeline: Pipeline, error: Exception, rows: ds.Dataset | None) -> Exception:
    if isinstance(error, Problems):
        problems = [_masked(pipeline, one, rows) for one in error.problems]
        return Problems(error.where, [one for one in problems if isinstance(one, AirworthyError)])
    if isinstance(error, OSError | MemoryError):
        return error  # it speaks of a path or a size, and may be worth a retry
    if not isinstance(error, AirworthyError):
        told = UNSAID if rows is None else scrub(str(error), rows, pipeline.pii)
        return DataError(pipeline.name, f"failed with {type(error).__name__}: {told}")
    if rows is not None:
        return error.reworded(lambda text: scrub(text, rows, pipeline.pii))
    said = sorted({line.strip() for one in _causes(error) for line in str(one).splitlines()} - {""}, key=len)
    if error.where.rpartition(": ")[2] in pipeline.pii:
        said.append(error.got_text)
    elif _ABOUT.fullmatch(error.where):
        return error

    def unsaid(text: str) -> str:
        if said and text == error.got_text:
            return UNSAID  # what was got from a cause may be any part of it
        for line in reversed(said):
            text = text.replace(line, UNSAID)
        return text

    return error.reworded(unsaid)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yields what an error came from; `from None` hides the context, but keeps it."""
    seen = {id(error)}
    found = error.__cause__ or error.__context__
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found
        found = found.__cause__ or found.__context__


def scrub(text: str, rows: ds.Dataset, columns: Sequence[str]) -> str:
    """Returns the text without the values that these columns of the rows hold, however they are written in it.

    The parts of the text are looked up among the values, chunk by chunk: ten million take a second or two.
    """
    text = text if len(text) <= _TEXT_LIMIT else f"{text[:_TEXT_LIMIT]}…"
    for name in set(columns) & set(rows.schema.names):
        found = _found(text, rows, name)
        forms = {form for value in found for form in (value, repr(value)[1:-1], json.dumps(value)[1:-1])}
        for form in sorted(forms, key=len, reverse=True):
            alone = rf"(?<!\w){re.escape(form)}(?!\w)"
            text = re.sub(alone, MASK, text) if len(form) < _ALONE else text.replace(form, MASK)
    return text


def _found(text: str, rows: ds.Dataset, name: str) -> set[str]:
    """Returns the parts of a text that are values of the column."""
    kind, column = rows.schema.field(name).type, pc.field(name)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        numbers = {part: float(part.replace(",", "")) for part in _NUMBER.findall(text)}
        held = _held(rows, column.cast(pa.float64(), safe=False), [*numbers.values()], pa.float64())
        return {part for part, number in numbers.items() if number in held}
    if pa.types.is_temporal(kind):
        dates = _DATE.findall(text)
        held = _held(rows, pc.strftime(column, format="%Y-%m-%d"), [date[:10] for date in dates], pa.string())
        return {date for date in dates if date[:10] in held}
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return set()
    readings = {text, text.encode("latin-1", "backslashreplace").decode("unicode_escape", "replace")}
    parts = {
        reading[start : start + length]
        for reading in readings
        for start in range(len(reading))
        for length in range(1, min(_VALUE_LIMIT, len(reading) - start) + 1)
    }
    beginning = pc.utf8_slice_codeunits(column, start=0, stop=_VALUE_LIMIT)
    return _held(rows, beginning, sorted(parts), pa.string()) - {""}


def _held(rows: ds.Dataset, column: pc.Expression, values: Sequence[Any], kind: pa.DataType) -> set[Any]:
    chosen = rows.to_table(columns={"value": column}, filter=column.isin(pa.array(values, kind)))
    return set(chosen["value"].unique().to_pylist())
