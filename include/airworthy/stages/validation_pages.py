"""What validation leaves for people to look at: its page, Great Expectations' own, and the profile."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from airworthy import data_docs, profile_page
from airworthy.config import Pipeline
from airworthy.errors import DataError
from airworthy.expectations import Outcome
from airworthy.masking import mask_rows, masked_errors
from airworthy.pages import Link, Section, write_page, write_whole
from airworthy.stages.ingest import RAW
from airworthy.stages.quarantine import DECISION, FAILED, ROW, Settled
from airworthy.store import Store, TableRef

if TYPE_CHECKING:
    from airworthy.stages.validate import Validation

SAMPLES = 20

log = logging.getLogger(__name__)


def write(
    pipeline: Pipeline,
    found: Validation,
    outcomes: Sequence[Outcome],
    problems: Sequence[DataError],
    settled: Settled,
    reports_dir: Path,
) -> None:
    """Leaves the page of a validation, its results as JSON beside it, and the Data Docs it links to."""
    page = reports_dir / found.page
    results = {"validation": found.model_dump(mode="json"), "results": [outcome.result for outcome in outcomes]}
    write_whole(page.with_suffix(".json"), json.dumps(results, indent=1, default=_plain) + "\n")
    _publish_data_docs(pipeline, found, outcomes, bool(problems), reports_dir)
    blocked = "blocked, nothing is made of it" if problems else "passed"
    summary = (
        f"{found.rows} rows of version {found.raw.version} of the table {RAW}: {blocked}. {found.bad_rows} rows fail; "
        f"up to {pipeline.checks.allowed_bad_share:.2%} of them may, and go to quarantine."
    )
    links = (
        Link("Data Docs", f"../data_docs/{found.partition}.html"),
        Link("All partitions", f"../data_docs/{data_docs.INDEX}"),
    )
    judged = [_expectation_row(outcome) for outcome in sorted(outcomes, key=lambda one: one.status == "passed")]
    sections = [
        Section("Result", "\n\n".join([summary, *settled.notes, *map(str, problems)]), links=links),
        Section("Expectations", table=(("expectation", "with", "result", ""), judged)),
    ]
    if settled.rows.num_rows:
        sections.append(_failing_rows(pipeline, settled))
    write_page(page, f"{pipeline.name}: validation of {found.partition}", sections)


def write_profile(pipeline: Pipeline, raw: TableRef, store: Store, reports_dir: Path) -> None:
    """Leaves the profile of a partition that is small enough; good rows do not wait for a picture of them."""
    if raw.rows > profile_page.AUTOMATIC:
        return
    try:
        with masked_errors(pipeline):
            profile_page.publish(pipeline, raw.partition, store, raw.version, reports_dir)
    except Exception as error:
        log.warning("%s[%s]: no profile was written: %s", RAW, raw.partition, error)


def _publish_data_docs(
    pipeline: Pipeline, found: Validation, outcomes: Sequence[Outcome], blocked: bool, reports_dir: Path
) -> None:
    summary = data_docs.Summary(
        partition=found.partition,
        version=found.raw.version,
        blocked=blocked,
        rows=found.rows,
        bad_rows=found.bad_rows,
        expectations=len(outcomes),
        failed=tuple(failure.expectation for failure in found.failures),
    )
    data_docs.publish(pipeline.name, summary, outcomes, reports_dir)


def _failing_rows(pipeline: Pipeline, settled: Settled) -> Section:
    count = settled.rows.num_rows
    sample = mask_rows(pipeline, settled.rows.slice(0, SAMPLES).to_pandas())
    names = [ROW, FAILED, DECISION]
    sample = sample[names + [name for name in sample.columns if name not in names]]
    failing = [tuple(map(_text, row)) for row in sample.to_numpy()]
    title = f"Failing rows ({min(SAMPLES, count)} of {count} in quarantine)"
    return Section(title, table=(tuple(sample.columns), failing))


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
