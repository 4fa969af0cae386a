"""Seeded cases of columns with a known shift between training and new rows, and what Evidently alone says of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from airworthy.drift import ColumnDrift, Limits, compare
from airworthy.evidently_report import report
from airworthy.sketches import Kind, sketch_chunks, sketch_frame

THRESHOLD = 0.1
SIZES = {"none": 0.0, "small": 0.3, "large": 1.5}
KINDS: dict[str, Kind] = {
    "mean": "number", "variance": "number", "skewed": "number", "counts": "number",
    "category": "category", "many": "category", "missing": "number", "absent": "category",
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """Two tables whose columns differ by `size`, each in its own way."""

    seed: int
    size: str
    reference: pd.DataFrame
    current: pd.DataFrame


def cases(count: int, rows: int = 20_000) -> Iterator[Case]:
    for seed in range(count):
        size = list(SIZES)[seed % 3]
        rng = np.random.default_rng(seed)
        yield Case(seed, size, _columns(rng, rows, 0.0), _columns(rng, rows, SIZES[size]))


def _columns(rng: np.random.Generator, rows: int, shift: float) -> pd.DataFrame:
    gone = rng.random(rows) < 0.03 + shift / 2
    absent = rng.random(rows) < 0.03 + shift / 2
    words = np.array(["red", "green", "blue", "grey"], object)
    weights = np.array([0.4, 0.3, 0.2, 0.1]) * np.exp(2 * shift * np.array([-1, 0, 1, 1]))
    zipf = 1 / np.arange(1, 201) ** (1 + shift)
    return pd.DataFrame(
        {
            "mean": rng.normal(shift, 1, rows),
            "variance": rng.normal(0, 1 + shift, rows),
            "skewed": rng.lognormal(shift, 0.8, rows),
            "counts": rng.poisson(3 * (1 + shift), rows),
            "category": rng.choice(words, rows, p=weights / weights.sum()),
            "many": rng.choice([f"k{number}" for number in range(200)], rows, p=zipf / zipf.sum()),
            "missing": np.where(gone, np.nan, rng.normal(size=rows)),
            "absent": np.where(absent, None, rng.choice(words, rows)),
        }
    )


def ours(case: Case) -> dict[str, ColumnDrift]:
    before = sketch_frame(case.reference, KINDS)
    rows = pa.Table.from_pandas(case.current, preserve_index=False)
    parts = [rows.slice(start, 3_000) for start in range(0, rows.num_rows, 3_000)]
    now = sketch_chunks(parts, {name: one.like() for name, one in before.items()})
    columns, _ = compare(before, now, Limits(dict.fromkeys(KINDS, THRESHOLD)))
    return {one.column: one for one in columns}


def evidently_alone(case: Case) -> dict[str, tuple[bool, float]]:
    """Returns what Evidently says of each column on all rows: whether it drifted, and its distance.

    Its distances leave missing values out; its own count of those is held against the same threshold.
    """
    snapshot = report(case.reference, case.current, KINDS, dict.fromkeys(KINDS, THRESHOLD))
    found = {metric["config"]["column"]: float(metric["value"]) for metric in snapshot.dict()["metrics"]}
    shares = [_missing(one) for one in (case.reference, case.current)]
    moved = {name: abs(shares[1][name] - shares[0][name]) >= THRESHOLD for name in KINDS}
    return {name: (score >= THRESHOLD or moved[name], score) for name, score in found.items()}


def _missing(frame: pd.DataFrame) -> dict[str, Any]:
    from evidently import Dataset, Report
    from evidently.metrics import MissingValueCount

    snapshot = Report([MissingValueCount(column=name) for name in KINDS]).run(Dataset.from_pandas(frame), None)
    return {metric["config"]["column"]: metric["value"]["share"] for metric in snapshot.dict()["metrics"]}
