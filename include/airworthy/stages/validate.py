"""Validate: what a raw partition must satisfy before anything is made of it."""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from airworthy import validations
from airworthy.config import Expectation, Pipeline, Strict
from airworthy.content import PARTITION
from airworthy.errors import DataError, Problems
from airworthy.expectations import Outcome, run
from airworthy.masking import mask_outcomes, masked_errors
from airworthy.partitions import Partition
from airworthy.stages import validation_pages
from airworthy.stages.ingest import RAW, require_newest
from airworthy.stages.quarantine import QUARANTINE, REPAIRS, Settled, settle, settled_content
from airworthy.store import Store, TableRef

LISTED = 100_000  # failing rows of one expectation that are kept in quarantine even if they block

log = logging.getLogger(__name__)


class Failure(Strict):
    """An expectation that does not hold.

    Attributes:
        expectation: Its name and columns, e.g. `expect_column_values_to_be_between(distance)`.
        status: `error` means it could not be judged, which blocks like a failure of the whole table.
        rows: How many rows fail a row-level expectation, which alone does not block; else None.
    """

    expectation: str
    status: Literal["failed", "error"]
    rows: int | None
    reason: str


class Validation(Strict):
    """What was found in one raw partition.

    Attributes:
        quarantine: The partition of failing rows; None if the table does not exist and is not needed.
        repairs: The partition of rows that take the place of failing ones; None likewise.
        bad_rows: Distinct failing rows.
        good_rows: Rows that go on: they pass, or a person released or repaired them.
        waiting_rows: Those of them about which no person has decided.
        page: The page's path below `reports_dir`; the results as JSON are beside it.
    """

    partition: str
    raw: TableRef
    quarantine: TableRef | None
    repairs: TableRef | None = None
    rows: int
    bad_rows: int
    good_rows: int
    waiting_rows: int
    failures: tuple[Failure, ...]
    page: str


def page_path(pipeline: Pipeline, partition: Partition) -> str:
    """Returns where `validate` writes its page, below `reports_dir`."""
    return f"{pipeline.name}/validate/{partition.key}.html"


def validate(
    pipeline: Pipeline,
    partition: Partition,
    raw: TableRef,
    store: Store,
    reports_dir: Path,
    *,
    spark: Mapping[str, str] | None = None,
) -> Validation:
    """Leaves failing rows in `quarantine`, results in `validations` and as pages, and returns what was found.

    Values of `pii` columns are in `quarantine` and `repairs` only.

    Args:
        spark: The settings of Spark, for `engine: spark`.

    Raises:
        Problems: The partition is blocked: an expectation of the whole table or a column does not hold,
            one could not be judged, or more rows fail than `checks.allowed_bad_share`. The results are
            stored before.
        DataError: The partition was ingested again since.
    """
    where = f"{RAW}[{partition.key}]"
    require_newest(store, raw)
    with masked_errors(pipeline):
        outcomes, bad, settled = _check(pipeline, raw, store, spark)
        quarantine = _store_rows(store, QUARANTINE, partition, settled.rows)
        repairs = _store_rows(store, REPAIRS, partition, settled.repaired)
    outcomes = mask_outcomes(pipeline, outcomes)
    found = Validation(
        partition=partition.key,
        raw=raw,
        quarantine=quarantine,
        repairs=repairs,
        rows=raw.rows,
        bad_rows=bad,
        good_rows=raw.rows - bad + settled.going_on,
        waiting_rows=settled.waiting if _all_listed(outcomes) else bad,
        failures=tuple(map(_failure, (one for one in outcomes if one.status != "passed"))),
        page=page_path(pipeline, partition),
    )
    problems = list(_problems(pipeline, where, found, outcomes))
    validations.record(store, partition, raw, outcomes, blocked=bool(problems))
    validation_pages.write(pipeline, found, outcomes, problems, settled, reports_dir)
    validation_pages.write_profile(pipeline, raw, store, reports_dir)
    if problems:
        raise Problems(where, problems)
    for note in settled.notes:
        log.info("%s: %s", where, note)
    log.info("%s: %d expectations, %d of %d rows in quarantine", where, len(outcomes), bad, raw.rows)
    return found


def _check(
    pipeline: Pipeline, raw: TableRef, store: Store, spark: Mapping[str, str] | None
) -> tuple[list[Outcome], int, Settled]:
    """Returns what became of each expectation, how many rows fail, and what was decided about them."""
    expectations = [*implied(pipeline), *pipeline.checks.expectations]
    listed = max(_allowed(pipeline, raw.rows), LISTED)

    def again(rows: Iterator[pa.Table]) -> list[Outcome]:
        with _on_disk(rows) as dataset:
            return run(dataset, expectations, listed=listed)

    if pipeline.engine == "local":
        outcomes = run(_rows(store, raw), expectations, listed=listed)
    else:
        outcomes = _on_spark(spark, store, raw, expectations, listed)
    bad, failed = _bad_rows(outcomes)
    settled = settle(pipeline, raw, failed, store, again)
    if settled.changed:
        outcomes = _judged_again(outcomes, again(settled_content(store, raw, settled)))
    return outcomes, bad, settled


def _on_spark(
    settings: Mapping[str, str] | None, store: Store, raw: TableRef, expectations: list[Expectation], listed: int
) -> list[Outcome]:
    from airworthy.expectations import spark_engine
    from airworthy.spark import address, session

    rows, folder = _rows(store, raw), address(store.uri(RAW))
    return spark_engine.run(session(settings), rows, folder, expectations, listed=listed)


@contextmanager
def _on_disk(rows: Iterator[pa.Table]) -> Iterator[ds.Dataset]:
    """Yields rows that are in no table as a dataset, out of memory."""
    with tempfile.TemporaryDirectory(prefix="airworthy-") as folder:
        file = Path(folder, "rows.parquet")
        first = next(rows)
        with pq.ParquetWriter(file, first.schema) as writer:
            writer.write_table(first)
            for chunk in rows:
                writer.write_table(chunk)
        yield ds.dataset(file)


def implied(pipeline: Pipeline) -> list[Expectation]:
    """Returns what holds for every pipeline: there are rows, and the key is complete and unique."""
    key = list(pipeline.key)
    if len(key) > 1:
        unique = Expectation(type="expect_compound_columns_to_be_unique", kwargs={"column_list": key})
    else:
        unique = Expectation(type="expect_column_values_to_be_unique", kwargs={"column": key[0]})
    complete = [Expectation(type="expect_column_values_to_not_be_null", kwargs={"column": name}) for name in key]
    some = Expectation(type="expect_table_row_count_to_be_between", kwargs={"min_value": 1})
    return [one for one in (some, *complete, unique) if one not in pipeline.checks.expectations]


def _rows(store: Store, raw: TableRef) -> ds.Dataset:
    """Returns the raw rows, which are not read yet, in their order and without the store's own column."""
    scan = store.scan(RAW, partitions=[raw.partition], version=raw.version)
    return scan.replace_schema(pa.schema([field for field in scan.schema if field.name != PARTITION]))


def _allowed(pipeline: Pipeline, rows: int) -> int:
    return math.floor(pipeline.checks.allowed_bad_share * rows + 1e-9)  # 0.29 * 100 is less than 29


def _bad_rows(outcomes: list[Outcome]) -> tuple[int, pd.Series[Any]]:
    """Returns how many rows fail, and the failing expectations by position of the rows that are listed."""
    critical = [one for one in outcomes if one.status == "failed" and one.is_row_level and not one.is_warning]
    unlisted = max((one.unexpected for one in critical if one.rows is None), default=0)
    listed = [(one.title, one.rows) for one in critical if one.rows is not None]
    positions = np.unique(np.concatenate([np.array([], "int64"), *(rows for _, rows in listed)]))
    failed = np.array([np.isin(positions, rows) for _, rows in listed], bool).reshape(len(listed), len(positions))
    sets, codes = np.unique(failed, axis=1, return_inverse=True)  # a few sets of expectations, whatever the rows
    titles = [
        ", ".join(dict.fromkeys(title for (title, _), fails in zip(listed, one, strict=True) if fails))
        for one in sets.T
    ]
    labels = pd.Series(np.array(titles, object)[codes.reshape(-1)] if titles else [], index=positions, dtype=object)
    return max(len(positions), unlisted), labels


def _all_listed(outcomes: list[Outcome]) -> bool:
    """Returns whether every failing row is known, so that nobody has decided about some without the others."""
    failing = [one for one in outcomes if one.status == "failed" and one.is_row_level and not one.is_warning]
    return all(one.rows is not None for one in failing)


def _judged_again(outcomes: list[Outcome], again: list[Outcome]) -> list[Outcome]:
    """Returns the outcomes, but what holds for a column or the whole table judged on what goes on."""
    return [before if before.is_row_level else after for before, after in zip(outcomes, again, strict=True)]


def _store_rows(store: Store, table: str, partition: Partition, rows: pa.Table) -> TableRef | None:
    if not rows.num_rows and store.version(table) is None:
        return None
    return store.write(table, partition, rows, like=RAW, evolve=True)


def _failure(outcome: Outcome) -> Failure:
    rows = outcome.unexpected if outcome.is_row_level and outcome.status == "failed" else None
    status: Literal["failed", "error"] = "error" if outcome.status == "error" else "failed"
    return Failure(expectation=outcome.title, status=status, rows=rows, reason=outcome.reason)


def _problems(pipeline: Pipeline, where: str, found: Validation, outcomes: list[Outcome]) -> Iterator[DataError]:
    for outcome in outcomes:
        if outcome.status == "error":
            yield DataError(where, f"{outcome.title} could not be judged: {outcome.reason}")
        elif outcome.status == "failed" and not outcome.is_row_level and not outcome.is_warning:
            yield DataError(where, f"{outcome.title} must hold: {outcome.reason}")
    share = pipeline.checks.allowed_bad_share
    if found.waiting_rows > _allowed(pipeline, found.rows):
        reasons = [f"{one.title}: {one.reason}" for one in outcomes if one.status == "failed" and one.is_row_level]
        rule = f"at most {share:.2%} of the rows may fail (checks.allowed_bad_share)"
        yield DataError(where, rule, f"{found.waiting_rows} of {found.rows}", ". ".join(reasons))
