"""How a partition differs from its contract, and what a contract learns from partitions."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal

from airworthy.config import Pipeline, Strict
from airworthy.contracts.casts import ARROW
from airworthy.contracts.file import ContractColumn, Revision, SchemaContract, needed
from airworthy.contracts.summary import CATEGORIES, ColumnSummary, Summary
from airworthy.errors import DataError, Problems

Kind = Literal["added", "dropped", "renamed", "retyped", "reordered", "new_categories", "null_share"]

_ALIKE = 0.75  # of 1: from here on, names, categories or ranges count as those of one column
_SHOWN = 5

_RULES: dict[Kind, str] = {
    "added": "is not a column of the schema contract",
    "dropped": "must be a column, as the schema contract says",
    "renamed": "must keep its name; a column that looks the same has another one",
    "retyped": "must hold {was}, as the schema contract says",
    "reordered": "must come in the order of the schema contract",
    "new_categories": "must hold one of its {was}",
    "null_share": "must be missing in {was} of the rows",
}


class Change(Strict):
    """One way in which a partition differs from its contract.

    Attributes:
        column: As the contract names it, or as the partition does if the contract does not.
        was: What the contract says.
        now: What the partition has; no value of a personal column.
    """

    kind: Kind
    column: str
    was: str
    now: str

    @property
    def text(self) -> str:
        """Returns the change in one line."""
        parts = " -> ".join(part for part in (self.was, self.now) if part)
        named = "" if self.kind in ("renamed", "reordered") else f"{self.column}: "
        return f"{self.kind.replace('_', ' ')}: {named}{parts}"

    def error(self, where: str, hint: str = "") -> DataError:
        """Returns the change as an error of the partition."""
        got = {"got": self.now} if self.now else {}
        return DataError(f"{where}: {self.column}", _RULES[self.kind].format(was=self.was), hint=hint, **got)


def compare(contract: SchemaContract, summary: Summary, *, null_tolerance: float = 0.0) -> list[Change]:
    """Returns every difference, in the order of the contract, columns that it does not know last."""
    lost = [name for name in contract.columns if name not in summary.columns]
    added = [name for name in summary.columns if name not in contract.columns]
    renamed = _renamed(contract, summary, lost, added, null_tolerance)
    changes = [*_order(contract, summary)]
    for name, column in contract.columns.items():
        if name in renamed:
            changes.append(Change(kind="renamed", column=name, was=name, now=renamed[name]))
        elif name not in summary.columns:
            if not column.optional:
                changes.append(Change(kind="dropped", column=name, was=column.type, now=""))
        else:
            changes += _content(name, column, summary, null_tolerance)
    for name in added:
        if name not in renamed.values():
            kind = summary.columns[name].declared or "no value"
            changes.append(Change(kind="added", column=name, was="", now=kind))
    return changes


def _order(contract: SchemaContract, summary: Summary) -> Iterator[Change]:
    wanted = [name for name in contract.columns if name in summary.columns]
    found = [name for name in summary.columns if name in contract.columns]
    if wanted == found:
        return
    kept = difflib.SequenceMatcher(None, wanted, found, autojunk=False).get_matching_blocks()
    stayed = {name for block in kept for name in wanted[block.a : block.a + block.size]}
    moved = [name for name in wanted if name not in stayed]
    was, now = (", ".join(_after(names, name) for name in moved) for names in (wanted, found))
    yield Change(kind="reordered", column=moved[0], was=was, now=now)


def _after(names: list[str], name: str) -> str:
    place = names.index(name)
    return f"{name} after {names[place - 1]}" if place else f"{name} first"


def _content(name: str, column: ContractColumn, summary: Summary, tolerance: float) -> Iterator[Change]:
    found = summary.columns[name]
    if found.misfits or found.type not in (None, column.type):
        told = f"; {found.misfits} of {summary.rows} rows do not fit, e.g. {found.example}" if found.misfits else ""
        now = f"{found.type}{told}"
        yield Change(kind="retyped", column=name, was=column.type, now=now)
        return
    if column.categories is not None and found.valid:
        new = None if found.values is None else sorted(found.values - set(column.categories))
        if new is None or new:
            now = "too many to list" if new is None else _some(new)
            yield Change(kind="new_categories", column=name, was=f"{len(column.categories)} categories", now=now)
    share, (least, most) = summary.nulls(name), column.nulls
    if summary.rows and not least - tolerance - 1e-9 <= share <= most + tolerance + 1e-9:
        was = f"{max(0.0, least - tolerance):.2%} to {min(1.0, most + tolerance):.2%}"
        yield Change(kind="null_share", column=name, was=was, now=f"{share:.2%}")


def _some(values: Sequence[str]) -> str:
    more = f" and {len(values) - _SHOWN} more" if len(values) > _SHOWN else ""
    return ", ".join(map(repr, values[:_SHOWN])) + more


def _renamed(
    contract: SchemaContract, summary: Summary, lost: list[str], added: list[str], tolerance: float
) -> dict[str, str]:
    """Returns new names by old ones: pairs of one type with like values, the likest first."""
    pairs = []
    for old in lost:
        for new in added:
            found = summary.columns[new]
            if found.type not in (contract.columns[old].type, None):
                continue
            least, most = contract.columns[old].nulls
            if not least - tolerance <= summary.nulls(new) <= most + tolerance:
                continue
            name = difflib.SequenceMatcher(None, old.lower(), new.lower()).ratio()
            values = _likeness(contract.columns[old], found)
            if max(name, values) >= _ALIKE:
                pairs.append((name + values, old, new))
    renamed: dict[str, str] = {}
    for _, old, new in sorted(pairs, key=lambda pair: -pair[0]):
        if old not in renamed and new not in renamed.values():
            renamed[old] = new
    return renamed


def _likeness(column: ContractColumn, found: ColumnSummary) -> float:
    """Returns how much of what a column held and of what another holds is the same, from 0 to 1."""
    if column.categories is not None and found.values:
        known = set(column.categories)
        return len(known & found.values) / min(len(known), len(found.values)) if known else 0.0
    if column.usual is not None and found.usual is not None:
        (a, b), (c, d) = column.usual, found.usual
        both, either = min(b, d) - max(a, c), max(b, d) - min(a, c)
        return max(0.0, both / either) if either else 1.0
    return 0.0


def learn(pipeline: Pipeline, partitions: Mapping[str, Summary]) -> SchemaContract:
    """Returns the contract that each of these partitions fulfils.

    Args:
        pipeline: Whose raw data it is.
        partitions: Summaries by key of the partition; at least one.

    Raises:
        Problems: They have not the same columns and types, time, key or label is missing, or a column
            holds no value or none that a table can hold.
    """
    summaries = list(partitions.values())
    names = list(dict.fromkeys(name for summary in summaries for name in summary.columns))
    where = f"raw[{', '.join(list(partitions)[:3])}{', ...' if len(partitions) > 3 else ''}]"
    problems: list[DataError] = []
    for role, name in needed(pipeline):
        if name not in names:
            rule = f"must be a column, because it is the {role} of {pipeline.name}"
            problems.append(DataError(f"{where}: {name}", rule, hint=f"The source gives {', '.join(names)}"))
    columns = {}
    for name in names:
        try:
            columns[name] = _learn_column(f"{where}: {name}", pipeline, name, summaries)
        except DataError as error:
            problems.append(error)
    if pipeline.time in columns and columns[pipeline.time].type != "timestamp":
        rule = "must hold times, as timestamps or in ISO 8601"
        problems.append(DataError(f"{where}: {pipeline.time}", rule, columns[pipeline.time].type))
    if problems:
        raise Problems(where, problems)
    rows, keys = sum(summary.rows for summary in summaries), list(partitions)
    learnt = f"{datetime.now(UTC):%Y-%m-%d}, from {rows} rows of {keys[0]}"
    if len(keys) > 1:
        learnt = f"{datetime.now(UTC):%Y-%m-%d}, from {rows} rows of {len(keys)} partitions, {keys[0]} to {keys[-1]}"
    return SchemaContract(pipeline=pipeline.name, learnt=learnt, columns=columns)


def _learn_column(where: str, pipeline: Pipeline, name: str, summaries: Sequence[Summary]) -> ContractColumn:
    found = [summary.columns[name] for summary in summaries if name in summary.columns]
    kinds = ({one.type for one in found} - {None}) or ({one.declared for one in found} - {None})
    kinds = {"float64"} if kinds == {"int64", "float64"} else kinds
    if not kinds:
        hint = "Give it a type in the code that makes it, or learn from a partition where it has values"
        raise DataError(where, "must hold a value, because values give a column its type", hint=hint)
    if len(kinds) > 1 or not kinds & ARROW.keys():
        got = ", ".join(sorted(map(str, kinds)))
        raise DataError(where, f"must hold values of one type: {', '.join(ARROW)}", got)
    shares = [summary.nulls(name) if name in summary.columns else 1.0 for summary in summaries]
    ranges = [one.usual for one in found if one.usual]
    open_to_all = name not in (*pipeline.key, pipeline.time, *pipeline.pii)
    return ContractColumn.model_validate(
        {
            "type": kinds.pop(),
            "nulls": _rounded(min(shares), max(shares)),
            "categories": _all_categories(found) if open_to_all else None,
            "usual": (min(low for low, _ in ranges), max(high for _, high in ranges))
            if ranges and open_to_all
            else None,
            "optional": len(found) < len(summaries),
        }
    )


def _all_categories(found: Sequence[ColumnSummary]) -> list[str] | None:
    listed = [one.categories() for one in found if one.valid]
    if not listed or any(one is None for one in listed):
        return None
    every = sorted({value for one in listed for value in one or ()})
    return every if len(every) <= CATEGORIES else None


def _rounded(least: float, most: float) -> tuple[float, float]:
    return math.floor(least * 1000) / 1000, math.ceil(most * 1000) / 1000


def evolve(contract: SchemaContract, changes: Sequence[Change], summary: Summary, partition_key: str) -> SchemaContract:
    """Returns the contract with the changes taken in, and a line in its history for them.

    What came under a new name is a new column beside the old one, which becomes optional. Columns keep
    their order; new ones come last, as in the table.
    """
    taken = [change for change in changes if change.kind != "reordered"]
    if not taken:
        return contract
    columns = dict(contract.columns)
    new: dict[str, ContractColumn] = {}
    for change in taken:
        name, old = change.column, columns.get(change.column)
        if change.kind == "added" or old is None:
            new[name] = _new(name, summary)
        elif change.kind in ("dropped", "renamed"):
            columns[name] = old.model_copy(update={"optional": True})
            if change.kind == "renamed":
                new[change.now] = _new(change.now, summary)
        else:
            columns[name] = _amended(old, name, change.kind, summary)
    columns |= {name: new[name] for name in summary.columns if name in new}
    revision = Revision(
        partition=partition_key,
        at=datetime.now(UTC).replace(microsecond=0),
        changes=tuple(change.text for change in taken),
    )
    return contract.model_copy(update={"columns": columns, "history": (*contract.history, revision)})


def _new(name: str, summary: Summary) -> ContractColumn:
    found = summary.columns[name]
    # Where some columns are personal, a new one may be too, and nobody has said yet that it is not.
    is_open = not summary.hidden
    return ContractColumn.model_validate(
        {
            "type": found.type or found.declared,
            "nulls": _rounded(summary.nulls(name), summary.nulls(name)),
            "categories": found.categories() if is_open else None,
            "usual": found.usual if is_open else None,
        }
    )


def _amended(column: ContractColumn, name: str, kind: Kind, summary: Summary) -> ContractColumn:
    found = summary.columns[name]
    if kind == "new_categories":
        every = None if found.values is None else tuple(sorted({*(column.categories or ()), *found.values}))
        return column.model_copy(update={"categories": every})
    share = summary.nulls(name)
    least, most = _rounded(min(share, column.nulls[0]), max(share, column.nulls[1]))
    amended = {"nulls": (least, most)}
    # Of a column of another type no other change was looked for.
    return column.model_copy(update={**amended, "type": found.type} if kind == "retyped" else amended)
