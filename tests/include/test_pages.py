from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from airworthy.pages import Section, write_page, write_whole

PNG = b"\x89PNG\r\n\x1a\n" + bytes(40)
SVG = '<svg xmlns="http://www.w3.org/2000/svg"><circle r="1"/></svg>'
VOID = {"meta", "img"}


class Balanced(HTMLParser):
    """Fails on a tag that is not closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def render(folder: Path, *sections: Section, title: str = "Title") -> str:
    write_page(folder / "page.html", title, sections)
    return (folder / "page.html").read_text()


def test_a_page_is_whole_and_loads_nothing(tmp_path: Path) -> None:
    table = (("name", "score"), [("a", 0.25), ("b", None)])
    text = render(tmp_path, Section("One", "First.\n\nSecond.", table, PNG), Section("Two", picture=SVG))
    page = Balanced()
    page.feed(text)
    assert page.open == [] and len(page.sources) == 2
    assert all(re.match(r"data:image/(png|svg\+xml);base64,", source) for source in page.sources)
    assert "<script" not in text and "://" not in text
    assert "<p>First.</p>" in text and "<p>Second.</p>" in text and "prefers-color-scheme: dark" in text


def test_everything_is_escaped(tmp_path: Path) -> None:
    evil = "<script>\"&'"
    text = render(tmp_path, Section(evil, evil, ((evil,), [(evil,)]), SVG), title=evil)
    assert "<script" not in text and text.count("&lt;script&gt;&quot;&amp;&#x27;") == 7


def test_numbers_are_aligned_and_marks_coloured(tmp_path: Path) -> None:
    text = render(
        tmp_path,
        Section("T", table=(("a",), [(1234.5678,), (12,), ("failed: no",), ("yes",), ("yesterday",), (True,)])),
    )
    for cell in (
        '<td class="number">1,234.57</td>',
        '<td class="number">12</td>',
        '<td class="bad">failed: no</td>',
        '<td class="warn">yes</td>',
        "<td>yesterday</td>",
        "<td>True</td>",
    ):
        assert cell in text


def test_what_is_empty_is_left_out(tmp_path: Path) -> None:
    body = render(tmp_path, Section("Only a heading")).partition("<body>")[2]
    assert "<table" not in body and "<img" not in body and "<p>" not in body


def test_a_file_is_replaced_whole_and_nothing_else_is_left(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "er" / "page.html"
    write_whole(file, "old")
    write_whole(file, "new")
    assert file.read_text() == "new" and [*file.parent.iterdir()] == [file]
    assert file.stat().st_mode & 0o777 == 0o644


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    write_whole(file, "old")
    with pytest.raises(UnicodeEncodeError):
        write_whole(file, "\ud800")
    assert file.read_text() == "old" and [*tmp_path.iterdir()] == [file]
