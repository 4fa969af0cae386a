"""Gives a column of raw values the type of its contract where no value changes, and finds the values that would."""

from __future__ import annotations

from typing import TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from airworthy.columns import EXACT, TIMESTAMP

Column: TypeAlias = "pa.ChunkedArray"

ARROW = {
    "int64": pa.int64(),
    "float64": pa.float64(),
    "string": pa.string(),
    "bool": pa.bool_(),
    "timestamp": TIMESTAMP,
}
_NAMES = {kind: name for name, kind in ARROW.items()}

_WHOLE = r"^\s*-?\d+(\.0*)?\s*$"
_NUMBER = r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$"


def type_name(kind: pa.DataType) -> str | None:
    """Returns the contract's name of a type; None of one without values; Arrow's of one no contract can have."""
    return None if pa.types.is_null(kind) else _NAMES.get(kind, str(kind))


def cast(column: Column, wanted: pa.DataType) -> tuple[Column, Column | None]:
    """Returns the values typed as wanted, and None; or, if that loses some, as they are, and the mask of those.

    Args:
        column: Of a type that the store keeps, see `columns.normal`.
        wanted: One of `ARROW`.
    """
    if column.type == wanted:
        return column, None
    if column.null_count == len(column):
        return pa.chunked_array([pa.nulls(len(column), wanted)]), None
    found = column.type
    if pa.types.is_string(found):
        return _from_text(column, wanted)
    if pa.types.is_integer(found) and pa.types.is_floating(wanted):
        return _cast_or(column, wanted, pc.greater(pc.abs(column), EXACT))
    if pa.types.is_floating(found) and pa.types.is_integer(wanted):
        whole = pc.and_(pc.equal(column, pc.floor(column)), pc.less(pc.abs(column), float(1 << 63)))
        return _cast_or(column, wanted, pc.invert(whole))
    if pa.types.is_integer(found) and pa.types.is_string(wanted):
        return column.cast(wanted), None  # a text file's column of codes is one of numbers where all codes are digits
    if pa.types.is_boolean(found) and pa.types.is_integer(wanted):
        return column.cast(wanted), None
    return column, pc.is_valid(column)


def _cast_or(column: Column, wanted: pa.DataType, misfits: Column) -> tuple[Column, Column | None]:
    misfits = pc.fill_null(misfits, False)
    return (column, misfits) if pc.any(misfits).as_py() else (column.cast(wanted), None)


def _from_text(column: Column, wanted: pa.DataType) -> tuple[Column, Column | None]:
    if pa.types.is_timestamp(wanted):
        return _times(column)
    text = pc.utf8_trim_whitespace(column)
    if pa.types.is_integer(wanted):
        text = pc.replace_substring_regex(text, r"\.0*$", "")
    try:
        return text.cast(wanted), None
    except pa.ArrowInvalid:
        misfits = pc.invert(_reads_as(column, text, wanted))
        return column, pc.fill_null(misfits, False)


def _reads_as(column: Column, text: Column, wanted: pa.DataType) -> Column:
    if pa.types.is_integer(wanted):
        short = pc.less_equal(pc.utf8_length(text), 19)  # what is longer may not fit into 64 bits
        return pc.and_(pc.match_substring_regex(column, _WHOLE), short)
    if pa.types.is_floating(wanted):
        return pc.or_(pc.match_substring_regex(column, _NUMBER), pc.is_in(pc.utf8_lower(text), _ODD_NUMBERS))
    return pc.is_in(pc.utf8_lower(text), _TRUTHS)


_ODD_NUMBERS = pa.array(["nan", "inf", "-inf", "+inf", "infinity", "-infinity"])
_TRUTHS = pa.array(["true", "false", "0", "1"])


def _times(column: Column) -> tuple[Column, Column | None]:
    import pandas as pd

    found = pd.to_datetime(column.to_pandas().astype("string"), utc=True, format="ISO8601", errors="coerce")
    times = pa.chunked_array([pa.array(found, from_pandas=True).cast(TIMESTAMP, safe=False)])
    misfits = pc.and_(pc.is_null(times), pc.is_valid(column))
    return (column, misfits) if pc.any(misfits).as_py() else (times, None)
