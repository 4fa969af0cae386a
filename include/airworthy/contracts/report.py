"""Shows a contract and how a partition differs from it: as text for logs and the shell, and as a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from airworthy.contracts.file import SchemaContract
from airworthy.pages import Section, write_page

if TYPE_CHECKING:
    from airworthy.contracts.changes import Change

_HEADINGS = ("change", "column", "was", "now", "what happened")


def page_path(pipeline: str, partition_key: str) -> str:
    """Returns where the page of a partition is, below `reports_dir`."""
    return f"{pipeline}/contract/{partition_key}.html"


def table(changes: Sequence[Change], outcomes: Sequence[str]) -> str:
    """Returns the changes as lines of text in columns."""
    rows = [_HEADINGS, *_rows(changes, outcomes)]
    widths = [min(60, max(len(row[number]) for row in rows)) for number in range(len(_HEADINGS))]
    return "\n".join(
        "  ".join(cell.ljust(wide) for cell, wide in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def write_diff(
    file: Path, contract: SchemaContract, partition_key: str, changes: Sequence[Change], outcomes: Sequence[str]
) -> None:
    """Leaves a page with the changes and the contract that the partition was held to."""
    result = f"{len(changes)} differences from the contract." if changes else "As the contract says."
    columns = [
        (name, one.type, f"{one.nulls[0]:.1%} to {one.nulls[1]:.1%}", _categories(one.categories), one.optional or "")
        for name, one in contract.columns.items()
    ]
    history = [(f"{one.at:%Y-%m-%d %H:%M}", one.partition, "; ".join(one.changes)) for one in contract.history]
    sections = [Section("Result", result, (_HEADINGS, _rows(changes, outcomes)) if changes else None)]
    sections.append(
        Section(
            "The contract",
            f"config/contracts/{contract.pipeline}.yaml, learnt {contract.learnt}",
            (("column", "type", "missing", "categories", "optional"), columns),
        )
    )
    if history:
        sections.append(Section("What it took in since", table=(("when", "from", "changes"), history)))
    write_page(file, f"{contract.pipeline}: {partition_key} and its schema contract", sections)


def _rows(changes: Sequence[Change], outcomes: Sequence[str]) -> list[tuple[str, ...]]:
    return [
        (change.kind.replace("_", " "), change.column, change.was, change.now, outcome)
        for change, outcome in zip(changes, outcomes, strict=True)
    ]


def _categories(values: Sequence[str] | None) -> str:
    return "any" if values is None else ", ".join(values)
