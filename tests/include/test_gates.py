from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from airworthy.evidence import Evidence, Scores, Servable
from airworthy.gates import Gate, judge_all
from airworthy.gates.beats_champion import BeatsChampion
from airworthy.gates.metric_floor import MetricFloor
from airworthy.gates.servable import Servable as ServableGate
from airworthy.metrics import score_all
from airworthy.verdict import Verdict

DAYS, ROWS_A_DAY = 30, 40


def scores(task, label: np.ndarray, prediction: np.ndarray, version: str = "") -> Scores:
    return Scores(version, prediction, score_all(task, label, prediction))


def flights(seed: int = 0, better_by: float = 0.0) -> Evidence:
    """A binary holdout of 30 days; the challenger sees the truth more sharply than the champion by `better_by`."""
    rng = np.random.default_rng(seed)
    block = np.repeat(np.arange(DAYS), ROWS_A_DAY)
    label = rng.integers(0, 2, len(block))
    noise = rng.normal(0, 1, len(block))
    champion, challenger = (1 / (1 + np.exp(-(sharp * label + noise))) for sharp in (1.0, 1.0 + better_by))
    return Evidence(
        task="binary",
        metric="roc_auc",
        label=label,
        block=block,
        challenger=scores("binary", label, challenger),
        has_champion=True,
        champion=scores("binary", label, champion, "3"),
    )


def test_a_floor_lets_pass_what_reaches_it() -> None:
    evidence = flights()
    value = evidence.challenger.metrics["roc_auc"]
    assert MetricFloor(metric="roc_auc", floor=value).judge(evidence).passed


def test_a_floor_refuses_what_is_below_it_with_the_numbers() -> None:
    evidence = replace(flights(), challenger=Scores("", np.array([]), {"roc_auc": 0.6654}))
    verdict = MetricFloor(metric="roc_auc", floor=0.7).judge(evidence)
    assert verdict.status == "failed"
    assert verdict.reason == "roc_auc 0.665 is below the floor 0.700"
    assert verdict.evidence == {"value": 0.6654}


@pytest.mark.parametrize(("floor", "passed", "words"), [(0.5, True, "not above"), (0.4, False, "is above")])
def test_a_floor_is_a_ceiling_where_lower_is_better(floor: float, passed: bool, words: str) -> None:
    evidence = replace(flights(), challenger=Scores("", np.array([]), {"log_loss": 0.45}))
    verdict = MetricFloor(metric="log_loss", floor=floor).judge(evidence)
    assert verdict.passed is passed
    assert f"{words} the ceiling" in verdict.reason


def test_a_floor_on_an_unmeasured_metric_refuses() -> None:
    assert MetricFloor(metric="rmse", floor=1e9).judge(flights()).status == "failed"


def test_nan_is_not_above_any_floor() -> None:
    evidence = replace(flights(), challenger=Scores("", np.array([]), {"roc_auc": float("nan")}))
    assert not MetricFloor(metric="roc_auc", floor=0.0).judge(evidence).passed


def test_the_first_challenger_has_nobody_to_beat() -> None:
    verdict = BeatsChampion().judge(replace(flights(), has_champion=False, champion=None))
    assert verdict.passed
    assert verdict.reason == "there is no champion yet"


def test_a_champion_that_could_not_be_scored_blocks() -> None:
    verdict = BeatsChampion().judge(replace(flights(), champion=None, champion_error="its file is damaged"))
    assert verdict.status == "failed"
    assert "its file is damaged" in verdict.reason


def test_identical_predictions_gain_exactly_nothing() -> None:
    verdict = BeatsChampion().judge(flights(better_by=0.0))
    assert verdict.status == "failed"
    assert (verdict.evidence["gain"], verdict.evidence["lower"], verdict.evidence["upper"]) == (0.0, 0.0, 0.0)
    assert verdict.reason == "roc_auc gain 0.0000 [0.0000, 0.0000] at 90 % is not surely above zero"


def test_a_clear_gain_passes_and_less_than_the_margin_does_not() -> None:
    evidence = flights(better_by=0.5)
    verdict = BeatsChampion(margin=0.005).judge(evidence)
    assert verdict.passed
    assert verdict.evidence["lower"] > 0
    assert verdict.reason.endswith("at 90 % is above the margin 0.005")
    refused = BeatsChampion(margin=0.5).judge(evidence)
    assert refused.status == "failed"
    assert refused.reason.endswith("is below the margin 0.5")


def test_a_loss_is_refused_also_where_lower_is_better() -> None:
    better = flights(better_by=0.5)
    worse = replace(better, challenger=better.champion, champion=better.challenger)
    for metric in ("roc_auc", "average_precision", "log_loss", "accuracy"):
        gate = BeatsChampion(metric=metric)
        assert gate.judge(worse).evidence["gain"] == pytest.approx(-gate.judge(better).evidence["gain"])
        assert gate.judge(worse).status == "failed"
    assert BeatsChampion(metric="average_precision").judge(better).passed


def test_the_same_evidence_gets_the_same_verdict() -> None:
    evidence = flights(better_by=0.2)
    assert BeatsChampion(seed=4).judge(evidence) == BeatsChampion(seed=4).judge(evidence)
    assert BeatsChampion(seed=4).judge(evidence) != BeatsChampion(seed=5).judge(evidence)


def test_days_are_drawn_whole() -> None:
    """Copying each day's rows adds no information about other days, so the interval must not shrink."""
    evidence = flights(better_by=0.2)
    assert evidence.champion is not None
    copies = np.tile(np.arange(len(evidence.label)), 4)
    label = evidence.label[copies]
    more = replace(
        evidence,
        label=label,
        block=evidence.block[copies],
        challenger=scores("binary", label, evidence.challenger.prediction[copies]),
        champion=scores("binary", label, evidence.champion.prediction[copies]),
    )
    once, four_times = (BeatsChampion().judge(found).evidence for found in (evidence, more))
    assert four_times["lower"] == pytest.approx(once["lower"], abs=1e-12)
    assert four_times["upper"] == pytest.approx(once["upper"], abs=1e-12)


def test_luck_on_whole_days_seldom_promotes() -> None:
    """Two equally good models, one luckier on some days: at 90 % about one in ten may pass, not one in two.

    Rows drawn one by one would take a lucky day for forty independent successes.
    """
    block = np.repeat(np.arange(DAYS), ROWS_A_DAY)
    truth = np.zeros(len(block))
    passed = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        # The error of a day is shared by all its rows; both models' errors come from one distribution.
        mine, theirs = (rng.normal(0, 1, DAYS)[block] + rng.normal(0, 0.1, len(block)) for _ in range(2))
        evidence = Evidence(
            task="regression",
            metric="mae",
            label=truth,
            block=block,
            challenger=scores("regression", truth, mine),
            has_champion=True,
            champion=scores("regression", truth, theirs),
        )
        passed += BeatsChampion(resamples=200, seed=seed).judge(evidence).passed
    assert 8 <= passed <= 36


def test_a_holdout_of_one_day_proves_nothing() -> None:
    evidence = flights(better_by=0.5)
    verdict = BeatsChampion().judge(replace(evidence, block=np.zeros(len(evidence.label), dtype=int)))
    assert verdict.status == "failed"
    assert verdict.reason.endswith("is not known from one day")


@pytest.mark.parametrize(
    ("servable", "status", "words"),
    [
        (None, "failed", "no process has tried"),
        (Servable(50, 0.0, 0.2), "passed", "50 recorded requests"),
        (Servable(50, 1e-3, 0.2), "failed", "off by up to 0.001 where 1e-06 is allowed"),
        (Servable(50, float("nan"), 0.2), "failed", ""),
        (Servable(0, 0.0, 0.0), "failed", "0 recorded requests"),
        (Servable(0, 0.0, 0.0, "the file is damaged"), "failed", "could not answer: the file is damaged"),
    ],
)
def test_servable(servable: Servable | None, status: str, words: str) -> None:
    verdict = ServableGate().judge(replace(flights(), servable=servable))
    assert verdict.status == status
    assert words in verdict.reason


class Breaks(Gate):
    def judge(self, evidence: Evidence) -> Verdict:
        raise ZeroDivisionError("no rows")


def test_a_gate_that_crashes_is_an_error_and_blocks_even_if_it_only_warns() -> None:
    verdicts = judge_all((Breaks(on_fail="warn"), MetricFloor(metric="roc_auc", floor=0.1)), flights())
    assert [verdict.status for verdict in verdicts] == ["error", "passed"]
    assert verdicts[0].reason == "ZeroDivisionError: no rows"
    assert verdicts[0].blocks


def test_a_failed_gate_that_warns_does_not_block() -> None:
    verdict = MetricFloor(metric="roc_auc", floor=1.0, on_fail="warn").judge(flights())
    assert (verdict.passed, verdict.blocks) == (False, False)
