"""Quarantine: the rows that fail, and what becomes of those about which a person has decided.

A decision is about the content of rows and what they fail, not about where they are: the same rows in a rerun are
treated the same, and any other rows wait for a decision of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from airworthy.columns import conform, from_frame, normal
from airworthy.config import Pipeline
from airworthy.content import Digest, chunks
from airworthy.errors import AirworthyError, DataError, Problems
from airworthy.expectations import Outcome
from airworthy.masking import masked_errors
from airworthy.stages.decisions import DROP, RELEASE, REPAIR, Decision, on_record
from airworthy.stages.ingest import RAW
from airworthy.store import Store, TableRef
from airworthy.user_code import call, digest

QUARANTINE = "quarantine"
REPAIRS = "repairs"
ROW = "row"
FAILED = "failed"
DECISION = "decision"
WAITING = ""

Check = Callable[[Iterator[pa.Table]], list[Outcome]]


@dataclass
class Settled:
    """The failing rows of a partition in the light of the decisions on record.

    Attributes:
        rows: The rows with position, what they fail, and the decision about each; `WAITING` if there is none.
        repaired: The rows that go on in place of raw ones, with the position of these.
        notes: What a person should know about the decisions that were found.
    """

    rows: pa.Table
    repaired: pa.Table
    notes: list[str] = field(default_factory=list)

    @property
    def waiting(self) -> int:
        """How many rows nobody has decided about."""
        return self.decided(WAITING)

    @property
    def going_on(self) -> int:
        """How many rows go on all the same, released or repaired."""
        return len(self.rows) - self.waiting - self.decided(DROP)

    def decided(self, decision: str) -> int:
        return len(positions(self.rows, decision))

    @property
    def changed(self) -> bool:
        """Whether what goes on is not what was checked."""
        return bool(self.repaired.num_rows or self.decided(DROP))


def settle(pipeline: Pipeline, raw: TableRef, failed: pd.Series[Any], store: Store, check: Check) -> Settled:
    """Returns the failing rows with the decision about each.

    What a decision leaves open, such as rows that a repair did not mend, is looked up again as rows of their own.

    Args:
        pipeline: Declares the repairs.
        raw: The partition that was checked.
        failed: What rows fail, by position.
        store: Has the rows and the decisions.
        check: Checks the whole partition again, given with repaired rows in place.
    """
    positions = failed.index.to_numpy(dtype="int64")
    rows = rows_at(store, raw, positions)
    rows = rows.append_column(ROW, pa.array(positions)).append_column(FAILED, pa.array(failed, pa.string()))
    known = {decision.digest: decision for decision in on_record(store, raw.partition)}
    decided = np.full(len(failed), WAITING, dtype=object)
    found = Settled(rows, rows.slice(0, 0).drop_columns([FAILED]))
    while (decided == WAITING).any():
        waiting = np.flatnonzero(decided == WAITING)
        part = rows.take(waiting)
        decision = known.get(rows_digest(part))
        if decision is None:
            break
        found.notes.append(f"{len(waiting)} rows: {decision}")
        settled = waiting[_apply(pipeline, decision, part, found, lambda new: check(content(store, raw, new)))]
        if not len(settled):
            break
        decided[settled] = decision.decision
    found.rows = rows.append_column(DECISION, pa.array(decided, pa.string()))
    return found


def positions(rows: pa.Table, *decisions: str) -> np.ndarray:
    """Returns the positions of the rows in quarantine about which this was decided."""
    chosen = pc.is_in(rows[DECISION], pa.array(decisions, pa.string()))
    found: np.ndarray = rows[ROW].filter(chosen).to_numpy()
    return found


def settled_content(store: Store, raw: TableRef, settled: Settled) -> Iterator[pa.Table]:
    """Yields the partition that is judged as a whole: with repaired rows, without dropped ones."""
    return content(store, raw, settled.repaired, positions(settled.rows, DROP))


def content(
    store: Store,
    raw: TableRef,
    repaired: pa.Table | None,
    out: np.ndarray | None = None,
    groups: range | None = None,
) -> Iterator[pa.Table]:
    """Yields a raw partition with repaired rows in their places, without the rows at the positions `out`.

    Args:
        groups: Only these of its row groups. Default: all.
    """
    none = np.empty(0, dtype="int64")
    mended = none if repaired is None else repaired[ROW].to_numpy()
    left_out = none if out is None else out
    start, rows = 0, _raw(store, raw)
    if groups is not None:
        every = _row_groups(rows)
        start = sum(group.row_groups[0].num_rows for group in every[: groups.start])
        rows = ds.FileSystemDataset(every[groups.start : groups.stop], rows.schema, rows.format, rows.filesystem)
    for chunk in chunks(rows):
        inside, gone = (np.flatnonzero((some >= start) & (some < start + len(chunk))) for some in (mended, left_out))
        order = np.arange(len(chunk))
        if repaired is not None and len(inside):
            order[mended[inside] - start] = len(chunk) + np.arange(len(inside))
            chunk = pa.concat_tables([chunk, repaired.take(inside).select(chunk.column_names)])
        kept = np.delete(order, left_out[gone] - start)
        start += len(order)
        yield chunk if len(kept) == len(chunk) else chunk.take(kept)


def rows_at(store: Store, raw: TableRef, positions: np.ndarray) -> pa.Table:
    """Returns the raw rows at these positions, which ascend; no more is read than that takes."""
    start, parts = 0, []
    for chunk in chunks(_raw(store, raw)):
        low, high = np.searchsorted(positions, [start, start + len(chunk)])
        parts.append(chunk.take(positions[low:high] - start))
        start += len(chunk)
        if high == len(positions):
            break
    return pa.concat_tables(parts)


def rows_digest(rows: pa.Table) -> str:
    """Returns the SHA-256 of failing rows and what they fail, wherever in their partition they are.

    Columns without a value do not count, because a table may get another one later, nor does it count whether
    whole numbers are stored as float64, because a table's int64 may become that.
    """
    names = [name for name in rows.column_names if rows[name].null_count < len(rows) and name not in (ROW, DECISION)]
    found = Digest(names)
    found.add(pa.table({name: _widened(rows[name]) for name in names}))
    return found.hexdigest()


def _widened(column: pa.ChunkedArray) -> pa.ChunkedArray:
    try:
        return column.cast(pa.float64()) if pa.types.is_integer(column.type) else column
    except pa.ArrowInvalid:  # beyond 2**53, where the store does not let them become float64 either
        return column


def repair(pipeline: Pipeline, name: str, rows: pa.Table) -> pa.Table:
    """Returns the raw rows as a declared repair mends them, typed as before; columns it leaves alone are not touched.

    Raises:
        DataError: There is no such repair, or the function raised.
        Problems: What it returned are not these rows; every reason is listed.
    """
    function = pipeline.quarantine.repairs.get(name)
    if function is None:
        known = ", ".join(pipeline.quarantine.repairs) or "none"
        raise DataError(f"{pipeline.name}: quarantine.repairs", "must have the repair", name, f"There are: {known}")
    raw = rows.drop_columns([name for name in (ROW, FAILED, DECISION) if name in rows.column_names])
    given = raw.to_pandas()
    found = call(function, given.copy())
    if problems := [*_problems(pipeline, function, given, found)]:
        raise Problems(function, problems)
    changed = [name for name in raw.column_names if not found[name].equals(given[name])]
    typed = conform(function, normal(function, from_frame(function, found[changed])), raw.select(changed).schema)
    for name in changed:
        raw = raw.set_column(raw.schema.get_field_index(name), name, typed[name])
    return raw.append_column(ROW, rows[ROW])


def _apply(
    pipeline: Pipeline,
    decision: Decision,
    part: pa.Table,
    found: Settled,
    check: Callable[[pa.Table], list[Outcome]],
) -> np.ndarray:
    """Returns which of the rows the decision settles."""
    if decision.decision == DROP:
        return np.ones(len(part), dtype=bool)
    if decision.decision == RELEASE:
        unfit = _lacks_key(pipeline, part[FAILED])
        if unfit.any():
            found.notes.append(f"{unfit.sum()} rows are not released: their key is missing or not unique")
        return ~unfit
    if reason := _void(pipeline, decision):
        found.notes.append(f"This decision is void: {reason}")
        return np.zeros(len(part), dtype=bool)
    try:
        with masked_errors(pipeline):
            mended = _passing(repair(pipeline, decision.decision.removeprefix(REPAIR), part), found, check)
    except AirworthyError as error:
        found.notes.append(f"Nothing is repaired: {error}")
        return np.zeros(len(part), dtype=bool)
    passes = np.isin(part[ROW].to_numpy(), mended[ROW].to_numpy())
    found.repaired = _merged(found.repaired, mended)
    if not passes.all():
        found.notes.append(f"{(~passes).sum()} rows fail after the repair, too, and stay as they were")
    return passes


def _passing(mended: pa.Table, found: Settled, check: Callable[[pa.Table], list[Outcome]]) -> pa.Table:
    """Returns the mended rows that pass where the raw ones are in place of the others.

    Raises:
        DataError: They make rows fail that have passed.
    """
    while len(mended):
        failing = _failing(check(_merged(found.repaired, mended)))
        fails = np.isin(mended[ROW].to_numpy(), failing)
        if not fails.any():
            kept_out = np.setdiff1d(found.rows[ROW].to_numpy(), found.repaired[ROW].to_numpy())
            if len(spoilt := np.setdiff1d(failing, kept_out)):
                got = f"{len(spoilt)} that fail, the first at {spoilt[0]}"
                raise DataError(RAW, "rows that pass must also do so beside the repaired ones", got)
            break
        mended = mended.filter(pa.array(~fails))
    return mended


def _void(pipeline: Pipeline, decision: Decision) -> str:
    """Returns why a repair is no longer the one that was decided; "" if it is."""
    function = pipeline.quarantine.repairs.get(decision.decision.removeprefix(REPAIR))
    if function != decision.function:
        return f"it was {decision.function}, and is {function or 'no longer declared'}"
    if digest(function) != decision.function_digest:
        return f"the module of {function} has changed since"
    return ""


def _failing(outcomes: Iterable[Outcome]) -> np.ndarray:
    """Returns the positions of rows that fail.

    Raises:
        DataError: It cannot be told which.
    """
    bad: list[np.ndarray] = [np.empty(0, dtype="int64")]
    for outcome in outcomes:
        if outcome.status == "error":
            raise DataError(RAW, f"{outcome.title} could not be judged with repaired rows: {outcome.reason}")
        if outcome.quarantines:
            if outcome.rows is None:
                raise DataError(RAW, f"{outcome.title} fails for too many rows to list", outcome.unexpected)
            bad.append(outcome.rows)
    return np.unique(np.concatenate(bad))


def _merged(one: pa.Table, other: pa.Table) -> pa.Table:
    return pa.concat_tables([one, other]).sort_by(ROW)


def _lacks_key(pipeline: Pipeline, failed: pa.ChunkedArray) -> np.ndarray:
    """Returns which rows fail what the tables need to tell rows apart, which nobody can waive."""
    key = pipeline.key
    titles = [f"expect_column_values_to_not_be_null({name})" for name in key]
    several = "expect_compound_columns_to_be_unique" if len(key) > 1 else "expect_column_values_to_be_unique"
    titles.append(f"{several}({', '.join(key)})")
    return np.array([any(title in reasons for title in titles) for reasons in failed.to_pylist()], dtype=bool)


def _problems(pipeline: Pipeline, where: str, given: pd.DataFrame, found: Any) -> Iterator[DataError]:
    if not isinstance(found, pd.DataFrame):
        yield DataError(where, "must return a pandas DataFrame", type(found).__name__)
        return
    if not found.index.equals(given.index):
        hint = "Neither drop, add nor reorder rows; keep the index"
        yield DataError(where, "must return one row per failing row, in the same order", len(found), hint)
    if list(found.columns) != list(given.columns):
        hint = f"They are {', '.join(given.columns)}"
        yield DataError(where, "must return the columns it was given", list(found.columns), hint)
    elif len(found) == len(given) and not found[pipeline.time].equals(given[pipeline.time]):
        yield DataError(
            f"{where}: {pipeline.time}", "must not change, because it tells which partition a row belongs to"
        )


def row_groups(store: Store, raw: TableRef) -> int:
    """Returns in how many row groups a raw partition is stored."""
    return len(_row_groups(_raw(store, raw)))


def _row_groups(rows: ds.FileSystemDataset) -> list[ds.ParquetFileFragment]:
    return [group for file in rows.get_fragments() for group in file.split_by_row_group()]


def _raw(store: Store, raw: TableRef) -> ds.FileSystemDataset:
    return store.scan(RAW, partitions=[raw.partition], version=raw.version)
