"""Tables as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def lines(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Returns a table, its columns aligned; a head without a word is left out."""
    cells = [row for row in (head, *rows) if any(row)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in cells]
