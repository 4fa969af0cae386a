"""The page of a partition's profile: what is notable in words, then every column, then what tells the label."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from airworthy import charts
from airworthy.config import Pipeline, load_pipeline
from airworthy.errors import DataError
from airworthy.masking import MASK
from airworthy.pages import Chart, Section, write_page
from airworthy.partitions import parse_key
from airworthy.profile import load_profile, pipelines_dir
from airworthy.profiling import Association, ColumnProfile, DataProfile, profile
from airworthy.store import Store

AUTOMATIC = 50_000  # up to so many rows a profile is written without being asked for
BINS = 24
STRONGEST = 6

_MISSING = 0.2
_TELLING = 0.25
_LEAKING = 0.9
_SEEN = 0.005  # rarer values are not worth naming
_TAIL = 10  # interquartile ranges above or below the quartiles


def profile_path(pipeline: str, partition_key: str) -> str:
    """Returns where `publish` writes the page, below `reports_dir`."""
    return f"{pipeline}/profile/{partition_key}.html"


def publish(pipeline: Pipeline, partition_key: str, store: Store, version: int, reports_dir: Path) -> Path:
    """Returns the page of a partition's profile, written whole; values of `pii` columns are not in it."""
    found = profile(pipeline, partition_key, store, version)
    page = reports_dir / profile_path(pipeline.name, partition_key)
    sections = [
        Section("Notable", table=(("", "column", "what"), list(_findings(pipeline, found)) or [("", "", "Nothing.")])),
        Section("Rows", _overview(pipeline, found)),
        Section("Columns", _explained(found), (_HEADING, [_row(pipeline, found, one) for one in found.columns])),
        Section(f"What tells {pipeline.label.column}", _STRENGTH, charts=list(_strongest(pipeline, found))),
    ]
    write_page(page, f"{pipeline.name}: profile of {partition_key}", sections)
    return page


_STRENGTH = (
    "The columns that tell most about the label, alone. Each colour is one group of rows, scaled to its own number "
    "of rows: where colours part, the column tells the groups apart."
)
_HEADING = (
    "column",
    "type",
    "missing",
    "distinct",
    "least / most common",
    "quartiles",
    "most",
    "values",
    "tells the label",
)


def _overview(pipeline: Pipeline, found: DataProfile) -> str:
    start, end = found.span
    lines = [
        f"{found.rows:,} rows with {len(found.columns)} columns, from {_shown(start)} to {_shown(end)}, "
        f"as they are in version {found.version} of the table raw, which has {found.partitions} partitions.",
        f"{found.duplicates:,} rows repeat a key ({', '.join(pipeline.key)}).",
    ]
    if pipeline.pii:
        lines.append(f"Of personal columns ({', '.join(pipeline.pii)}) only counts are shown.")
    return "\n\n".join(lines)


def _explained(found: DataProfile) -> str:
    exact = "counted" if found.is_exact else "estimated (within a few percent)"
    whole = "all rows" if len(found.sample) == found.rows else f"{len(found.sample):,} rows, evenly spread"
    return (
        f"Missing and least and largest values are of all rows; distinct values and quartiles are {exact}; pictures, "
        f"common values and what tells the label are of {whole}. Pictures leave out the outermost 0.5 % on each side. "
        "AUC 0.5 tells nothing; 0 and 1 tell everything. Other measures go from 0, nothing, to 1, everything."
    )


def _findings(pipeline: Pipeline, found: DataProfile) -> Iterator[tuple[str, str, str]]:
    if found.duplicates:
        yield "error", ", ".join(pipeline.key), f"The key is not unique: {found.duplicates:,} rows repeat one."
    for column in found.columns:
        for mark, text in _of_column(pipeline, found, column):
            yield mark, column.name, text


def _of_column(pipeline: Pipeline, found: DataProfile, column: ColumnProfile) -> Iterator[tuple[str, str]]:
    label = pipeline.label.column
    if column.distinct == 0:
        yield "warning", "Holds no value at all."
    elif column.distinct == 1 and column.missing == 0:
        yield "warning", "Constant: holds one value only, and tells nothing."
    if column.distinct > 0 and column.missing >= _MISSING:
        yield "warning", f"Missing in {column.missing:.1%} of the rows."
    if column.label and column.label.strength >= _LEAKING:
        told = f"Tells {label} almost alone ({_told(column.label)})."
        yield "error", f"{told} Is it known when the prediction is made? If not, it leaks the label."
    if column.missing_label and column.missing_label.strength >= _TELLING:
        yield (
            "warning",
            f"That it is missing tells {label} ({_told(column.missing_label)}). {_rates(found, column, label)}",
        )
    if column.infinite:
        yield "warning", f"Holds {column.infinite:,} infinite numbers."
    is_role = column.name in (*pipeline.key, pipeline.time, label)
    if column.kind == "category" and not is_role and column.distinct > max(50, 0.5 * found.rows * (1 - column.missing)):
        yield (
            "warning",
            f"{column.distinct:,} distinct values in {found.rows:,} rows: an identifier more than a category.",
        )
    if column.kind == "number" and not is_role and (tail := _tail(column)):
        yield "warning", tail


def _rates(found: DataProfile, column: ColumnProfile, label: str) -> str:
    missing = found.sample[column.name].isna()
    there = found.groups.notna()
    group = max(found.groups[there].unique())
    of_missing, of_others = ((found.groups[there & chosen] == group).mean() for chosen in (missing, ~missing))
    return f"{group} in {of_missing:.0%} of the rows without it, and in {of_others:.0%} of the others."


def _tail(column: ColumnProfile) -> str:
    if len(column.quartiles) != 3:
        return ""
    first, _, third = map(float, column.quartiles)
    reach = _TAIL * (third - first)
    if not reach or first - reach <= column.low <= column.high <= third + reach:
        return ""
    far = column.high if column.high > third + reach else column.low
    return f"Far outliers: holds {_shown(far)}, while half of the values are from {_shown(first)} to {_shown(third)}."


def _row(pipeline: Pipeline, found: DataProfile, column: ColumnProfile) -> tuple[Any, ...]:
    roles = {pipeline.time: "time", pipeline.label.column: "label", **dict.fromkeys(pipeline.key, "key")}
    name = f"{column.name} ({roles[column.name]})" if column.name in roles else column.name
    head = (name, column.type, f"{column.missing:.1%}", f"{column.distinct:,}")
    if column.is_personal:
        return (*head, MASK, "", "", None, "")
    picture = _histogram(found, column)
    told = _told(column.label) if column.label else ""
    if column.common:
        common = ", ".join(f"{_short(value)} {share:.0%}" for value, share in column.common[:3] if share >= _SEEN)
        return (*head, common, "", "", picture, told)
    quartiles = " · ".join(map(_shown, column.quartiles))
    return (*head, _shown(column.low), quartiles, _shown(column.high), picture, told)


def _histogram(found: DataProfile, column: ColumnProfile) -> Chart | None:
    if column.common:
        return charts.histogram([share for _, share in column.common], f"{column.name}: its most common values")
    edges = _edges(_numbers(found, column))
    if edges is None:
        return None
    counts = np.histogram(_numbers(found, column), edges)[0].tolist()
    return charts.histogram(counts, f"{column.name}: how often each value is")


def _numbers(found: DataProfile, column: ColumnProfile) -> np.ndarray:
    values = found.sample[column.name]
    numbers = values.astype("int64") if column.kind == "time" else values.astype("float64")
    held = numbers.to_numpy(dtype="float64", na_value=np.nan)
    held[values.isna().to_numpy() | ~np.isfinite(held)] = np.nan
    return held


def _edges(numbers: np.ndarray) -> np.ndarray | None:
    held = numbers[np.isfinite(numbers)]
    if not len(held):
        return None
    low, high = np.quantile(held, [0.005, 0.995])
    return np.linspace(low, high if high > low else low + 1, BINS + 1)


def _strongest(pipeline: Pipeline, found: DataProfile) -> Iterator[Chart]:
    told = [one for one in found.columns if one.label and one.label.strength > 0]
    for column in sorted(told, key=lambda one: -(one.label.strength if one.label else 0))[:STRONGEST]:
        assert column.label is not None
        title = f"{column.name}: {_told(column.label)}"
        yield _bars(found, column, title) if column.kind == "category" else _compared(found, column, title)


def _compared(found: DataProfile, column: ColumnProfile, title: str) -> Chart:
    numbers = _numbers(found, column)
    edges = _edges(numbers)
    assert edges is not None, "what tells the label has values"
    counts = {name: np.histogram(numbers[chosen], edges)[0].tolist() for name, chosen in _chosen(found).items()}
    ends = [
        pd.Timestamp(int(edge), tz="UTC") if column.kind == "time" else float(edge) for edge in (edges[0], edges[-1])
    ]
    return charts.compared(counts, title, *map(_shown, ends))


def _bars(found: DataProfile, column: ColumnProfile, title: str) -> Chart:
    values = found.sample[column.name].astype(object).map(str, na_action="ignore")
    names = [name for name, _ in column.common[:8]]
    groups = _chosen(found).items()
    counts = {group: [float((values[chosen] == name).sum()) for name in names] for group, chosen in groups}
    return charts.bars(counts, names, title)


def _chosen(found: DataProfile) -> Mapping[str, np.ndarray]:
    """Returns by group which rows of the sample it has."""
    return {str(name): (found.groups == name).to_numpy() for name in sorted(found.groups.dropna().unique())}


def _told(association: Association) -> str:
    return f"{association.measure} {association.value:.2f}"


def _short(value: str, limit: int = 24) -> str:
    return value if len(value) <= limit else f"{value[: limit - 1]}…"


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float | int):
        return f"{value:,.4g}" if abs(value) < 1e6 or abs(value) >= 1e15 else f"{value:,.0f}"
    return f"{pd.Timestamp(value):%Y-%m-%d %H:%M}"


def run(pipeline: str, environment: Mapping[str, str], partition_key: str | None = None) -> None:
    """Writes the page of one partition, the newest by default, and prints where it is.

    Args:
        environment: Where the tables are.

    Raises:
        DataError: There is no such partition.
    """
    places = load_profile(environment)
    declared = load_pipeline(pipelines_dir() / f"{pipeline}.yaml")
    store = Store(places.store_uri, declared.name)
    there, version = store.partitions("raw"), store.version("raw")
    if version is None or not there:
        raise DataError(f"{declared.name}: raw", "must hold rows", hint=f"Run {declared.name}.ingest first")
    key = partition_key or there[-1]
    if parse_key(declared.partition, key).key not in there:
        raise DataError(f"raw[{key}]", "must hold rows", hint=f"There are {there[0]} to {there[-1]}")
    print(publish(declared, key, store, version, places.reports_dir))
