"""Writes small self-contained HTML pages: no script, nothing loaded from elsewhere, light and dark."""

from __future__ import annotations

import base64
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

Row = Sequence[object]


@dataclass(frozen=True)
class Link:
    """A cell or a line that leads to another page, given by its path from this one."""

    text: str
    path: str


@dataclass(frozen=True)
class Chart:
    """A small drawing in the page's own colours, which `charts` makes; its SVG is not escaped."""

    title: str
    svg: str


@dataclass(frozen=True)
class Section:
    """One part of a page; what is empty is left out.

    Attributes:
        heading: In plain text, as everything here.
        text: Paragraphs, separated by empty lines.
        table: Column names and rows. A cell whose first word is one of `MARKS` is coloured by it.
        picture: A PNG image, or the text or bytes of an SVG one.
        charts: Side by side, each below its title.
        links: In one line, below the text.
    """

    heading: str
    text: str = ""
    table: tuple[Sequence[str], Sequence[Row]] | None = None
    picture: bytes | str | None = None
    charts: Sequence[Chart] = ()
    links: Sequence[Link] = ()


MARKS = {
    "passed": "good",
    "promoted": "good",
    "fired": "good",
    "silent": "bad",
    "failed": "bad",
    "error": "bad",
    "blocked": "bad",
    "refused": "bad",
    "yes": "warn",
    "stale": "warn",
    "changed": "warn",
    "added": "warn",
    "warning": "warn",
}

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --soft: #59636e; --line: #d1d9e0; --page: #ffffff; --band: #f6f8fa;
  --good: #1a7f37; --bad: #cf222e; --warn: #9a6700; --link: #0969da; --first: #2f81f7; --second: #db6d28; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9198a1; --line: #3d444d; --page: #0d1117;
  --band: #151b23; --good: #3fb950; --bad: #f85149; --warn: #d29922; --link: #4493f8; --first: #4493f8;
  --second: #f0883e; } }
body { margin: 0 auto; max-width: 72rem; padding: 2rem 1.5rem 4rem; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 1.5rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
p { margin: .4rem 0; max-width: 60rem; } figure { margin: 1rem 0; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: 13.5px; }
th, td { padding: .35rem .8rem .35rem 0; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; max-width: 34rem; overflow-wrap: break-word; }
th { color: var(--soft); font-weight: 600; white-space: nowrap; } tbody tr:hover { background: var(--band); }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td:first-child { white-space: nowrap; }
.good { color: var(--good); } .bad { color: var(--bad); } .warn { color: var(--warn); }
img { max-width: 100%; height: auto; background: #ffffff; border-radius: 6px; }
a { color: var(--link); } nav a { margin-right: 1.2rem; } nav { margin: .6rem 0; }
.charts { display: flex; flex-wrap: wrap; gap: 1.2rem 2rem; margin: 1rem 0; } .charts figure { margin: 0; }
figcaption { color: var(--soft); font-size: 13px; margin-bottom: .2rem; } svg { display: block; }
"""


def write_page(file: Path, title: str, sections: Sequence[Section]) -> None:
    """Leaves the page at `file`, whole at any moment; what was there is replaced."""
    body = "\n".join(part for section in sections for part in render(section))
    write_whole(file, document(title, f"<h1>{escape(title)}</h1>\n{body}"))


def document(title: str, body: str, style: str = "") -> str:
    """Returns a whole page around `body`, which is HTML; whatever that holds, a browser runs and loads nothing.

    Args:
        style: Rules for what only this page has.
    """
    return (
        "<!doctype html>\n"
        '<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}{style}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def write_whole(file: Path, text: str) -> None:
    """Leaves `text` at `file` with its folder; a reader sees the old content or the new, never a part."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as opened:
            opened.write(text)
        os.chmod(name, 0o644)  # mkstemp's 0600 would hide the page from a web server under another user
        os.replace(name, file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def render(section: Section) -> Iterator[str]:
    yield f"<h2>{escape(section.heading)}</h2>"
    for paragraph in filter(None, (part.strip() for part in section.text.split("\n\n"))):
        yield f"<p>{escape(paragraph)}</p>"
    if section.links:
        yield f"<nav>{''.join(map(_anchor, section.links))}</nav>"
    if section.charts:
        figures = (
            f"<figure><figcaption>{escape(chart.title)}</figcaption>{chart.svg}</figure>" for chart in section.charts
        )
        yield f'<div class="charts">{"".join(figures)}</div>'
    if section.picture is not None:
        yield f'<figure><img alt="{escape(section.heading)}" src="{_address(section.picture)}"></figure>'
    if section.table is not None:
        columns, rows = section.table
        head = "".join(f"<th>{escape(str(column))}</th>" for column in columns)
        yield f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>'
        yield from (f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
        yield "</tbody></table></div>"


def _cell(value: object) -> str:
    if value is None:
        return "<td></td>"
    if isinstance(value, Link):
        return f"<td>{_anchor(value)}</td>"
    if isinstance(value, Chart):
        return f"<td>{value.svg}</td>"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (
            f'<td class="number">{value:,.6g}</td>' if isinstance(value, float) else f'<td class="number">{value}</td>'
        )
    text = str(value)
    mark = MARKS.get(text.replace(":", " ").partition(" ")[0], "")
    return f'<td class="{mark}">{escape(text)}</td>' if mark else f"<td>{escape(text)}</td>"


def _anchor(link: Link) -> str:
    return f'<a href="{escape(link.path)}">{escape(link.text)}</a>'


def _address(picture: bytes | str) -> str:
    """Returns the picture inside the address itself; as an image, an SVG cannot run scripts."""
    content = picture.encode() if isinstance(picture, str) else picture
    kind = "png" if content.startswith(b"\x89PNG") else "svg+xml"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
