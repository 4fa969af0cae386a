"""What a planted past of findings leads to: requests within every limit, and none that goes in circles."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from airworthy.partitions import partition_at
from airworthy.retrain import Retrain
from airworthy.retrains import Decision, Findings, Retrains, decided, run, table

START = datetime(2026, 1, 1, tzinfo=UTC)
DAYS = 180


@pytest.fixture
def retrains(tmp_path: Path) -> Retrains:
    return Retrains(f"sqlite:///{tmp_path}/ledger.db")


def found(day: int, *causes: str, **changes: Any) -> Findings:
    """Returns what is found about a day: the prediction drifts, or what `causes` say."""
    partition = partition_at("day", START + timedelta(days=day))
    return Findings(
        **{
            "pipeline": "toy",
            "partition": partition.key,
            "as_of": partition.end,
            "causes": causes or ("drift",),
            "reason": f"the prediction of day {day} is off",
            "version": "1",
            "champion": "1",
            "champion_as_of": START,
            "actor": f"run {day}",
            **changes,
        }
    )


def calm(day: int, **changes: Any) -> Findings:
    return found(day, causes=(), reason="nothing has drifted", **changes)


def days(decisions: Sequence[Decision]) -> list[int]:
    return [(one.as_of - START).days - 1 for one in decisions if one.retrain]


def policy(**keys: Any) -> Retrain:
    return Retrain.model_validate({"cooldown": "1 day", "budget": 1_000, **keys})


def decide_all(findings: Iterable[Findings], rule: Retrain, before: Sequence[Decision] = ()) -> list[Decision]:
    """Returns all rows of the record after these findings."""
    rows = list(before)
    for one in findings:
        made = decided(one, rows, rule)
        assert made.sequence == len(rows) + 1
        rows.append(made)
    return rows


def test_what_asks_is_requested_once_and_the_same_findings_again_are_the_same_decision(retrains: Retrains) -> None:
    first = retrains.decide(found(3), policy())
    assert (first.action, first.sequence, first.reason) == ("request", 1, "the prediction of day 3 is off")
    assert retrains.decide(found(3, actor="another run", as_of=START + timedelta(days=9)), policy()) == first
    assert retrains.decide(calm(4), policy()).action == "quiet"
    assert [one.sequence for one in retrains.decisions("toy")] == [1, 2]
    assert retrains.decisions("other") == []


def test_a_preview_leaves_nothing(retrains: Retrains) -> None:
    assert retrains.preview(found(3), policy()).retrain
    assert retrains.decisions("toy") == []


@pytest.mark.parametrize(
    ("pattern", "debounce", "requested"),
    [
        ("1111111", 1, 0),
        ("1111111", 3, 2),
        ("0110111", 3, 6),
        ("1010101", 2, None),
        ("1101101", 2, 1),
    ],
)
def test_debounce_wants_so_many_partitions_in_a_row(pattern: str, debounce: int, requested: int | None) -> None:
    findings = [found(day) if asks == "1" else calm(day) for day, asks in enumerate(pattern, start=1)]
    made = days(decide_all(findings, policy(debounce=debounce)))
    assert made[:1] == ([] if requested is None else [requested + 1])


def test_the_count_begins_anew_after_a_request_and_with_another_champion() -> None:
    rule = policy(debounce=2)
    rows = decide_all([found(1), found(2), found(3)], rule)
    assert days(rows) == [2]
    held = decided(found(4, version="2", champion="2", champion_as_of=START + timedelta(days=3)), rows, rule)
    assert held.reason.endswith("held back: 1 of 2 partitions in a row ask")


def test_a_count_of_rows_needs_no_second_partition(retrains: Retrains) -> None:
    assert retrains.decide(found(1, "volume"), policy(debounce=5)).retrain
    assert retrains.decide(found(9, "drift", "volume"), policy(debounce=5)).retrain


def test_cooldown_counts_from_trainings_of_any_cause_and_from_requests(retrains: Retrains) -> None:
    rule = policy(cooldown="7 days")
    began = retrains.began("toy", "schedule", START + timedelta(days=10), "scheduled run")
    assert retrains.began("toy", "schedule", START + timedelta(days=10), "scheduled run") == began
    findings = [found(day, champion=str(day), version=str(day)) for day in range(12, 30)]  # each brings a champion
    rows = decide_all(findings, rule, retrains.decisions("toy"))
    assert days(rows) == [16, 23]
    reasons = [one.reason for one in rows]
    assert reasons[1].endswith("held back: it is less than 7 days from the training as of 2026-01-11 00:00")
    assert reasons[7].endswith("held back: it is less than 7 days from the request as of 2026-01-18 00:00")
    assert not decided(found(11), rows, rule).retrain  # the one that is late is close to a later training, too


def test_a_drift_that_no_retrain_ends_asks_ever_more_rarely() -> None:
    """The champion survives every request: each doubles the time to the next."""
    rows = decide_all([found(day) for day in range(1, DAYS)], policy(cooldown="2 days"))
    made = days(rows)
    gaps = [later - earlier for earlier, later in itertools.pairwise(made)]
    assert gaps == [4, 8, 16, 32, 64]
    last = rows[-1].reason
    request = f"{START + timedelta(days=made[-1] + 1):%Y-%m-%d %H:%M}"
    assert last.endswith(f"it is less than 128 days from the request as of {request}, as version 1 has survived 6")


def test_a_new_champion_lowers_the_bar_and_a_rollback_raises_it_again() -> None:
    rule = policy(cooldown="2 days")
    rows = decide_all([found(day) for day in range(1, 14)], rule)
    assert days(rows) == [1, 5, 13]
    second = {"version": "2", "champion": "2", "champion_as_of": START + timedelta(days=14)}
    rows = decide_all([found(day, **second) for day in range(14, 18)], rule, rows)
    assert days(rows) == [1, 5, 13, 15]
    rows = decide_all([found(day) for day in range(18, 40)], rule, rows)
    assert days(rows) == [1, 5, 13, 15, 31]  # version 1 has survived three requests by then


@pytest.mark.parametrize("budget", [0, 1, 3])
def test_an_oscillation_never_exceeds_the_budget_of_a_month(budget: int) -> None:
    """Every retrain brings a champion, and every other day drifts: nothing but the budget holds it back."""
    findings = [
        found(day, version=str(day), champion=str(day)) if day % 2 else calm(day, version=str(day), champion=str(day))
        for day in range(1, DAYS)
    ]
    made = decide_all(findings, policy(budget=budget))
    by_month = Counter(f"{one.as_of:%Y-%m}" for one in made if one.retrain)
    assert dict(by_month) == ({f"2026-{month:02}": budget for month in range(1, 7)} if budget else {})
    assert any(one.reason.endswith(f"{budget} of {budget} requests were made in 2026-06") for one in made)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"champion": "2"}, "it is about version 1, and version 2 is champion"),
        (
            {"champion_as_of": START + timedelta(days=5)},
            "version 1 knows all that is known as of 2026-01-05 00:00",
        ),
    ],
)
def test_findings_that_the_champion_has_outlived_ask_in_vain(changes: dict[str, Any], reason: str) -> None:
    decision = decided(found(3, **changes), [], policy())
    assert (decision.action, decision.reason.rpartition("held back: ")[2]) == ("hold", reason)


@pytest.mark.parametrize("order", [sorted, lambda days: sorted(days, reverse=True)], ids=["in order", "backwards"])
def test_limits_hold_in_whatever_order_runs_finish(
    order: Callable[[Sequence[int]], list[int]],
) -> None:
    rule = policy(cooldown="3 days", budget=4)
    findings = [found(day, version=str(day), champion=str(day)) for day in order(range(1, 60))]
    made = sorted(days(decide_all(findings, rule)))
    assert all(later - earlier >= 3 for earlier, later in itertools.pairwise(made))
    assert max(Counter(f"{START + timedelta(days=day + 1):%Y-%m}" for day in made).values()) == 4


def test_people_read_what_was_decided(retrains: Retrains) -> None:
    retrains.decide(found(1), policy())
    retrains.decide(calm(2), policy())
    retrains.began("toy", "person", START + timedelta(days=9), "manual run")
    assert table(retrains.decisions("toy")) == [
        ("2026-01-03 00:00", "2026-01-02", "request", "drift", "1", "the prediction of day 1 is off"),
        ("2026-01-04 00:00", "2026-01-03", "quiet", "", "1", "nothing has drifted"),
        ("2026-01-10 00:00", "", "train", "person", "", "manual run"),
    ]


def test_the_command_shows_what_asked_and_on_demand_the_quiet_ones(retrains: Retrains, tmp_path: Path) -> None:
    retrains.decide(found(1), policy())
    retrains.decide(calm(2), policy())
    names = ("LEDGER_URL", "SERVING_URL", "AIRFLOW_URL")
    environment = {f"AIRWORTHY_{name}": f"sqlite:///{tmp_path}/ledger.db" for name in names}
    environment["MLFLOW_TRACKING_URI"] = ""

    def shown(*, quiet: bool) -> list[str]:
        told: list[str] = []
        run("toy", environment, told.append, quiet=quiet)
        return [line.split()[3] for line in told[1:]]

    assert shown(quiet=False) == ["request"]
    assert shown(quiet=True) == ["request", "quiet"]


def test_the_same_key_is_kept_once_whatever_writes_it(retrains: Retrains, tmp_path: Path) -> None:
    made = retrains.decide(found(1), policy())
    twice = sa.text(
        "INSERT INTO retrains SELECT pipeline, 2, at, key, partition, as_of, cause, action, reason, "
        "version, champion, actor FROM retrains"
    )
    with pytest.raises(sa.exc.IntegrityError), sa.create_engine(f"sqlite:///{tmp_path}/ledger.db").begin() as open_:
        open_.execute(twice)
    assert retrains.decisions("toy") == [made]
