"""Great Expectations' own pages of validation results, kept to one file each that loads and runs nothing.

Their templates fetch styles, fonts and scripts from a dozen hosts. Here the renderers and templates for
results are Great Expectations', and the page around them is this project's.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from airworthy.config import Strict
from airworthy.expectations import Outcome
from airworthy.locks import locked
from airworthy.pages import Link, Section, document, write_page, write_whole

INDEX = "index.html"

_QUIET = {"raised_exception": False, "exception_message": None, "exception_traceback": None}

# Great Expectations writes some values as HTML and some as text; so they travel through it without HTML's characters.
_GUARDED = {ord("<"): "\ue000", ord(">"): "\ue001", ord("&"): "\ue002"}
_MEANT = {ord(guard): chr(character) for character, guard in _GUARDED.items()}
# Templates of Great Expectations that need scripts, in a form that does not.
_TEMPLATES = {
    "page.j2": "{% for section in sections %}{% set section_loop = loop %}{% include 'section.j2' %}{% endfor %}",
    "collapse.j2": (
        '<details><summary>{{ content_block.get("collapse_toggle_link", "More") | render_content_block }}</summary>'
        "{% for block in content_block['collapse'] %}"
        "{{ block | render_content_block(content_block_id=content_block_id) }}{% endfor %}</details>"
    ),
    "graph.j2": (
        "{% include 'content_block_header.j2' %}{% for rows in content_block['graph'].get('datasets', {}).values() %}"
        '<table class="table"><tbody>{% for row in rows %}<tr>{% for value in row.values() %}'
        "<td>{{ value | string | escape }}</td>{% endfor %}</tr>{% endfor %}</tbody></table>{% endfor %}"
    ),
}
_BLOCKS = {"details", "div", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "li", "ol", "p", "pre", "summary", "ul"}
_TAGS = _BLOCKS | {"b", "br", "code", "em", "i", "span", "strong", "table", "tbody", "td", "th", "thead", "tr"}
_ATTRIBUTES = frozenset({"class", "colspan", "hidden"})
_WITHOUT_TEXT = frozenset({"script", "style"})

# What the classes look like that Great Expectations takes from Bootstrap and Font Awesome.
_STYLE = """
.ge-section { border-top: 1px solid var(--line); padding: .6rem 0 1rem; }
h5 { font-size: 1.05rem; margin: .6rem 0 .4rem; } h6 { font-size: .95rem; margin: .4rem 0; }
.h6 { font-weight: 600; } .alert { background: var(--band); border-radius: 6px; padding: .6rem .9rem; }
.alert-danger, .alert-warning { border-left: 3px solid var(--warn); }
.table { width: 100%; margin: .4rem 0; } .table .table { width: auto; }
.badge { border: 1px solid var(--line); border-radius: 4px; padding: 0 .35rem; font-size: .85em; }
.badge-danger, .text-danger { color: var(--bad); } .badge-warning, .text-warning { color: var(--warn); }
.text-success { color: var(--good); } summary { cursor: pointer; color: var(--link); }
i.fas { font-style: normal; } .fa-check-circle::before { content: "\\2713"; } .fa-times::before { content: "\\2717"; }
.fa-exclamation-triangle::before { content: "!"; font-weight: 700; }
pre, code { white-space: pre-wrap; font-size: 12.5px; } ul { margin: .2rem 0; padding-left: 1.2rem; }
ol, ul { list-style-position: outside; } td { overflow-wrap: anywhere; } td:first-child { white-space: normal; }
"""


class Summary(Strict):
    """One line of the index: what was found in a partition.

    Attributes:
        failed: The titles of the expectations that do not hold or could not be judged.
    """

    partition: str
    version: int
    blocked: bool
    rows: int
    bad_rows: int
    expectations: int
    failed: tuple[str, ...]


def docs_path(pipeline: str, partition_key: str) -> str:
    """Returns where `publish` writes the page of a partition, below `reports_dir`."""
    return f"{pipeline}/data_docs/{partition_key}.html"


def publish(pipeline: str, found: Summary, outcomes: Sequence[Outcome], reports_dir: Path) -> None:
    """Leaves Great Expectations' page of these results, and the pipeline's index of all partitions with a line of it.

    Args:
        outcomes: Masked, if anything in them is not for everybody to read.
    """
    page = reports_dir / docs_path(pipeline, found.partition)
    title = f"{pipeline}: Data Docs of {found.partition}"
    links = f'<nav><a href="{INDEX}">All partitions</a><a href="../validate/{page.name}">What was made of it</a></nav>'
    body = f"<h1>{escape(title)}</h1>\n{links}\n{_render(pipeline, found, outcomes)}"
    write_whole(page, document(title, body, _STYLE))
    write_whole(page.with_suffix(".json"), found.model_dump_json())
    with locked(page.parent):  # the last index names every page
        _write_index(pipeline, page.parent)


def _render(pipeline: str, found: Summary, outcomes: Sequence[Outcome]) -> str:
    from great_expectations import __version__
    from great_expectations.core.expectation_validation_result import ExpectationSuiteValidationResult
    from great_expectations.render.renderer.page_renderer import ValidationResultsPageRenderer

    passed = sum(outcome.status == "passed" for outcome in outcomes)
    suite = ExpectationSuiteValidationResult(
        success=passed == len(outcomes),
        results=[_result(outcome) for outcome in outcomes if outcome.result],
        suite_name=pipeline,
        statistics={
            "evaluated_expectations": len(outcomes),
            "successful_expectations": passed,
            "unsuccessful_expectations": len(outcomes) - passed,
            "success_percent": 100 * passed / max(len(outcomes), 1),
        },
        meta={
            "great_expectations_version": __version__,
            "run_id": {"run_name": found.partition},
            "batch_spec": {"data_asset_name": f"raw[{found.partition}], version {found.version}"},
        },
    )
    plain = _Plain()
    plain.feed(_view().render(ValidationResultsPageRenderer().render(suite)))
    plain.close()
    return _not_run(outcomes) + "".join(plain.parts)


def _not_run(outcomes: Sequence[Outcome]) -> str:
    """Returns a table of the expectations of which there is no result to render, as their arguments are wrong."""
    lines = [(escape(one.title), escape(one.reason)) for one in outcomes if not one.result]
    rows = "".join(f"<tr><td>{title}</td><td>{reason}</td></tr>" for title, reason in lines)
    return f'<h5 class="text-danger">Could not be judged</h5><table class="table">{rows}</table>' if lines else ""


def _result(outcome: Outcome) -> Any:
    from great_expectations.core.expectation_validation_result import ExpectationValidationResult
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration
    from great_expectations.expectations.metadata_types import FailureSeverity

    kwargs = {name: value for name, value in outcome.expectation.kwargs.items() if name != "severity"}
    told = json.dumps([kwargs, outcome.result.get("result") or {}, outcome.reason], default=str, ensure_ascii=False)
    kwargs, details, reason = json.loads(told.translate(_GUARDED))
    if outcome.is_row_level:
        share = 100 * outcome.unexpected / max(details.get("element_count") or 0, 1)
        details = {"unexpected_percent": share, **details}  # which those of several columns do not state
    raised = {"raised_exception": True, "exception_message": reason, "exception_traceback": reason}
    severity = FailureSeverity.WARNING if outcome.is_warning else FailureSeverity.CRITICAL
    return ExpectationValidationResult(
        success=outcome.status == "passed",
        expectation_config=ExpectationConfiguration(type=outcome.expectation.type, kwargs=kwargs, severity=severity),
        result=details,
        exception_info=raised if outcome.status == "error" else _QUIET,
    )


@cache
def _view() -> Any:
    from great_expectations.render.view.view import DefaultJinjaPageView
    from jinja2 import ChoiceLoader, DictLoader

    view = DefaultJinjaPageView()
    assert view.env.loader is not None
    view.env.loader = ChoiceLoader([DictLoader(_TEMPLATES), view.env.loader])
    return view


class _Plain(HTMLParser):
    """Keeps text, structure and classes; drops scripts, addresses and styles, and writes any other tag as text."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _WITHOUT_TEXT:
            self._hidden += 1
        elif tag in _TAGS and not self._hidden:
            written = [(name, escape(value or "")) for name, value in attrs if name in _ATTRIBUTES]
            kept = "".join(f' {name}="{value}"' for name, value in written)
            self.parts.append(f"<{tag}{kept}>")

    def handle_endtag(self, tag: str) -> None:
        if tag in _WITHOUT_TEXT:
            self._hidden = max(self._hidden - 1, 0)
        elif tag in _TAGS and tag != "br" and not self._hidden:
            self.parts.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.parts.append(escape(data.translate(_MEANT)) if data.strip() else " ")


def summaries(folder: Path) -> list[Summary]:
    """Returns what is known of the partitions with a page in the folder, oldest first."""
    return [Summary.model_validate_json(file.read_bytes()) for file in sorted(folder.glob("[!.]*.json"))]


def _write_index(pipeline: str, folder: Path) -> None:
    lines = summaries(folder)
    blocked = sum(line.blocked for line in lines)
    bad = sum(1 for line in lines if line.bad_rows and not line.blocked)
    text = f"{len(lines)} partitions were checked: {blocked} are blocked, {bad} have rows in quarantine."
    columns = ("partition", "result", "rows", "bad rows", "share", "expectations", "do not hold")
    rows = [
        (
            Link(line.partition, f"{line.partition}.html"),
            "blocked" if line.blocked else "passed",
            line.rows,
            line.bad_rows,
            f"{line.bad_rows / max(line.rows, 1):.2%}",
            line.expectations,
            ", ".join(line.failed),
        )
        for line in reversed(lines)
    ]
    write_page(folder / INDEX, f"{pipeline}: Data Docs", [Section("Partitions", text, (columns, rows))])
