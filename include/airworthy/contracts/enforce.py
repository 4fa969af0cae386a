"""Holds the rows of one partition to their contract on the way into the raw table, or learns it from them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from airworthy.columns import normal
from airworthy.config import Pipeline
from airworthy.content import Types
from airworthy.contracts.casts import ARROW, Column, cast
from airworthy.contracts.changes import Change, compare, evolve, learn
from airworthy.contracts.file import ContractColumn, SchemaContract, amend, load, needed, publish
from airworthy.contracts.report import page_path, table, write_diff
from airworthy.contracts.summary import CATEGORIES, Summary
from airworthy.errors import ConflictError, DataError, Problems
from airworthy.partitions import Partition

log = logging.getLogger(__name__)


class Enforcement:
    """One partition's rows, held to the contract of their pipeline.

    The contract is judged when the last chunk has been asked for: `conform` then ends, or raises. Whoever
    publishes its rows must do so after that.

    Args:
        pipeline: Whose rows they are; its `contract` says what happens to a difference.
        partition: Which rows they are.
        reports_dir: Where the page with the differences goes; None for no page.

    Attributes:
        contract: What the rows look like; what they made of it once they are through.
        changes: How they differ from what the contract was; empty until they are through.
        told: The same in one line each; for the facts of the write, which are read when the rows are through.
        missing: The contract's columns that did not come, and are missing in every row; for the facts as well.
        page: Where the page is, below `reports_dir`.
    """

    def __init__(self, pipeline: Pipeline, partition: Partition, reports_dir: Path | None = None) -> None:
        self._pipeline = pipeline
        self._partition = partition
        self._reports_dir = reports_dir
        self._where = f"raw[{partition.key}]"
        self._needed = {name for _, name in needed(pipeline)}
        self.contract = load(pipeline)
        self.changes: list[Change] = []
        self.told: list[str] = []
        self.missing: list[str] = []
        self.page = page_path(pipeline.name, partition.key)

    @property
    def types(self) -> Types:
        """Returns the columns of the raw table that these rows go into."""
        columns = {} if self.contract is None else self.contract.columns
        return {name: ARROW[column.type] for name, column in columns.items()}

    def conform(self, chunks: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """Yields the rows with exactly the contract's columns, in their order and types.

        Without a contract the rows pass as they are, and it is learnt from them.

        Raises:
            Problems: The partition is blocked; every difference is listed.
            ConflictError: The contract was changed by another run meanwhile.
        """
        summary = new_summary(self._pipeline, self.contract)
        fits = True
        for chunk in chunks:
            rows = self._conform_chunk(chunk, summary)
            fits = fits and rows is not None  # what cannot be published need not be kept either
            if fits and rows is not None:
                yield rows
        if summary.rows:
            self._judge(summary)
        if not fits:  # rows were left out above, so this must not look like all of them
            raise DataError(self._where, "must fit its contract in every row")

    def survey(self, chunks: Iterable[pa.Table]) -> Summary:
        """Returns what all rows look like once they are typed as in the contract; nothing is judged or written."""
        summary = new_summary(self._pipeline, self.contract)
        for chunk in chunks:
            self._conform_chunk(chunk, summary)
        return summary

    def _conform_chunk(self, chunk: pa.Table, summary: Summary) -> pa.Table | None:
        """Returns the chunk's rows, or None if they cannot be as the contract has them."""
        rows = normal(self._where, chunk)
        found = dict(zip(rows.column_names, rows.columns, strict=True))
        wanted = self.types or {self._pipeline.time: ARROW["timestamp"]}
        may_widen = self._pipeline.contract.on_change == "evolve"
        misfits = {}
        for name in found.keys() & wanted.keys():
            found[name], lost = cast(found[name], wanted[name])
            if lost is not None and self.contract is not None:
                found[name], misfits[name] = _as_number(found[name], wanted[name]), lost
        summary.add(pa.table(found))
        for name, lost in misfits.items():
            summary.add_misfits(name, found[name], lost)
        if self.contract is None:
            return pa.table(found)
        can_widen = may_widen and all(_widens(found[name].type, wanted[name]) for name in misfits)
        if (misfits and not can_widen) or self._needed - found.keys():
            return None
        extra = [name for name in found if name not in wanted] if may_widen else []
        nulls = {name: pa.nulls(chunk.num_rows, kind) for name, kind in wanted.items() if name not in found}
        return pa.table({name: nulls[name] if name in nulls else found[name] for name in (*wanted, *extra)})

    def _judge(self, summary: Summary) -> None:
        policy = self._pipeline.contract
        if self.contract is None:
            learnt = learn(self._pipeline, {self._partition.key: summary})
            self.contract = publish(self._pipeline, learnt)
            log.info("%s: contract learnt: %s", self._where, self.contract.learnt)
            if compare_structure(self.contract, learnt):
                rule = f"was learnt from another partition meanwhile ({self.contract.learnt})"
                raise ConflictError(f"config/contracts/{self._pipeline.name}.yaml", rule, hint="Run it again")
        self.changes = compare(self.contract, summary, null_tolerance=policy.null_tolerance)
        self.told.extend(change.text for change in self.changes)
        self.missing.extend(name for name in self.contract.columns if name not in summary.columns)
        blocking = [change for change in self.changes if blocks(self._pipeline, change, summary)]
        self._tell(blocking)
        if blocking:
            raise Problems(self._where, _errors(self._pipeline, self._partition.key, self.changes, summary))
        if policy.on_change == "evolve":
            self._evolve(summary)

    def _evolve(self, summary: Summary) -> None:
        """Leaves the changes in the contract's file, which another run may have changed since it was read."""
        before, tolerance = self.contract, self._pipeline.contract.null_tolerance

        def change(there: SchemaContract) -> SchemaContract:
            found = compare(there, summary, null_tolerance=tolerance)
            return evolve(there, found, summary, self._partition.key)

        if any(change.kind != "reordered" for change in self.changes):
            self.contract = amend(self._pipeline, change)
            assert before is not None
            came = {name for name in summary.columns if name not in before.columns}
            if self.contract.columns.keys() != before.columns.keys() | came:
                rule = "was changed by another run meanwhile"
                raise ConflictError(f"config/contracts/{self._pipeline.name}.yaml", rule, hint="Run it again")

    def _tell(self, blocking: Sequence[Change]) -> None:
        outcomes = [_outcome(self._pipeline, change, blocking) for change in self.changes]
        if self.changes:
            level = logging.ERROR if blocking else logging.WARNING
            only_order = all(change.kind == "reordered" for change in self.changes)
            text = table(self.changes, outcomes)
            log.log(logging.INFO if only_order else level, "%s differs from its contract:\n%s", self._where, text)
        if self._reports_dir is not None and self.contract is not None:
            write_diff(self._reports_dir / self.page, self.contract, self._partition.key, self.changes, outcomes)


def new_summary(pipeline: Pipeline, contract: SchemaContract | None) -> Summary:
    """Returns an empty summary that keeps no value of a personal column."""
    columns: dict[str, ContractColumn] = {} if contract is None else contract.columns
    limits = {name: len(one.categories) + CATEGORIES for name, one in columns.items() if one.categories}
    unlisted = {*pipeline.key, pipeline.time, *pipeline.pii}
    return Summary(hidden=frozenset(pipeline.pii), unlisted=frozenset(unlisted), limits=limits)


def blocks(pipeline: Pipeline, change: Change, summary: Summary) -> bool:
    """Returns whether a change blocks its partition under the pipeline's policy."""
    if change.kind == "reordered":
        return False
    if pipeline.contract.on_change == "block":
        return True
    if pipeline.contract.on_change == "warn":
        return change.kind == "retyped" or (change.kind in ("dropped", "renamed") and _is_needed(pipeline, change))
    return not can_accept(pipeline, change, summary)


def can_accept(pipeline: Pipeline, change: Change, summary: Summary) -> bool:
    """Returns whether pipeline and tables can follow a change: new columns with values, int64 that becomes float64."""
    if change.kind in ("dropped", "renamed", "retyped") and _is_needed(pipeline, change):
        return False
    if change.kind == "retyped":
        return change.was == "int64" and summary.columns[change.column].type == "float64"
    name = change.now if change.kind == "renamed" else change.column
    return change.kind not in ("added", "renamed") or summary.columns[name].declared in ARROW


def _is_needed(pipeline: Pipeline, change: Change) -> bool:
    return change.column in {name for _, name in needed(pipeline)}


def _errors(pipeline: Pipeline, key: str, changes: Sequence[Change], summary: Summary) -> list[DataError]:
    """Returns all changes but of order as errors; what to do is said once."""
    real = [change for change in changes if change.kind != "reordered"]
    hint = f"If the source has changed for good: airworthy contract accept {pipeline.name} {key}"
    if not all(can_accept(pipeline, change, summary) for change in real):
        hint = "Correct it at the source: a table cannot follow this, or the pipeline cannot do without it"
    first = next((change for change in real if not can_accept(pipeline, change, summary)), real[0])
    return [change.error(f"raw[{key}]", hint if change is first else "") for change in real]


def _outcome(pipeline: Pipeline, change: Change, blocking: Sequence[Change]) -> str:
    if change in blocking:
        return "blocked"
    if change.kind == "reordered":
        return "allowed"
    if pipeline.contract.on_change == "evolve":
        return "evolved"
    done = {"added": "left out", "dropped": "read as missing", "renamed": "left out, and the old one read as missing"}
    return f"warning: {done.get(change.kind, 'passed on')}"


def compare_structure(one: SchemaContract, other: SchemaContract) -> bool:
    """Returns whether two contracts differ in columns or types."""
    return {n: c.type for n, c in one.columns.items()} != {n: c.type for n, c in other.columns.items()}


def _as_number(column: Column, wanted: pa.DataType) -> Column:
    """Returns numbers that are written as text as numbers, where whole ones are wanted."""
    return cast(column, ARROW["float64"])[0] if pa.types.is_integer(wanted) else column


def _widens(found: pa.DataType, wanted: pa.DataType) -> bool:
    return bool(pa.types.is_floating(found) and pa.types.is_integer(wanted))
