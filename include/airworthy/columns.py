"""The few types that tables keep, and how columns of other types become them without losing anything."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from airworthy.errors import DataError, Problems

TIMESTAMP = pa.timestamp("us", tz="UTC")
EXACT = 2**53  # float64 holds every whole number up to here


def kept(kind: pa.DataType) -> pa.DataType | None:
    """Returns the type in which the tables keep values of a type; None if they do not."""
    types = pa.types
    if types.is_dictionary(kind):
        return kept(kind.value_type)
    if types.is_null(kind) or types.is_boolean(kind):
        return kind
    if types.is_integer(kind) or (types.is_decimal(kind) and kind.scale <= 0):
        return pa.int64()
    if types.is_floating(kind) or types.is_decimal(kind):
        return pa.float64()
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return pa.string()
    if types.is_timestamp(kind) or types.is_date(kind):
        return TIMESTAMP
    return None


def unified(types: Iterable[pa.DataType]) -> pa.DataType | None:
    """Returns the one kept type that holds values of all these; None if there is none."""
    found = {kind for kind in types if not pa.types.is_null(kind)}
    if found == {pa.int64(), pa.float64()}:
        return pa.float64()
    if len(found) > 1:
        return None
    return found.pop() if found else pa.null()


def unified_schema(where: str, schemas: Sequence[pa.Schema]) -> pa.Schema:
    """Returns the columns of all schemas, in the order in which they first appear.

    Raises:
        Problems: A column has types that have nothing in common.
    """
    names = dict.fromkeys(name for schema in schemas for name in schema.names)
    fields, problems = [], []
    for name in names:
        types = [schema.field(name).type for schema in schemas if name in schema.names]
        if (kind := unified(types)) is None:
            told = " and ".join(sorted({str(found) for found in types if not pa.types.is_null(found)}))
            hint = "Write it as one of them everywhere"
            problems.append(DataError(f"{where}: {name}", "must hold values of one type", told, hint))
        else:
            fields.append(pa.field(name, kind))
    if problems:
        raise Problems(where, problems)
    return pa.schema(fields)


def kept_schema(where: str, schema: pa.Schema) -> pa.Schema:
    """Returns a schema with every column in its kept type.

    Raises:
        Problems: A column holds lists, structures, bytes or spans of time.
    """
    fields, problems = [], []
    for field in schema:
        if (kind := kept(field.type)) is None:
            rule = "must hold numbers, text, bools or times"
            hint = "Convert or leave out the column where the rows come from"
            problems.append(DataError(f"{where}: {field.name}", rule, str(field.type), hint))
        else:
            fields.append(pa.field(field.name, kind))
    if problems:
        raise Problems(where, problems)
    return pa.schema(fields)


def conform(where: str, table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Returns the rows with the columns of a schema, cast without loss; a column that is missing is all null.

    Text becomes a number, bool or time if that is what it says; numbers never become text.

    Raises:
        Problems: Values do not fit the type of their column; every such column is named.
    """
    arrays, problems = [], []
    for field in schema:
        if field.name not in table.column_names:
            arrays.append(pa.nulls(table.num_rows, field.type))
            continue
        try:
            arrays.append(lossless(table[field.name], field.type))
        except pa.ArrowException as error:
            rule, hint = f"must hold {field.type}", "No value may change when it is converted"
            problems.append(DataError(f"{where}: {field.name}", rule, _unquoted(error), hint))
    if problems:
        raise Problems(where, problems)
    return pa.table(arrays, schema=schema)


def lossless(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """Returns the values in another type, each the same as before.

    Times are the exception: they are cut to microseconds, those without a time zone are taken as UTC. And of a
    decimal number float64 holds the nearest it has, though never another whole part.

    Raises:
        pyarrow.ArrowInvalid: A value has no equal in that type.
    """
    if column.type == kind:
        return column
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_decimal(column.type) and column.type.scale <= 0:
        return lossless(column.cast(pa.int64()), kind)
    if pa.types.is_timestamp(kind) and (pa.types.is_temporal(column.type) or kept(column.type) == pa.string()):
        return _times(column, kind)
    if pa.types.is_string(kind) and kept(column.type) not in (pa.string(), pa.null()):
        raise pa.ArrowInvalid(f"{column.type} is not text")
    if pa.types.is_boolean(kind) and pa.types.is_integer(column.type):
        if not pc.all(pc.is_in(column, pa.array([0, 1, None], column.type))).as_py():
            raise pa.ArrowInvalid("numbers other than 0 and 1 are no bools")
    elif pa.types.is_boolean(kind) and pa.types.is_floating(column.type):
        return lossless(column.cast(pa.int64()), kind)
    elif pa.types.is_decimal(column.type) and pa.types.is_floating(kind):
        found = column.cast(kind, safe=False)
        if (pc.max(pc.abs(found)).as_py() or 0) >= EXACT:
            raise pa.ArrowInvalid(f"a decimal of {EXACT:,} or more has no equal")
        return found
    return column.cast(kind)


def _times(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    if pa.types.is_temporal(column.type):
        plain = column.cast(pa.timestamp("us")) if pa.types.is_date(column.type) else column
        return plain.cast(kind, safe=False)
    try:
        return column.cast(kind)
    except pa.ArrowInvalid:  # text without a zone
        return column.cast(pa.timestamp("us")).cast(kind)


def from_frame(where: str, frame: pd.DataFrame) -> pa.Table:
    """Returns the rows of a frame; its index is left out.

    Raises:
        Problems: A column holds several types.
    """
    names = [str(name) for name in frame.columns]
    arrays, problems = [], []
    for position, name in enumerate(names):
        try:
            arrays.append(pa.array(frame.iloc[:, position], from_pandas=True))
        except (pa.ArrowException, OverflowError) as error:
            rule = "must hold values of one type"
            problems.append(DataError(f"{where}: {name}", rule, _without_value(error)))
    if problems:
        raise Problems(where, problems)
    return pa.Table.from_arrays(arrays, names=names)


def _without_value(error: Exception) -> str:
    """Returns an error's text without the value it quotes, which may be personal."""
    return str(error).partition("Could not convert ")[2].partition("with type ")[2] or type(error).__name__


def alike(names: Sequence[str]) -> list[str]:
    """Returns the names that are the same but for upper and lower case, which Delta tables do not tell apart."""
    lower = [name.lower() for name in names]
    return sorted(name for name in names if lower.count(name.lower()) > 1)


def normal(where: str, table: pa.Table) -> pa.Table:
    """Returns the rows with every column in its kept type, and NaN as missing.

    Raises:
        Problems: A column has none, or values that do not fit it.
    """
    if repeated := alike(table.column_names):
        rule = "must have each column once; the tables do not tell upper from lower case"
        raise DataError(where, rule, repeated, "Rename or remove the others")
    found = conform(where, table, kept_schema(where, table.schema))
    for position, field in enumerate(found.schema):
        if field.type == pa.float64() and pc.any(missing := pc.is_nan(found[position])).as_py():
            found = found.set_column(position, field, pc.if_else(missing, None, found[position]))
    return found


def _unquoted(error: Exception) -> str:
    """Returns an error's text up to the value it quotes: a value may be personal, and belongs in no message."""
    return str(error).partition("'")[0].split("\n")[0].rstrip(" :")
