"""Great Expectations' own Spark engine on the rows of Parquet files, for partitions beyond one machine.

Verdicts, counts and failing rows are those of `run`. What Great Expectations judges otherwise on Spark than on
pandas, or not at all, is an error, which blocks: see `_refusal`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from functools import reduce
from operator import and_, or_
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.dataset as ds

from airworthy.config import Expectation
from airworthy.expectations import pandas_engine
from airworthy.expectations.check import Check, prepared
from airworthy.expectations.outcome import Outcome, columns_of, judge
from airworthy.expectations.plan import UNEXPECTED_POSITIONS
from airworthy.expectations.regex import re2
from airworthy.expectations.rows import Family, UntranslatableError, family
from airworthy.expectations.values import parsed

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_ROW = "__airworthy_row"
_NUMBER = "airworthy"
_SUMMARY = {"result_format": "SUMMARY"}
_POSITIONS = {
    "result_format": "COMPLETE",
    "unexpected_index_column_names": [_ROW],
    "exclude_unexpected_values": True,
    "return_unexpected_index_query": False,
}
_NEIGHBOURS = {"expect_column_values_to_be_increasing", "expect_column_values_to_be_decreasing"}
# These mean something by missing values; in others about several columns Spark finds them neither right nor wrong.
_TELL_MISSING = {"expect_compound_columns_to_be_unique", "expect_select_column_values_to_be_unique_within_record"}
_IGNORES_MISSING = {"either_value_is_missing", "any_value_is_missing"}
_COMPARE_VALUES = {
    *("expect_column_values_to_be_between", "expect_column_min_to_be_between", "expect_column_max_to_be_between"),
    *("expect_column_values_to_be_in_set", "expect_column_values_to_not_be_in_set"),
    *(f"expect_column_distinct_values_to_{what}_set" for what in ("be_in", "contain", "equal")),
    "expect_column_most_common_value_to_be_in_set",
}
_TYPES: dict[Family, tuple[type, ...]] = {
    "number": (int, float),
    "string": (str,),
    "bool": (bool,),
    "timestamp": (str, datetime),  # with a time zone
}


def run(
    session: SparkSession, rows: ds.FileSystemDataset, folder: str, expectations: Sequence[Expectation], *, listed: int
) -> list[Outcome]:
    """Returns one outcome per expectation, in order.

    Args:
        session: Whose workers can read the files.
        rows: What to check.
        folder: The address, for Spark, that the files' paths are below.
        expectations: Under Great Expectations' own names.
        listed: More failing rows than this are counted, but not listed.
    """
    return _Judge(_frame(session, rows, folder), rows, listed).judge(expectations)


class _Judge:
    """Judges expectations on the rows of one dataset.

    Args:
        frame: The rows and their positions.
    """

    def __init__(self, frame: DataFrame, rows: ds.FileSystemDataset, listed: int) -> None:
        from great_expectations.execution_engine.sparkdf_execution_engine import SparkDFExecutionEngine

        self._numbered = SparkDFExecutionEngine(
            persist=False, spark=frame.sparkSession, batch_data_dict={"rows": frame}
        )
        self._frame = frame.drop(_ROW)
        self._families = {field.name: family(field.type) for field in rows.schema}
        self._listed = listed

    def judge(self, expectations: Sequence[Expectation]) -> list[Outcome]:
        checks = [prepared(expectation, list(self._families)) for expectation in expectations]
        ready = [check for check in checks if check.built is not None]
        for check in ready:
            check.outcome.reason = self._refusal(check)
        ready = [check for check in ready if not check.outcome.reason]
        for check, found in zip(ready, self._validated(ready), strict=True):
            self._finish(check, found)
        return [check.outcome for check in checks]

    def _validated(self, checks: list[Check]) -> list[dict[str, Any]]:
        """Returns results, each failure by itself: what many share in one pass fails for all of them."""
        together = _results(self._frame, checks, _SUMMARY)
        return [
            _results(self._frame, [check], _SUMMARY)[0] if "'raised_exception': True" in str(found) else found
            for check, found in zip(checks, together, strict=True)
        ]

    def _finish(self, check: Check, found: dict[str, Any]) -> None:
        outcome = check.outcome
        try:
            judge(outcome, found)
            if outcome.status == "failed" and outcome.is_row_level and outcome.unexpected <= self._listed:
                outcome.rows = self._positions(check)
        except Exception as error:
            check.stopped(error)

    def _positions(self, check: Check) -> np.ndarray:
        from great_expectations.validator.metrics_calculator import MetricsCalculator

        asked = _for_spark(check).get_validation_dependencies(self._numbered, {"result_format": dict(_POSITIONS)})
        places = next(one for name, one in asked.metric_configurations.items() if name.endswith(UNEXPECTED_POSITIONS))
        found = MetricsCalculator(self._numbered, show_progress_bars=False).get_metric(places)
        rows = np.sort(np.array([row for part in found for row in part[_ROW]], dtype="int64"))
        if len(rows) != check.outcome.unexpected:
            raise RuntimeError(f"{check.outcome.unexpected} rows fail, but {len(rows)} are found")
        return rows

    def _refusal(self, check: Check) -> str:
        """Returns why Spark is not asked; "" if it is."""
        expectation = check.outcome.expectation
        kind, kwargs, columns = expectation.type, expectation.kwargs, columns_of(expectation)
        families = {self._families[name] for name in columns if name in self._families}
        if kind in _NEIGHBOURS:
            return "rows have no order on Spark: it is judged with `engine: local` only"
        if kind == "expect_column_quantile_values_to_be_between":
            return "Spark takes a quantile of another rank: it is judged with `engine: local` only"
        if any(set(name) & set(".`") for name in columns):
            return "Great Expectations cannot name a column with a dot or backtick on Spark"
        if ("_regex" in kind or "_value_lengths_" in kind) and families != {"string"}:
            return "it is judged on text only with `engine: spark`"
        if kind in _COMPARE_VALUES and (wrong := [*_unlike(families.pop(), kwargs)]):
            return f"values of the column's own type can be compared with `engine: spark`, but not {wrong[0]!r}"
        if len(columns) > 1 and check.outcome.is_row_level and kind not in _TELL_MISSING:
            ignored = kwargs.get("ignore_row_if")
            but_all = ignored not in ("neither", "never")  # rows that miss all of the values are left out by default
            if ignored not in _IGNORES_MISSING and self._any_missing(columns, but_all=but_all):
                either = "either" if "column_A" in kwargs else "any"
                return f"values are missing: Spark can only judge this with `ignore_row_if: {either}_value_is_missing`"
            if len(families) > 1:
                return "columns of one type can be compared with `engine: spark`"
        try:
            _for_spark(check)
        except UntranslatableError as error:
            return f"a regular expression cannot be judged with `engine: spark`: {error}"
        return self._condition_refusal(check.built.configuration.to_json_dict()["kwargs"])

    def _condition_refusal(self, kwargs: dict[str, Any]) -> str:
        condition = kwargs.get("row_condition") or {}
        if condition.get("type") == "pass_through" and kwargs.get("condition_parser") != "spark":
            return "a row_condition in words of pandas has no meaning with `engine: spark`"
        negated = [one["column"]["name"] for one in _comparisons(condition) if one["operator"] in ("!=", "NOT_IN")]
        if self._any_missing(negated):
            return "values are missing where the row_condition excludes some: on Spark these rows would be left out"
        return ""

    def _any_missing(self, columns: Iterable[str], *, but_all: bool = False) -> bool:
        """Returns whether a row has no value in one of the columns; `but_all`: and a value in another one."""
        from pyspark.sql import functions

        missing = [functions.col(_quoted(name)).isNull() for name in columns if name in self._families]
        if not missing:
            return False
        rows = self._frame.filter(reduce(or_, missing))
        return not (rows.filter(~reduce(and_, missing)) if but_all else rows).isEmpty()


def _frame(session: SparkSession, rows: ds.FileSystemDataset, folder: str) -> DataFrame:
    """Returns the rows as Spark reads them, with NaN as missing and with their positions."""
    from pyspark.sql import DataFrame, functions
    from pyspark.sql.pandas.types import from_arrow_schema

    schema = from_arrow_schema(rows.schema)
    columns = []
    for field in schema:
        column = functions.col(_quoted(field.name))
        missing = functions.isnan(column) if field.dataType.typeName() == "double" else functions.lit(False)
        columns.append(functions.when(~missing, column).alias(field.name))
    start, parts = 0, [session.createDataFrame([], schema).select("*", functions.lit(0).cast("long").alias(_ROW))]
    for fragment in rows.get_fragments():
        file = session.read.schema(schema).parquet(f"{folder}/{fragment.path}")
        parts.append(file.select(*columns, (functions.col("_metadata.row_index") + start).alias(_ROW)))
        start += fragment.count_rows()
    return reduce(DataFrame.unionAll, parts[1:] or parts)


def _results(frame: DataFrame, checks: list[Check], result_format: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns Great Expectations' results, in order: it gives those that raised first."""
    import great_expectations as gx

    built = [_for_spark(check).copy(update={"meta": {_NUMBER: number}}) for number, check in enumerate(checks)]
    batch = pandas_engine.whole_frames("spark", persist=False).get_batch(batch_parameters={"dataframe": frame})
    suite = gx.ExpectationSuite(name="checks", expectations=built)
    found = {}
    for result in batch.validate(suite, result_format=result_format).results if built else ():
        number = result.expectation_config.meta[_NUMBER]
        asked = checks[number].built.configuration.to_json_dict()
        found[number] = {**result.to_json_dict(), "expectation_config": asked}
    return [found[number] for number in range(len(checks))]


def _for_spark(check: Check) -> Any:
    """Returns Great Expectations' object, with regular expressions in words that mean the same in Java.

    Raises:
        UntranslatableError: There are none.
    """
    kwargs = dict(check.outcome.expectation.kwargs)
    if "regex" in kwargs:
        kwargs["regex"] = re2(kwargs["regex"])
    if "regex_list" in kwargs:
        kwargs["regex_list"] = [*map(re2, kwargs["regex_list"])]
    return pandas_engine.build(Expectation(type=check.outcome.expectation.type, kwargs=kwargs))


def _unlike(of: Family, kwargs: dict[str, Any]) -> Iterator[Any]:
    """Yields the values that those of a column are to be compared with, but are of another type."""
    bounds = [kwargs[name] for name in ("min_value", "max_value") if kwargs.get(name) is not None]
    for value in [*bounds, *(kwargs.get("value_set") or ())]:
        unlike = not isinstance(value, _TYPES.get(of, ())) or (isinstance(value, bool) and of != "bool")
        if unlike or (of == "timestamp" and not _has_zone(value)):
            yield value


def _has_zone(value: str | datetime) -> bool:
    try:
        found = parsed(value)
    except UntranslatableError:
        return False
    return found.tzinfo is not None


def _comparisons(condition: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if condition.get("type") == "comparison":
        yield condition
    for part in condition.get("conditions", ()):
        yield from _comparisons(part)


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"
