"""Twelve kinds of bad partition among good ones: each is told clearly, and the good ones go on."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest

from airworthy.airflow_api import AirflowApi
from airworthy.store import Store

ROWS = 1000
LARGEST = 1500  # MB of one process, with all libraries preloaded about 700


def rows(day: str) -> pd.DataFrame:
    random = np.random.default_rng(int(day[-2:]))
    return pd.DataFrame(
        {
            "id": [f"{day}-{number:04d}" for number in range(ROWS)],
            "at": pd.date_range(day, periods=ROWS, freq="min", tz="UTC"),
            "load": random.normal(0.0, 1.0, ROWS),
            "line": random.choice(["red", "green", "blue"], ROWS),
            "late": random.integers(0, 2, ROWS),
        }
    )


def parquet(change: Callable[[pd.DataFrame], pd.DataFrame] = lambda frame: frame) -> Callable[[str], bytes]:
    return lambda day: bytes(change(rows(day)).to_parquet())


def among(count: int, **values: object) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """Returns what gives the first `count` rows these values."""
    return lambda frame: frame.assign(
        **{name: [value] * count + frame[name].tolist()[count:] for name, value in values.items()}
    )


def csv(text: Callable[[str], bytes]) -> Callable[[str], bytes]:
    return lambda day: gzip.compress(text(day), 1)


def well_formed(day: str) -> bytes:
    return rows(day).to_csv(index=False).encode()


# What a partition holds; which task fails, if any; what is said; and how many rows become features.
KINDS: dict[str, tuple[Callable[[str], bytes], str | None, str, int]] = {
    "good": (parquet(), None, "1000 rows", ROWS),
    "truncated Parquet": (lambda day: parquet()(day)[:-200], "ingest", "must be a Parquet file", 0),
    "empty": (parquet(lambda frame: frame.iloc[:0]), "ingest", "must have rows", 0),
    "duplicate keys": (parquet(among(200, id="twice")), "validate", "expect_column_values_to_be_unique(id)", 0),
    "a missing column": (
        parquet(lambda frame: frame.drop(columns="load")),
        "ingest",
        "load: must be a column, as the schema",
        0,
    ),
    "an extra column": (
        parquet(lambda frame: frame.assign(extra=1)),
        "ingest",
        "extra: is not a column of the schema",
        0,
    ),
    "a retyped column": (
        parquet(lambda frame: frame.assign(load="heavy")),
        "ingest",
        "load: must hold float64, as the schema",
        0,
    ),
    "impossible values": (parquet(among(200, load=1e6)), "validate", "expect_column_values_to_be_between(load)", 0),
    "NaN and Inf in numbers": (
        parquet(lambda frame: among(20, load=np.inf)(among(40, load=np.nan)(frame))),
        None,
        "20 of 1000 rows in quarantine",
        ROWS - 20,
    ),
    "one row in a thousand wrong": (parquet(among(1, load=99.0)), None, "1 of 1000 rows in quarantine", ROWS - 1),
    "all rows wrong": (parquet(among(ROWS, load=99.0)), "validate", "1000 of 1000", 0),
    "good again": (parquet(), None, "1000 rows", ROWS),
}
TEXT_KINDS: dict[str, tuple[Callable[[str], bytes], str | None, str, int]] = {
    "good": (csv(well_formed), None, "1000 rows", ROWS),
    "wrong encoding": (
        csv(lambda day: well_formed(day).replace(b"green", "grün".encode("latin-1"))),
        "ingest",
        "UTF-8",
        0,
    ),
    "a cell of 1 GB": (
        csv(lambda day: well_formed(day) + b"x" * (1 << 30) + b",,,,\n"),
        "ingest",
        "must not have a value of more than",
        0,
    ),
    "good again": (csv(well_formed), None, "1000 rows", ROWS),
}


@contextmanager
def largest_process() -> Iterator[list[int]]:
    """Yields a list that ends up holding the most memory, in MB, that any of this user's processes had."""
    done, seen = threading.Event(), [0]

    def watch() -> None:
        while not done.wait(0.2):
            for process in psutil.process_iter(["cmdline", "memory_info"]):
                command = " ".join(process.info["cmdline"] or ())
                if "airflow" in command and process.info["memory_info"] is not None:
                    seen[0] = max(seen[0], process.info["memory_info"].rss >> 20)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        done.set()
        watcher.join()


@pytest.mark.parametrize(
    ("pipeline", "suffix", "kinds"), [("bad_parquet", "parquet", KINDS), ("bad_csv", "csv.gz", TEXT_KINDS)]
)
def test_bad_partitions_are_told_and_good_ones_go_on(
    airflow: AirflowApi,
    stack,
    config_dir: Path,
    pipeline: str,
    suffix: str,
    kinds: dict[str, tuple[Callable[[str], bytes], str | None, str, int]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = config_dir.parent / "data" / pipeline
    folder.mkdir(parents=True)
    days = {f"2026-01-{number:02d}": kind for number, kind in enumerate(kinds, start=5)}
    for day, kind in days.items():
        (folder / f"{day}.{suffix}").write_bytes(kinds[kind][0](day))
    dag_id, store = f"{pipeline}.ingest", Store(f"{stack.home}/store", pipeline)
    airflow.unpause(dag_id)
    first, *others = days
    learnt = airflow.trigger(dag_id, partition=first)  # a contract is learnt from a partition that is known to be good
    assert airflow.wait(dag_id, learnt)["state"] == "success"
    with largest_process() as memory:
        airflow.backfill(dag_id, *(datetime.fromisoformat(day).replace(tzinfo=UTC) for day in (others[0], others[-1])))
        runs = {run["logical_date"][:10]: run for run in airflow.wait_for_backfill(dag_id)}
    told = {}
    for day in others:
        _, failing, said, left = kinds[days[day]]
        tasks = airflow.tasks(dag_id, runs[day]["dag_run_id"])
        failed = [name for name, task in tasks.items() if task["state"] == "failed"]
        assert failed == ([failing] if failing else []), (days[day], tasks)
        task = failing or ("process" if "quarantine" not in said else "validate")
        log = airflow.log(dag_id, runs[day]["dag_run_id"], task, tasks[task]["try_number"])
        assert said in log, (days[day], log)
        told[days[day]] = (failing or "passed", next(line for line in log.splitlines() if said in line))
        features = [one for one in store.history("features") if one.partition == day]
        assert [one.rows for one in features] == ([left] if left else []), days[day]
    assert store.partitions("features") == [day for day, kind in days.items() if kinds[kind][3]]
    visible = len(list(Path(store.uri("raw")).rglob("*.parquet")))
    assert visible == len(store.history("raw")), "a file was left that no version of the table has"
    assert memory[0] < LARGEST, f"a process took {memory[0]} MB"
    with capsys.disabled():
        print(f"\n{pipeline}: the largest process took {memory[0]} MB")
        for kind, (happened, message) in told.items():
            print(f"  {kind} | {happened} | {message[:300]}")
