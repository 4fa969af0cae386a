"""Markdown for Airflow's pages, with nothing in it that was not meant as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_MARKDOWN = re.compile(r"([\\`*\[\]<>|~&]|:(?=//))")


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Returns a table whose cells are shown as they are."""
    shown = [[safe(str(cell)) for cell in row] for row in (head, *rows)]
    lines = [shown[0], ["---"] * len(head), *shown[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def safe(text: str) -> str:
    """Returns text that Markdown shows as it is: a cell may hold anything, also an image's address."""
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split()))
