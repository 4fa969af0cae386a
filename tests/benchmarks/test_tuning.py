"""Two trials of one thread each against one trial of two threads, and what keeping the trials costs.

Run with `make benchmark`. It prints times measured side by side in one run; it asserts only that all of them found the
same values for the trials they have in common.
"""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from airworthy.config import Pipeline, load_pipeline
from airworthy.encoding import Encoder, describe_features, encode_label
from airworthy.features import compute_features
from airworthy.models import Matrix
from airworthy.profile import ROOT
from airworthy.stages.study import Study
from airworthy.stages.tuning import Search, search

SPACE = {"max_depth": {"int": [3, 8]}, "learning_rate": {"float": [0.02, 0.3], "log": True}}
TRIALS = int(os.environ.get("AIRWORTHY_BENCHMARK_TRIALS", "12"))


@pytest.fixture(scope="module")
def flights(tmp_path_factory: pytest.TempPathFactory) -> tuple[Matrix, np.ndarray, np.ndarray]:
    from pipelines.flight_delays import extract

    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("AIRWORTHY_HOME", str(tmp_path_factory.mktemp("home")))
        rows = extract(datetime(2013, 1, 1, tzinfo=UTC), datetime(2013, 5, 1, tzinfo=UTC))
    features = compute_features(load_pipeline(ROOT / "config" / "pipelines" / "flight_delays.yaml"), rows)
    label = encode_label("binary", ("0", "1"), rows["late"])
    moment = pd.to_datetime(rows["time_hour"]).astype("int64").to_numpy()
    return Encoder(describe_features(features))(features), label, moment


def declared(threads: int, **tune: Any) -> Pipeline:
    content = load_pipeline(ROOT / "config" / "pipelines" / "flight_delays.yaml").model_dump(mode="json")
    content["model"]["xgboost"]["params"] = {"n_estimators": 200, "max_bin": 64}
    content["tune"] = {"trials": TRIALS, "space": SPACE, "prune": False, **tune}
    content["train"]["threads"] = threads
    return Pipeline.model_validate(content)


def timed(pipeline: Pipeline, data: tuple[Matrix, np.ndarray, np.ndarray], study: Study | None = None) -> Any:
    started = time.perf_counter()
    found = search(pipeline, *data, 2, study=study)
    return time.perf_counter() - started, found


def test_how_to_share_two_threads(flights: tuple[Matrix, np.ndarray, np.ndarray], tmp_path: Path) -> None:
    ways = {
        "1 trial x 1 thread": declared(1),
        "1 trial x 2 threads": declared(2, parallel=1),
        "2 trials x 1 thread": declared(2),
        "1 trial x 1 thread, pruned": declared(1, prune=True),
        "2 trials x 1 thread, pruned": declared(2, prune=True),
    }
    search(declared(1, trials=1), *flights, 2)  # what is imported and built once is nobody's
    times: dict[str, list[float]] = {name: [] for name in ways}
    found: dict[str, Search] = {}
    for _ in range(2):
        for name, pipeline in ways.items():
            seconds, found[name] = timed(pipeline, flights)
            times[name].append(seconds)
    kept, _ = timed(ways["1 trial x 1 thread"], flights, Study("kept", f"sqlite:///{tmp_path}/tuning.db"))
    one = min(times["1 trial x 1 thread"])
    print(f"\n{len(flights[1]):,} rows, {TRIALS} trials of 200 rounds")
    for name, taken in times.items():
        stopped = sum(trial.value is None for trial in found[name].trials)
        best = max(trial.value or 0 for trial in found[name].trials)
        print(f"{name:28} {min(taken):6.1f} s  {min(taken) / one:.2f}  stopped {stopped}, best {best:.4f}")
    print(f"{'kept in SQLite':28} {kept:6.1f} s  {kept / one:.2f}")
    alone, shared = (found[name].trials for name in ("1 trial x 1 thread", "1 trial x 2 threads"))
    assert [trial.value for trial in alone] == [trial.value for trial in shared]
