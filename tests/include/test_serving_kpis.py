"""What monitoring knows of serving: how fast it answers, how often it cannot, and how much of it is captured."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from airworthy.columns import TIMESTAMP
from airworthy.config import Pipeline
from airworthy.drift import Drift
from airworthy.kpis import KpiFinding
from airworthy.partitions import Partition, partition_at
from airworthy.profile import Profile
from airworthy.retrains import Decision
from airworthy.serving.counters import Counters
from airworthy.stages.alarms import of_monitoring
from airworthy.stages.kpis import Window, performance_kpis, watch
from airworthy.stages.performance import Labels, Performance
from airworthy.stages.serving_kpis import Served, coverage, served
from airworthy.store import Store
from toy_pipeline import Toy, toy_at

NOW = datetime.now(UTC)
TODAY = partition_at("hour", NOW - timedelta(hours=1))


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Toy:
    """A toy that trains nothing."""
    return toy_at(tmp_path, "http://127.0.0.1:1", monkeypatch)


def hourly(toy: Toy) -> Pipeline:
    return toy.pipeline(partition="hour", start=(TODAY.start - timedelta(days=30)).isoformat())


def answer(store: Store, partition: Partition, seconds: list[float], rows: int = 2) -> None:
    """Leaves so many requests of so many rows in the table `captured`."""
    count = len(seconds) * rows
    table = pa.table(
        {
            "captured_request": [f"{partition.key} {number // rows}" for number in range(count)],
            "captured_row": [number % rows for number in range(count)],
            "captured_at": pa.array([partition.start] * count, TIMESTAMP),
            "captured_seconds": np.repeat(seconds, rows),
        }
    )
    store.append("captured", partition.key, table)


def lose(store: Store, partition: Partition, rows: int) -> None:
    store.append("captured_loss", partition.key, pa.table({"outcome": ["lost"], "rows": pa.array([rows], pa.int64())}))


@contextmanager
def metrics_of(counters: Counters, toy: Toy) -> Iterator[Profile]:
    """Yields a profile whose serving process says what these counters do."""

    class Metrics(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/metrics" else 404)
            self.end_headers()
            self.wfile.write(counters.text().encode())

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Metrics) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield toy.profile.model_copy(update={"serving_url": f"http://127.0.0.1:{server.server_address[1]}"})
        server.shutdown()


def test_latency_and_coverage_are_those_of_the_partition(toy: Toy) -> None:
    pipeline, store = hourly(toy), Store(toy.profile.store_uri, toy.name)
    before = partition_at("hour", TODAY.start - timedelta(hours=1))
    assert served(pipeline, TODAY, toy.profile, "kpis") == Served()
    answer(store, before, [9.0])
    answer(store, TODAY, [*[0.004] * 98, 0.030, 0.050])
    lose(store, TODAY, 50)
    found = served(pipeline, TODAY, toy.profile, "kpis")
    kpis = {one.name: one for one in found.kpis}
    assert kpis.keys() == {"requests", "latency", "coverage"}  # serving does not answer, so of errors nothing is known
    assert (kpis["requests"].value, kpis["coverage"].value) == (100, 0.8)
    assert kpis["latency"].value == pytest.approx(1_000 * np.quantile([*[0.004] * 98, 0.030, 0.050], 0.99))
    assert found.coverage is not None and found.coverage.told == "200 of 250 predictions captured"
    week = partition_at("week", TODAY.start)
    whole = coverage(week, store)
    assert whole is not None and (whole.captured, whole.lost) == (202 if before.start >= week.start else 200, 50)


def test_errors_are_counted_since_the_partition_before_also_across_a_restart(toy: Toy) -> None:
    pipeline, store, counters = hourly(toy), Store(toy.profile.store_uri, toy.name), Counters()

    def count(**statuses: int) -> None:
        for status, number in statuses.items():
            counters.add("airworthy_requests", number, pipeline=toy.name, status=status.removeprefix("s"))
            counters.add("airworthy_requests", 999, pipeline="other", status=status.removeprefix("s"))

    def look(partition: Partition, profile: Profile) -> dict[str, float]:
        found = served(pipeline, partition, profile, "kpis")
        watch(pipeline, partition, Window(1, {}, "binary", None), store, found)
        return {one.name: one.value for one in found.kpis}

    hours = [partition_at("hour", NOW - timedelta(hours=number)) for number in (3, 2, 1)]
    with metrics_of(counters, toy) as profile:
        count(s200=90, s422=10)
        assert look(hours[0], profile) == {"refusals": 0.1, "failures": 0.0}
        count(s200=60, s503=40)
        for _ in range(2):  # a run that is run again
            assert look(hours[1], profile) == {"refusals": 0.0, "failures": 0.4}
        assert look(partition_at("hour", NOW - timedelta(days=9)), profile) == {}  # the past
    anew = Counters()
    anew.add("airworthy_requests", 8, pipeline=toy.name, status="200")
    anew.add("airworthy_requests", 2, pipeline=toy.name, status="500")
    with metrics_of(anew, toy) as profile:
        assert look(hours[2], profile) == {"refusals": 0.0, "failures": 0.2}


def decision() -> Decision:
    return Decision(
        pipeline="toy", sequence=1, at=NOW, key="", partition=TODAY.key, as_of=NOW, cause="", action="quiet", reason="",
        version="3", champion="3", actor="run",
    )  # fmt: skip


def found_of(toy: Toy, *kpis: KpiFinding) -> Drift:
    return Drift(pipeline=toy.name, partition=TODAY.key, version="3", rows=1, columns=(), page="", kpis=kpis)


def test_what_became_unusual_together_is_one_incident_as_long_as_it_lasts(toy: Toy) -> None:
    pipeline = hourly(toy)
    rows = KpiFinding(kpi="rows", value=9, expected=1, low=0.5, high=2, alarm=True, since="2026-01-01T05")
    accuracy = rows.model_copy(update={"kpi": "accuracy"})
    later = rows.model_copy(update={"kpi": "performance", "since": "2026-01-01T07"})
    fine = rows.model_copy(update={"kpi": "latency", "alarm": False, "since": ""})
    first, second = of_monitoring(
        pipeline, decision(), toy.profile, found=found_of(toy, rows, accuracy, fine), performance=[later]
    )
    assert (first.kind, first.incident, first.version) == ("anomaly", "anomaly since 2026-01-01T05", "3")
    assert first.subject == f"{toy.name}: accuracy, rows unusual in {TODAY.key}"
    assert "rows is 9, expected 1, allowed 0.5 to 2" in first.text and "Ask the source" in first.text
    assert second.incident == "anomaly since 2026-01-01T07"
    assert list(of_monitoring(pipeline, decision(), toy.profile, found=found_of(toy, fine))) == []


def test_lost_predictions_are_told_once_a_partition_also_if_serving_knew_late(toy: Toy) -> None:
    pipeline, store = hourly(toy), Store(toy.profile.store_uri, toy.name)
    before = partition_at("hour", TODAY.start - timedelta(hours=1))
    answer(store, TODAY, [0.1] * 4)
    lose(store, TODAY, 2)
    (told,) = of_monitoring(pipeline, decision(), toy.profile, found=found_of(toy))
    assert (told.kind, told.incident) == ("anomaly", f"predictions lost in {TODAY.key}")
    assert told.subject.endswith(f"2 predictions of {TODAY.key} were not captured")
    assert told.text.startswith("8 of 10 predictions captured. See why")
    lose(store, before, 5)
    lose(store, partition_at("hour", TODAY.end), 5)  # is told by the run that it is about
    incidents = [one.incident for one in of_monitoring(pipeline, decision(), toy.profile, found=found_of(toy))]
    assert incidents == [f"predictions lost in {before.key}", f"predictions lost in {TODAY.key}"]


def test_a_key_figure_is_unusual_since_the_first_window_in_a_row(toy: Toy) -> None:
    start = TODAY.start.replace(hour=0) - timedelta(days=30)
    pipeline, store = toy.pipeline(partition="day", start=start.isoformat()), Store(toy.profile.store_uri, toy.name)
    days = [partition_at("day", start + timedelta(days=number)) for number in range(24)]
    history = pa.table({"kpi": ["rows"] * 20, "value": [100.0, 101.0] * 10, "scale": ["amount"] * 20})
    store.append("kpis", [day.key for day in days[:20]], history.append_column("rows", pa.array([1] * 20, pa.int64())))
    for number, rows, since in ((20, 100, ""), (21, 900, days[21].key), (22, 900, days[21].key), (23, 100, "")):
        (found, *_) = watch(pipeline, days[number], Window(rows, {}, "binary", None), store)
        assert (found.kpi, found.alarm, found.since) == ("rows", bool(since), since)


def test_performance_is_a_key_figure_of_each_partition_that_was_measured(toy: Toy) -> None:
    start = TODAY.start.replace(hour=0) - timedelta(days=30)
    pipeline, store = toy.pipeline(partition="day", start=start.isoformat()), Store(toy.profile.store_uri, toy.name)
    days = [partition_at("day", start + timedelta(days=number)) for number in range(23)]
    values = [0.85, 0.86] * 10 + [0.6, 0.59, 0.85]
    table = pd.DataFrame({"metric": "roc_auc", "value": values, "rows": 500})
    store.append("metrics", [day.key for day in days], pa.Table.from_pandas(table, preserve_index=False))

    def measured(number: int) -> Performance:
        known = Labels(
            partition=days[number].key, predicted=500, known=500, wrong_keys=0, contradicted=0, digest="", features=1,
            enough=0.8, due=None,
        )  # fmt: skip
        return Performance(version="3", labels=known, metrics={"roc_auc": values[number]}, table=None)

    found = performance_kpis(pipeline, [measured(number) for number in (20, 21, 22)], store)
    assert [(one.kpi, one.alarm, one.since) for one in found] == [
        ("performance", True, days[20].key),
        ("performance", True, days[20].key),
        ("performance", False, ""),
    ]
    assert "performance is 0.6, expected 0.85" in found[0].reason and found[0].remedy
    nothing = measured(20).model_copy(update={"metrics": {}})
    assert performance_kpis(pipeline, [nothing], store) == []
