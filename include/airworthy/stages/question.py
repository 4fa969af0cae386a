"""The question a person is asked about rows in quarantine, and how the answer is put on record."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pandas as pd
import pyarrow as pa

from airworthy.config import Pipeline, Strict
from airworthy.content import PARTITION
from airworthy.errors import DataError
from airworthy.markdown import safe, table
from airworthy.masking import MASK, masked_errors
from airworthy.partitions import Partition, utc
from airworthy.stages.decisions import RELEASE, REPAIR, Decision, on_record, record
from airworthy.stages.ingest import RAW
from airworthy.stages.quarantine import (
    DECISION,
    FAILED,
    QUARANTINE,
    ROW,
    WAITING,
    positions,
    repair,
    rows_at,
    rows_digest,
)
from airworthy.store import Store, TableRef
from airworthy.user_code import digest

SAMPLE = 10
COLUMNS = 12


class Question(Strict):
    """Which rows of a partition a decision is wanted about.

    Attributes:
        raw: The partition they are in.
        digest: Of the rows and what they fail; the answer holds for these only.
        rows: How many they are.
        reasons: What they fail, with the number of rows.
        waiting: Whether nobody has decided about them; else a new decision takes the place of `before`.
        before: Decisions on record about exactly these rows, oldest first.
    """

    raw: TableRef
    digest: str
    rows: int
    reasons: tuple[tuple[str, int], ...]
    waiting: bool
    before: tuple[Decision, ...]

    @property
    def id(self) -> str:
        """The same for the same rows until somebody decides about them."""
        return f"{self.raw.partition}-{self.digest[:16]}-{len(self.before)}"

    def __str__(self) -> str:
        return f"{self.rows} rows ({self.digest[:12]}) of version {self.raw.version} of {RAW} ({self.raw.digest[:12]})"


def question(pipeline: Pipeline, partition: Partition, store: Store) -> Question | None:
    """Returns what is to be decided about a partition; None if it has no rows in quarantine.

    That is about the rows which wait for a decision, and if there are none, about all of them once more.

    Raises:
        DataError: The partition was ingested again, and is not validated yet.
    """
    if not store.has(QUARANTINE, partition.key):
        return None
    return _asked(pipeline, _newest_raw(store, partition), store)[0]


def _asked(pipeline: Pipeline, raw: TableRef, store: Store) -> tuple[Question, pa.Table]:
    """Returns what is to be decided about a partition that has rows in quarantine, and which rows these are."""
    rows, waiting = _rows(pipeline, raw, store)
    reasons = Counter(reason for failed in rows[FAILED].to_pylist() for reason in split_reasons(failed))
    found_digest = rows_digest(rows)
    asked = Question(
        raw=raw,
        digest=found_digest,
        rows=rows.num_rows,
        reasons=tuple(reasons.most_common()),
        waiting=waiting,
        before=tuple(one for one in on_record(store, raw.partition) if one.digest == found_digest),
    )
    return asked, rows


def _rows(pipeline: Pipeline, raw: TableRef, store: Store) -> tuple[pa.Table, bool]:
    """Returns the rows in question with position and reasons, and whether they wait."""
    kept = store.scan(QUARANTINE, partitions=[raw.partition]).to_table()
    waiting = positions(kept, WAITING)
    if len(waiting):
        kept = kept.filter(pa.compute.is_in(kept[ROW], pa.array(waiting)))
    rows = rows_at(store, raw, kept[ROW].to_numpy())
    there = {*rows.column_names} <= {*kept.column_names} and rows.num_rows == kept.num_rows
    if not there or not rows.equals(kept.select(rows.column_names).cast(rows.schema)):
        hint = f"Run {pipeline.name}.ingest for it first"
        raise DataError(f"{RAW}[{raw.partition}]", "was ingested again since its rows went to quarantine", hint=hint)
    return rows.append_column(ROW, kept[ROW]).append_column(FAILED, kept[FAILED]), bool(len(waiting))


def decide(
    pipeline: Pipeline,
    partition: Partition,
    asked: Question,
    decision: str,
    store: Store,
    *,
    who: str,
    at: datetime,
    reason: str = "",
    run: str = "",
) -> Decision:
    """Leaves an answer on record; it counts from the next validation of the partition on.

    Args:
        pipeline: Declares what may be decided.
        partition: The partition in question.
        asked: What the person saw.
        decision: One of `pipeline.quarantine.options`.
        store: Where it is recorded.
        who: The name under which it is recorded.
        at: When the person answered.
        reason: In the person's own words.
        run: The Airflow run that asked.

    Raises:
        DataError: The rows, or the partition they are in, are no longer those that were asked about; or
            there is no such decision.
        Problems: The repair does not work on these rows. Nothing is recorded then.
    """
    where = f"{QUARANTINE}[{partition.key}]"
    if decision not in pipeline.quarantine.options:
        raise DataError(where, f"the decision must be one of {', '.join(pipeline.quarantine.options)}", decision)
    rows = _same_rows(where, asked, pipeline, partition, store)
    function = ""
    if decision.startswith(REPAIR):
        name = decision.removeprefix(REPAIR)
        with masked_errors(pipeline):
            repair(pipeline, name, rows)
        function = pipeline.quarantine.repairs[name]
    made = Decision(
        partition=partition.key,
        digest=asked.digest,
        raw_version=asked.raw.version,
        rows=asked.rows,
        decision=decision,
        function=function,
        function_digest=digest(function) if function else "",
        who=who,
        at=utc(at),
        reason=reason,
        run=run,
    )
    record(store, partition, made)
    return made


def describe(pipeline: Pipeline, asked: Question, store: Store, page: str) -> str:
    """Returns the question in Markdown: how many rows fail what, what may be done, and a sample without personal data.

    Args:
        pipeline: Declares what may be decided, and the personal columns.
        asked: What is to be decided.
        store: Has the rows.
        page: The address of the page of the validation.
    """
    head, *rows = sample(pipeline, _rows(pipeline, asked.raw, store)[0], SAMPLE)
    wait = "wait for a decision" if asked.waiting else "are decided about; a new decision takes the place of the last"
    before = "".join(f"- {safe(str(one))}\n" for one in asked.before)
    return "\n".join(
        [
            f"**{asked.rows} of {asked.raw.rows} rows** of version {asked.raw.version} of `{RAW}` {wait}. "
            f"[Validation result]({page})\n",
            table(
                ["expectation", "with", "rows that fail it"],
                ((one, _settings(pipeline, one), n) for one, n in asked.reasons),
            ),
            *(["Decided before:\n", before] if before else []),
            *_meanings(pipeline),
            f"\n{len(rows)} of these rows:\n",
            table(head, rows),
        ]
    )


def sample(pipeline: Pipeline, rows: pa.Table, limit: int | None, columns: int | None = COLUMNS) -> list[list[str]]:
    """Returns a head and rows as text: position, what failed, then the columns that tell most, personal ones masked."""
    reasons = " ".join(rows[FAILED].slice(0, limit).to_pylist())
    names = [name for name in rows.column_names if name not in (ROW, FAILED, DECISION, PARTITION)]
    told = [name for name in names if re.search(rf"[(, ]{re.escape(name)}[,)]", reasons)]
    first = dict.fromkeys([*told, *pipeline.key, pipeline.time, pipeline.label.column, *names])
    shown = [ROW, *([DECISION] if DECISION in rows.column_names else []), FAILED, *list(first)[:columns]]
    personal = set(pipeline.pii)
    cells = rows.slice(0, limit).select(shown).to_pylist()
    return [shown, *([MASK if name in personal else _text(row[name]) for name in shown] for row in cells)]


def split_reasons(failed: str) -> list[str]:
    """Returns the expectations that `validate` has joined."""
    return re.split(r", (?=expect_|[a-z_]+\()", failed)


def _same_rows(where: str, asked: Question, pipeline: Pipeline, partition: Partition, store: Store) -> pa.Table:
    """Returns the rows that a person was asked about, if they are still there."""
    raw = _newest_raw(store, partition)
    now: Question | str = f"version {raw.version} of {RAW} ({raw.digest[:12]})"
    if raw.digest == asked.raw.digest:
        now = "no row in quarantine"
        if store.has(QUARANTINE, partition.key):
            now, rows = _asked(pipeline, raw, store)
            if now.digest == asked.digest:
                return rows
    rule = f"the answer is void: it is about {asked}, and by now there is {now}"
    raise DataError(where, rule, hint="Look at what is there now, and decide about that")


def _meanings(pipeline: Pipeline) -> Iterator[str]:
    yield "- **drop**: they stay out for good, and no longer count as bad."
    for name, function in pipeline.quarantine.repairs.items():
        yield f"- **{REPAIR}{name}**: `{function}` mends them; what passes then goes on, the rest stays in quarantine."
    yield f"- **{RELEASE}**: they go on as they are, but for rows whose key is missing or not unique."
    yield "- No answer: they stay in quarantine."


def _settings(pipeline: Pipeline, title: str) -> str:
    """Returns what the file says about an expectation, e.g. `min_value=0, max_value=500`."""
    name, _, columns = title.partition("(")
    told = []
    for one in pipeline.checks.expectations:
        given = [str(value) for key, value in one.kwargs.items() if key.startswith("column") and isinstance(value, str)]
        if one.type == name and all(column in columns for column in given):
            told += [f"{key}={value}" for key, value in one.kwargs.items() if not key.startswith("column")]
    return ", ".join(told)


def _newest_raw(store: Store, partition: Partition) -> TableRef:
    write = store.newest(RAW, partition.key)
    if write is None:
        hint = "It was written by an older Airworthy; ingest it again"
        raise DataError(f"{RAW}[{partition.key}]", "must be in the history of its table", hint=hint)
    return TableRef(**write.model_dump(include=set(TableRef.model_fields)), changed=False)


def _text(value: Any, limit: int = 60) -> str:
    if value is None:
        return ""
    text = f"{value:%Y-%m-%d %H:%M:%S}" if isinstance(value, pd.Timestamp | datetime) else str(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
