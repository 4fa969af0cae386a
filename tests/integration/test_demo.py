"""What `make demo` does with a year of flights, with two weeks of a small pipeline."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from rich.console import Console

from airworthy import report
from airworthy.airflow_api import AirflowApi
from airworthy.config import load_pipeline
from airworthy.demo import Replay, show_trainings
from airworthy.profile import load_profile

LAST = datetime(2026, 1, 12, tzinfo=UTC)
SHIFTED = datetime(2026, 2, 2, tzinfo=UTC)


def test_a_replay_tells_what_happened(airflow: AirflowApi, stack, config_dir, monkeypatch) -> None:
    monkeypatch.syspath_prepend(stack.environment["PYTHONPATH"])
    pipeline = load_pipeline(config_dir / "pipelines" / "replayed.yaml")
    console = Console(record=True, width=80)
    replay = Replay(pipeline, airflow, console)
    replay.backfill(LAST)
    replay.backfill(LAST)  # as a demo does that was ended before it was done
    airflow.wait("replayed.ingest", airflow.trigger("replayed.ingest", partition=f"{SHIFTED:%Y-%m-%d}"))
    replay.wait_for_partitions(LAST + timedelta(days=1))
    replay.train(datetime(2026, 1, 11, tzinfo=UTC))
    for partition in (LAST, SHIFTED):
        replay.monitor(partition + timedelta(days=8))
    found = report.history(pipeline, load_profile(stack.environment))
    show_trainings(found, console)

    told = console.export_text()
    assert "backfill of replayed.ingest, 2026-01-01 to 2026-01-12, goes on" in told
    assert "train as of 2026-01-11: promoted as version 1" in told
    assert "monitor 2026-01-12: no retrain needed" in told
    assert re.search(r"monitor 2026-02-02: retrain requested, prediction is 1\.\d\d from training", told)
    assert "train as of 2026-02-03, as requested: " in told
    first, second = (line for line in told.splitlines() if re.match(r" ?2026-\d\d-\d\d +0\.", line))
    assert "2026-01-11" in first and "version 1" in first
    assert "2026-02-03" in second
    assert list(found.scores["champion"].notna()) == [True, True]
