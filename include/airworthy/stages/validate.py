"""Validate: what a raw partition must satisfy before anything is made of it."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from airworthy.config import Expectation, Pipeline, Strict
from airworthy.errors import DataError, Problems
from airworthy.expectations import Outcome, run
from airworthy.pages import Section, write_page, write_whole
from airworthy.partitions import Partition
from airworthy.stages.ingest import RAW
from airworthy.store import Store, TableRef

QUARANTINE = "quarantine"
ROW = "row"
FAILED = "failed"
SAMPLES = 20

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
        bad_rows: Distinct failing rows.
        page: The page's path below `reports_dir`; the results as JSON are beside it.
    """

    partition: str
    raw: TableRef
    quarantine: TableRef | None
    rows: int
    bad_rows: int
    failures: tuple[Failure, ...]
    page: str


def page_path(pipeline: Pipeline, partition: Partition) -> str:
    """Returns where `validate` writes its page, below `reports_dir`."""
    return f"{pipeline.name}/validate/{partition.key}.html"


def validate(pipeline: Pipeline, partition: Partition, raw: TableRef, store: Store, reports_dir: Path) -> Validation:
    """Leaves failing rows in `quarantine` and a page of results, and returns what was found.

    Raises:
        Problems: The partition is blocked: an expectation of the whole table or a column does not hold,
            one could not be judged, or more rows fail than `checks.allowed_bad_share`. The results are
            stored before.
    """
    frame = store.read(RAW, partitions=[partition.key], version=raw.version)
    allowed = _allowed(pipeline, len(frame))
    outcomes = run(frame, [*implied(pipeline), *pipeline.checks.expectations], listed=allowed)
    bad, failed = _bad_rows(frame, outcomes)
    quarantine = _store_bad_rows(store, partition, frame, failed)
    found = Validation(
        partition=partition.key,
        raw=raw,
        quarantine=quarantine,
        rows=len(frame),
        bad_rows=bad,
        failures=tuple(map(_failure, (one for one in outcomes if one.status != "passed"))),
        page=page_path(pipeline, partition),
    )
    where = f"{RAW}[{partition.key}]"
    problems = list(_problems(pipeline, where, found, outcomes))
    _write_reports(pipeline, found, outcomes, problems, frame, failed, reports_dir)
    if problems:
        raise Problems(where, problems)
    log.info("%s: %d expectations, %d of %d rows in quarantine", where, len(outcomes), bad, len(frame))
    return found


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


def _allowed(pipeline: Pipeline, rows: int) -> int:
    return math.floor(pipeline.checks.allowed_bad_share * rows + 1e-9)  # 0.29 * 100 is less than 29


def _bad_rows(frame: pd.DataFrame, outcomes: list[Outcome]) -> tuple[int, pd.Series[Any]]:
    """Returns how many rows fail, and the failing expectations by position of the rows that are listed."""
    titles: dict[int, list[str]] = {}
    unlisted = 0
    for outcome in outcomes:
        if outcome.status == "failed" and outcome.is_row_level and not outcome.is_warning:
            if outcome.rows is None:
                unlisted = max(unlisted, outcome.unexpected)
            else:
                for row in outcome.rows.tolist():
                    titles.setdefault(row, []).append(outcome.title)
    listed = pd.Series({row: ", ".join(dict.fromkeys(titles[row])) for row in sorted(titles)}, dtype=object)
    return max(len(listed), unlisted), listed


def _store_bad_rows(store: Store, partition: Partition, frame: pd.DataFrame, failed: pd.Series[Any]) -> TableRef | None:
    if failed.empty and store.version(QUARANTINE) is None:
        return None
    rows = failed.index.to_numpy(dtype="int64")
    bad = frame.iloc[rows].assign(**{ROW: rows, FAILED: failed.to_numpy()})
    return store.write(QUARANTINE, partition, bad, like=RAW, evolve=True)


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
    if found.bad_rows > _allowed(pipeline, found.rows):
        reasons = [f"{one.title}: {one.reason}" for one in outcomes if one.status == "failed" and one.is_row_level]
        rule = f"at most {share:.2%} of the rows may fail (checks.allowed_bad_share)"
        yield DataError(where, rule, f"{found.bad_rows} of {found.rows}", ". ".join(reasons))


def _write_reports(
    pipeline: Pipeline,
    found: Validation,
    outcomes: list[Outcome],
    problems: list[DataError],
    frame: pd.DataFrame,
    failed: pd.Series[Any],
    reports_dir: Path,
) -> None:
    page = reports_dir / found.page
    results = {"validation": found.model_dump(mode="json"), "results": [outcome.result for outcome in outcomes]}
    write_whole(page.with_suffix(".json"), json.dumps(results, indent=1, default=_plain) + "\n")
    blocked = "blocked, nothing is made of it" if problems else "passed"
    summary = (
        f"{found.rows} rows of version {found.raw.version} of the table {RAW}: {blocked}. {found.bad_rows} rows fail; "
        f"up to {pipeline.checks.allowed_bad_share:.2%} of them may, and go to quarantine."
    )
    rows = [_expectation_row(outcome) for outcome in sorted(outcomes, key=lambda one: one.status == "passed")]
    sections = [
        Section("Result", "\n\n".join([summary, *map(str, problems)])),
        Section("Expectations", table=(("expectation", "with", "result", ""), rows)),
    ]
    if len(failed):
        sample = frame.iloc[failed.index[:SAMPLES]]
        failing = [
            (n, failed[n], *map(_text, frame_row)) for n, frame_row in zip(sample.index, sample.to_numpy(), strict=True)
        ]
        title = f"Failing rows ({min(SAMPLES, len(failed))} of {len(failed)} in quarantine)"
        sections.append(Section(title, table=((ROW, FAILED, *sample.columns), failing)))
    write_page(page, f"{pipeline.name}: validation of {found.partition}", sections)


def _expectation_row(outcome: Outcome) -> tuple[str, ...]:
    kwargs = {k: v for k, v in outcome.expectation.kwargs.items() if not k.startswith("column")}
    settings = ", ".join(
        f"{name}={value if isinstance(value, str) else json.dumps(value, default=_plain)}"
        for name, value in kwargs.items()
    )
    status = "warning" if outcome.is_warning and outcome.status == "failed" else outcome.status
    return outcome.title, settings, status, outcome.reason


def _plain(value: Any) -> Any:
    """Returns the JSON value of what Great Expectations leaves as a NumPy scalar, and text of anything else."""
    return value.item() if isinstance(value, np.generic) else str(value)


def _text(value: Any) -> str:
    return "" if pd.api.types.is_scalar(value) and pd.isna(value) else str(value)
