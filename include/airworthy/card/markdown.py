"""Writes the sections of a page as Markdown, so that MLflow, a wiki or a pull request can show them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from airworthy.markdown import safe, table
from airworthy.pages import Chart, Link, Section


def markdown(title: str, sections: Sequence[Section], pictures: Mapping[str, str]) -> str:
    """Returns the sections as Markdown (CommonMark with tables).

    Args:
        pictures: Where the picture of a section is, by the section's heading.
    """
    return "\n".join((f"# {safe(title)}", *(line for section in sections for line in _lines(section, pictures)), ""))


def _lines(section: Section, pictures: Mapping[str, str]) -> Iterator[str]:
    yield ""
    yield f"## {safe(section.heading)}"
    for paragraph in filter(None, (part.strip() for part in section.text.split("\n\n"))):
        yield ""
        yield safe(paragraph)
    if section.heading in pictures:
        yield ""
        yield f"![{safe(section.heading)}]({pictures[section.heading]})"
    if section.table is not None:
        columns, rows = section.table
        yield ""
        yield table(columns, ([_plain(cell) for cell in row] for row in rows)).rstrip()


def _plain(value: object) -> str:
    match value:
        case None:
            return ""
        case Link():
            return value.text
        case Chart():
            return value.title
        case float():
            return f"{value:,.6g}"
        case _:
            return str(value)
