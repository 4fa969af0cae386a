"""Drift of a partition of 50 columns: a check against the sketches of a model, and Evidently alone on the same rows.

`AIRWORTHY_BENCHMARK_ROWS` says how many rows the partition has; the training rows are as many for Evidently, which
keeps them as rows. Each side runs alone in a process of its own and reads the same Delta partition. If Evidently
cannot finish, `AIRWORTHY_BENCHMARK_EVIDENTLY_ROWS` gives it fewer of both; its seconds are then for those. Making the
sketches is part of training, and timed apart. Seconds and memory are those after imports.

The other test compares verdicts on 50 seeded cases whose truth is known.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

ROWS = int(os.environ.get("AIRWORTHY_BENCHMARK_ROWS", "200000"))
EVIDENTLY_ROWS = int(os.environ.get("AIRWORTHY_BENCHMARK_EVIDENTLY_ROWS", str(ROWS)))
CHUNK = 100_000
NUMBERS = [f"f{number}" for number in range(40)]
CATEGORIES = [f"s{number}" for number in range(10)]
SHIFTED = {"f3", "f11", "f25", "s2"}
TRAINING, NOW = "2026-01-05", "2026-01-06"
THRESHOLD = 0.1


def chunks(rows: int, shift: float, seed: int) -> Iterator[Any]:
    import numpy as np
    import pyarrow as pa

    for start in range(0, rows, CHUNK):
        rng = np.random.default_rng((seed, start))
        size = min(CHUNK, rows - start)
        columns = {}
        for number, name in enumerate(NUMBERS):
            moved = shift if name in SHIFTED else 0.0
            found = (
                rng.normal(50 + 5 * moved, 10 * (1 + moved), size) if number % 2 else rng.lognormal(moved, 0.7, size)
            )
            columns[name] = pa.array(found, mask=rng.random(size) < 0.03 if number % 3 == 0 else None)
        for name in CATEGORIES:
            weights = np.arange(1, 21) ** (3 * shift + 1 if name in SHIFTED else 1.0)
            columns[name] = pa.array([f"value {n}" for n in range(20)]).take(
                pa.array(rng.choice(20, size, p=weights / weights.sum()))
            )
        yield pa.table(columns)


def store(folder: str) -> Any:
    from airworthy.store import Store

    return Store(folder, "bench")


def write(folder: str) -> None:
    from airworthy.partitions import Partition

    for number, (key, shift) in enumerate(((TRAINING, 0.0), (NOW, 0.4))):
        day = Partition(key, datetime(2026, 1, 5 + number, tzinfo=UTC), datetime(2026, 1, 6 + number, tzinfo=UTC))
        store(folder).write("features", day, chunks(ROWS, shift, number))


def kinds() -> dict[str, Any]:
    return {**dict.fromkeys(NUMBERS, "number"), **dict.fromkeys(CATEGORIES, "category")}


def learn(folder: str) -> list[str]:
    """Leaves the sketches of the training rows, as a training does from the rows it holds."""
    from airworthy.sketches import sketch_frame, to_json

    frame = store(folder).read("features", partitions=[TRAINING])
    Path(folder, "sketches.json").write_text(json.dumps(to_json(sketch_frame(frame, kinds()))))
    return []


def ours(folder: str) -> list[str]:
    from airworthy.content import chunks as chunks_of
    from airworthy.drift import Limits, compare
    from airworthy.sketches import from_json, sketch_chunks

    reference = from_json(json.loads(Path(folder, "sketches.json").read_text()))
    rows = chunks_of(store(folder).scan("features", partitions=[NOW]), list(kinds()))
    current = sketch_chunks(rows, {name: one.like() for name, one in reference.items()})
    columns, _ = compare(reference, current, Limits(dict.fromkeys(kinds(), THRESHOLD)))
    return [one.column for one in columns if one.drifted]


def evidently(folder: str) -> list[str]:
    from airworthy.evidently_report import report

    tables = (store(folder).scan("features", partitions=[key]) for key in (TRAINING, NOW))
    frames = [table.head(EVIDENTLY_ROWS, columns=list(kinds())).to_pandas() for table in tables]
    snapshot = report(*frames, kinds(), dict.fromkeys(kinds(), THRESHOLD))
    scores = {metric["config"]["column"]: metric["value"] for metric in snapshot.dict()["metrics"]}
    gone = [frame.isna().mean() for frame in frames]
    return [name for name, score in scores.items() if score >= THRESHOLD or abs(gone[0] - gone[1])[name] >= THRESHOLD]


SIDES = {"write": write, "learn": learn, "ours": ours, "evidently": evidently}


def side(name: str, folder: Path) -> dict[str, Any]:
    ran = subprocess.run([sys.executable, __file__, name, str(folder)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, f"{name}: exit code {ran.returncode}, {ran.stderr[-2000:]}"
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return found


@pytest.mark.timeout(7200)
def test_a_check_against_evidently_alone(tmp_path: Path) -> None:
    """Prints seconds, peak memory and ratios; the verdicts must be the same, and right."""
    side("write", tmp_path)
    found = {name: side(name, tmp_path) for name in ("learn", "ours", "evidently")}
    base, theirs = found["ours"], found["evidently"]
    print(f"\n{ROWS} rows x 50 columns, Evidently on {EVIDENTLY_ROWS}\n{'':12}{'seconds':>9}{'CPU':>9}{'peak MB':>9}")
    for name, one in found.items():
        print(f"{name:12}{one['seconds']:>9.1f}{one['cpu']:>9.1f}{one['megabytes']:>9.0f}")
    ratios = {key: base[key] / theirs[key] for key in ("seconds", "cpu", "megabytes")}
    print("ours / evidently: " + ", ".join(f"{key} {value:.3f}" for key, value in ratios.items()))
    assert sorted(base["drifted"]) == sorted(theirs["drifted"]) == sorted(SHIFTED)


@pytest.mark.timeout(3600)
def test_verdicts_on_fifty_cases() -> None:
    """At least 99 of 100 columns get the verdict that Evidently alone gives them on all rows."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "include"))
    from shifted_columns import cases, evidently_alone
    from shifted_columns import ours as judged

    same = right = total = 0
    for case in cases(50):
        mine, theirs = judged(case), evidently_alone(case)
        for name, (drifted, _) in theirs.items():
            total += 1
            same += mine[name].drifted == drifted
            right += mine[name].drifted == (case.size != "none")
    print(f"\n{total} columns of 50 cases: {same} have Evidently's verdict, {right} the true one")
    assert same >= 0.99 * total


def main(name: str, folder: str) -> None:
    import scipy.stats  # noqa: F401

    from airworthy import evidently_report, store  # noqa: F401

    if name == "evidently":
        import evidently.metrics  # noqa: F401
    before, cpu, started = peak(), time.process_time(), time.perf_counter()
    drifted = SIDES[name](folder)
    seconds, used = time.perf_counter() - started, time.process_time() - cpu
    print(json.dumps({"drifted": drifted, "seconds": seconds, "cpu": used, "megabytes": peak() - before}))


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main(*sys.argv[1:])
