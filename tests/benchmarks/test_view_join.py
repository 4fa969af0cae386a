"""Joining a view as of each row's time, chunk by chunk, against pandas.merge_asof on whole frames.

Run with `make benchmark`. It prints times and peak memory measured side by side in one run; it asserts only that both
sides found the same values. AIRWORTHY_BENCHMARK_ROWS sets the raw rows; the view has a tenth of them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from airworthy.config import Pipeline
from airworthy.partitions import Partition, parse_key
from airworthy.store import Store

ROWS = int(os.environ.get("AIRWORTHY_BENCHMARK_ROWS", "1000000"))
ENTITIES = 1_000
MONTH = parse_key("month", "2026-01-01")
DECLARED: dict[str, Any] = {
    "name": "joined",
    "description": "Reference data joined to raw rows",
    "start": "2026-01-01",
    "partition": "month",
    "source": {"files": {"glob": "raw/{partition}.parquet"}},
    "time": "time",
    "key": ["id"],
    "label": {"column": "late"},
    "model": {"xgboost": {}},
    "views": {
        "weather": {
            "source": {"files": {"glob": "weather/{partition}.parquet"}},
            "key": ["origin"],
            "time": "observed_at",
            "columns": ["temp", "wind"],
            "max_age": "3 hours",
        }
    },
}
MEASURE = """
import sys, time
import numpy as np, pandas as pd, pyarrow as pa

def digest(frame):
    return int(np.bitwise_xor.reduce(pd.util.hash_pandas_object(frame, index=True).to_numpy()))

def peak():
    # Not getrusage, which goes on counting from what the process that started this one had used.
    (line,) = (line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024
"""
OURS = """
import json
from airworthy.config import Pipeline
from airworthy.content import chunks
from airworthy.partitions import parse_key
from airworthy.stages.view_join import join_views
from airworthy.store import Store

pipeline, store = Pipeline.model_validate_json(sys.argv[2]), Store(sys.argv[1], "joined")
partition = parse_key("month", "2026-01-01")
import duckdb
before, started, found, start = peak(), time.perf_counter(), 0, 0
with join_views(pipeline, partition, store) as join:
    for chunk in chunks(store.scan("raw", partitions=[partition.key])):
        frame = join(chunk).select(["id", "temp", "wind"]).to_pandas()
        frame.index = pd.RangeIndex(start, start + len(frame))
        start += len(frame)
        found ^= digest(frame)
print(time.perf_counter() - started, before, peak(), found)
"""
THEIRS = """
from airworthy.store import Store

store = Store(sys.argv[1], "joined")
before, started = peak(), time.perf_counter()
raw, view = store.read("raw"), store.read("view_weather")
order = raw["time"].argsort(kind="stable")
joined = pd.merge_asof(
    raw.iloc[order], view.sort_values("observed_at", kind="stable"), left_on="time", right_on="observed_at",
    by="origin", tolerance=pd.Timedelta(hours=3),
)
joined.index = order
found = digest(joined.sort_index()[["id", "temp", "wind"]])
print(time.perf_counter() - started, before, peak(), found)
"""


def rows(count: int, moment: str, **values: np.ndarray) -> pd.DataFrame:
    rng = np.random.default_rng(count)
    seconds = (MONTH.end - MONTH.start).total_seconds()
    moments = pd.to_datetime(MONTH.start) + pd.to_timedelta(rng.random(count) * seconds, unit="s")
    names = np.array([f"origin {number}" for number in range(ENTITIES)], dtype=object)
    return pd.DataFrame({"origin": rng.choice(names, count), moment: moments.as_unit("us"), **values})


def measure(code: str, store: Path) -> tuple[float, float, float, str]:
    command = [sys.executable, "-c", MEASURE + code, str(store), json.dumps(DECLARED)]
    seconds, before, peak, found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
    return float(seconds), float(before), float(peak), found


def test_a_join_as_of_each_rows_time_against_pandas(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert Pipeline.model_validate(DECLARED).views
    store, partition = Store(str(tmp_path), "joined"), Partition(*MONTH)
    rng = np.random.default_rng(0)
    payload = {f"payload_{number}": rng.normal(size=ROWS) for number in range(10)}
    raw = rows(ROWS, "time", id=np.arange(ROWS), late=rng.integers(0, 2, ROWS), **payload)
    store.write("raw", partition, pa.Table.from_pandas(raw, preserve_index=False))
    known = ROWS // 10
    view = rows(known, "observed_at", temp=rng.normal(size=known), wind=rng.normal(size=known))
    store.write("view_weather", partition, pa.Table.from_pandas(view, preserve_index=False))
    ours, theirs = measure(OURS, tmp_path), measure(THEIRS, tmp_path)
    assert ours[3] == theirs[3]
    with capsys.disabled():
        print(
            f"\n{ROWS:,} rows joined to {known:,} as of their time, reading included: {ours[0]:.2f} s and "
            f"{ours[2] - ours[1]:.0f} MB on top of {ours[1]:.0f} MB; pandas.merge_asof {theirs[0]:.2f} s and "
            f"{theirs[2] - theirs[1]:.0f} MB on top of {theirs[1]:.0f} MB "
            f"(ratios {ours[0] / theirs[0]:.2f} and {(ours[2] - ours[1]) / (theirs[2] - theirs[1]):.2f})"
        )
