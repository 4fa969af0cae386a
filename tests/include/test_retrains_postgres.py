"""The record of retrains on a real PostgreSQL, where runs of several partitions decide at once."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from threading import Barrier

import pytest
import sqlalchemy as sa

from airworthy.retrains import Decision, Retrains
from test_retrains import days, found, policy

AT_ONCE = 8


def decide_at_once(url: str, pipeline: str, chosen: list[int], **rule: object) -> list[Decision]:
    start = Barrier(len(chosen))

    def decide(number: int) -> Decision:
        start.wait(timeout=30)
        champion = {"version": str(number), "champion": str(number)}
        findings = found(chosen[number], pipeline=pipeline, actor=f"run {number}", **champion)
        return Retrains(url).decide(findings, policy(**rule))

    with ThreadPoolExecutor(len(chosen)) as pool:
        return list(pool.map(decide, range(len(chosen))))


def test_an_oscillation_of_runs_at_once_requests_at_most_the_budget(postgres_url: str) -> None:
    """The first of them all makes the table, too."""
    for first in (1, 1 + AT_ONCE):
        decide_at_once(postgres_url, "oscillating", list(range(first, first + AT_ONCE)), budget=3)
    kept = Retrains(postgres_url).decisions("oscillating")
    assert [one.sequence for one in kept] == list(range(1, 1 + 2 * AT_ONCE))
    assert sum(one.retrain for one in kept) == 3


def test_cooldown_holds_between_runs_at_once(postgres_url: str) -> None:
    decide_at_once(postgres_url, "cooling", list(range(1, 1 + AT_ONCE)), cooldown="3 days")
    made = sorted(days(Retrains(postgres_url).decisions("cooling")))
    assert made and all(later - earlier >= 3 for earlier, later in itertools.pairwise(made))


def test_debounce_holds_between_runs_at_once(postgres_url: str) -> None:
    """Each run sees the partitions that others have decided by then: none is requested without two held before it."""
    decide_at_once(postgres_url, "bouncing", list(range(1, 1 + AT_ONCE)), debounce=3)
    kept = Retrains(postgres_url).decisions("bouncing")
    assert len(kept) == AT_ONCE
    for number, one in enumerate(kept):
        before = {earlier.partition for earlier in kept[:number]}
        wanted = {f"{one.as_of - timedelta(days=days):%Y-%m-%d}" for days in (2, 3)}
        assert not one.retrain or wanted <= before
    assert Retrains(postgres_url).decide(found(20, pipeline="bouncing"), policy(debounce=3)).action == "hold"


def test_limits_hold_between_processes(postgres_url: str) -> None:
    """As many runs as on a busy scheduler, each in a process of its own, and backfills that only look."""
    program = """
import sys
from airworthy.retrains import Retrains
from test_retrains import found, policy
url, number = sys.argv[1], int(sys.argv[2])
findings = found(number, pipeline="processes", version=str(number), champion=str(number))
rule = policy(budget=2, cooldown="2 days")
print(Retrains(url).preview(findings, rule).action, Retrains(url).decide(findings, rule).action)
"""
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program, postgres_url, str(day)], env={**os.environ, "PYTHONPATH": path}
        )
        for day in range(1, 7)
    ]
    assert [process.wait(timeout=120) for process in started] == [0] * 6
    kept = Retrains(postgres_url).decisions("processes")
    assert [one.sequence for one in kept] == [*range(1, 7)]
    made = sorted(days(kept))
    assert len(made) == 2 and made[1] - made[0] >= 2


def test_runs_of_one_partition_at_once_make_one_request_that_one_of_them_owns(postgres_url: str) -> None:
    start = Barrier(AT_ONCE)

    def decide(number: int) -> Decision:
        start.wait(timeout=30)
        return Retrains(postgres_url).decide(found(1, pipeline="same", actor=f"run {number}"), policy())

    with ThreadPoolExecutor(AT_ONCE) as pool:
        made = list(pool.map(decide, range(AT_ONCE)))
    (kept,) = Retrains(postgres_url).decisions("same")
    assert made == [kept] * AT_ONCE and kept.retrain


def test_the_table_refuses_changes(postgres_url: str) -> None:
    Retrains(postgres_url).decide(found(1, pipeline="guarded"), policy())
    for statement in ("UPDATE retrains SET action = 'quiet'", "DELETE FROM retrains", "TRUNCATE retrains"):
        with (
            pytest.raises(sa.exc.DBAPIError, match="the record of retrains is append-only"),
            sa.create_engine(postgres_url).begin() as open_,
        ):
            open_.execute(sa.text(statement))
    assert len(Retrains(postgres_url).decisions("guarded")) == 1
