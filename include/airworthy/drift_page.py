"""Draws what monitoring found about a partition: a page, the same as JSON, and Evidently's page of what drifted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from airworthy.charts import bars, compared
from airworthy.drift import ColumnDrift, Drift
from airworthy.kpis import KpiFinding
from airworthy.pages import Chart, Link, Section, write_page, write_whole
from airworthy.sketches import CategorySketch, Sketches

SHOWN = 40  # columns with a picture
_BINS = 30
_VALUES = 8


def write_pages(
    found: Drift,
    snapshot: Any,
    reference: Sketches,
    current: Sketches,
    before: pd.DataFrame,
    now: pd.DataFrame,
    reports_dir: Path,
) -> None:
    """Leaves the pages where `found.page` says, below `reports_dir`.

    Args:
        found: What was found.
        snapshot: Evidently's; None if nothing drifted.
        reference: Sketches of the training rows.
        current: Of the partition.
        before: A sample of the training rows.
        now: Of the partition.
        reports_dir: Where pages are.
    """
    page = reports_dir / found.page
    write_whole(page.with_suffix(".json"), found.model_dump_json(indent=1))
    links = []
    if snapshot is not None:
        whole = page.with_name(f"{page.stem}.evidently.html")
        write_whole(whole, snapshot.get_html_str(as_iframe=False))
        links = [Link("Evidently's report of what drifted", whole.name)]
    pictures = [_picture(one, reference, current, before, now) for one in found.drifted[:SHOWN]]
    write_page(
        page, f"{found.pipeline}: drift of {found.partition}", [*_sections(found, links, list(filter(None, pictures)))]
    )


def _sections(found: Drift, links: list[Link], pictures: list[Chart]) -> Iterator[Section]:
    summary = f"{found.rows} rows scored by version {found.version}, against what that version was trained on. "
    summary += "" if found.alarms else "No column has drifted, and nothing else is unusual."
    summary += f" Serving: {found.coverage.told}." if found.coverage else ""
    rows = [(f"warning {alarm}",) for alarm in found.alarms]
    yield Section(
        "What was found", text=summary, table=(("finding, and what to do",), rows) if rows else None, links=links
    )
    if pictures:
        yield Section("Training and now", charts=pictures)
    if found.concept is not None:
        verdict = f"{'Drifted' if found.concept.drifted else 'Not drifted'}: {found.concept.reason}."
        yield Section("Labels against what the model says", text=f"{found.concept.rows} labels are known. {verdict}")
    heading = ("column", "kind", "distance", "on a sample", "threshold", "missing", "missing in training", "drifted")
    every = [*found.columns, *([found.label] if found.label else [])]
    table = [_row(one) for one in sorted(every, key=lambda one: (not one.drifted, one.column))]
    text = "The distance on a sample is Evidently's own, of columns that drifted."
    yield Section("Columns", text=text, table=(heading, table))
    kpis = [_kpi(one) for one in sorted(found.kpis, key=lambda one: (not one.alarm, one.kpi))]
    heading = ("key figure", "value", "expected", "from", "to", "usual errors away", "windows before", "alarm")
    yield Section("Key figures", table=(heading, kpis))


def _row(column: ColumnDrift) -> tuple[object, ...]:
    score = "no values to compare" if column.score is None else f"{column.score:.3f}"
    sampled = "" if column.sampled is None else f"{column.sampled:.3f}"
    shares = f"{column.missing:.1%}", f"{column.reference_missing:.1%}"
    verdict = ("yes: " + column.note if column.note else "yes") if column.drifted else "no"
    return column.column, column.kind, score, sampled, f"{column.threshold:g}", *shares, verdict


def _kpi(one: KpiFinding) -> tuple[object, ...]:
    judged = (one.expected, one.low, one.high, one.deviations) if one.expected is not None else (None,) * 4
    verdict = "yes" if one.alarm else "no" if one.expected is not None else "too few windows yet"
    return one.kpi, one.value, *judged, one.windows, verdict


def _picture(
    one: ColumnDrift, reference: Sketches, current: Sketches, before: pd.DataFrame, now: pd.DataFrame
) -> Chart | None:
    """Returns the column's histograms in training and now; None if one side has nothing to draw."""
    was, is_ = reference[one.column], current[one.column]
    if isinstance(was, CategorySketch) and isinstance(is_, CategorySketch):
        total = was.counts + is_.counts
        names = [name for name, _ in total.most_common(_VALUES)]
        groups = {"training": [was.counts[name] for name in names], "now": [is_.counts[name] for name in names]}
        return bars(groups, names, one.column) if names else None
    if one.column not in before.columns or one.column not in now.columns:
        return None
    sides = [frame[one.column].to_numpy("float64", na_value=np.nan) for frame in (before, now)]
    sides = [side[np.isfinite(side)] for side in sides]
    if not all(map(len, sides)):
        return None
    edges = np.histogram_bin_edges(np.concatenate(sides), _BINS)
    groups = {
        name: np.histogram(side, edges)[0].tolist() for name, side in zip(("training", "now"), sides, strict=True)
    }
    return compared(groups, one.column, f"{edges[0]:.4g}", f"{edges[-1]:.4g}")
