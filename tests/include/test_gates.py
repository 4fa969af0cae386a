from __future__ import annotations

import re
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest

from airworthy.case import Case
from airworthy.evidence import Evidence, Measured, Metric, Scores
from airworthy.gates import Gate, gather_all, judge_all
from airworthy.gates.beats_champion import BeatsChampion
from airworthy.gates.metric_floor import MetricFloor
from airworthy.gates.servable import Servable
from airworthy.metrics import score_all
from airworthy.stages.evidence_files import from_files, to_files
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


@pytest.mark.parametrize("metric", ["roc_auc", "average_precision", "log_loss", "accuracy"])
def test_a_floor_lets_pass_what_surely_reaches_it(metric: Metric) -> None:
    evidence = flights()
    found = MetricFloor(metric=metric, floor=0.0).judge(evidence).evidence
    assert found["value"] == pytest.approx(evidence.challenger.metrics[metric])
    assert found["lower"] < found["value"] < found["upper"]
    sure, unsure = ("upper", "lower") if metric == "log_loss" else ("lower", "upper")
    assert MetricFloor(metric=metric, floor=found[sure]).judge(evidence).passed
    for floor in (found["value"], found[unsure]):
        assert MetricFloor(metric=metric, floor=floor).judge(evidence).status == "failed"


def test_a_floor_prints_its_interval() -> None:
    verdict = MetricFloor(metric="roc_auc", floor=0.8, confidence=0.95).judge(flights())
    assert re.fullmatch(
        r"roc_auc 0\.7\d\d \[0\.7\d\d, 0\.7\d\d\] at 95 % is not surely at least 0\.800", verdict.reason
    )
    assert verdict.evidence["days"] == DAYS


def test_one_day_reaches_no_floor() -> None:
    evidence = replace(flights(), block=np.zeros(DAYS * ROWS_A_DAY, int))
    verdict = MetricFloor(metric="roc_auc", floor=0.1).judge(evidence)
    assert verdict.status == "failed"
    assert verdict.reason.endswith("is not known for sure from one day")


def test_a_floor_on_an_unmeasured_metric_refuses() -> None:
    assert MetricFloor(metric="rmse", floor=1e9).judge(flights()).status == "failed"


def test_nan_is_not_above_any_floor() -> None:
    evidence = flights()
    broken = replace(evidence, challenger=replace(evidence.challenger, prediction=np.full(DAYS * ROWS_A_DAY, np.nan)))
    assert not MetricFloor(metric="log_loss", floor=9.0).judge(broken).passed


def test_the_first_challenger_has_nobody_to_beat() -> None:
    verdict = BeatsChampion(confidence=0.9).judge(replace(flights(), has_champion=False, champion=None))
    assert verdict.passed
    assert verdict.reason == "there is no champion yet"


def test_a_champion_that_could_not_be_scored_blocks() -> None:
    verdict = BeatsChampion(confidence=0.9).judge(
        replace(flights(), champion=None, champion_error="its file is damaged")
    )
    assert verdict.status == "failed"
    assert "its file is damaged" in verdict.reason


def test_identical_predictions_gain_exactly_nothing() -> None:
    verdict = BeatsChampion(confidence=0.9).judge(flights(better_by=0.0))
    assert verdict.status == "failed"
    assert (verdict.evidence["gain"], verdict.evidence["lower"], verdict.evidence["upper"]) == (0.0, 0.0, 0.0)
    assert verdict.reason == "roc_auc gain 0.0000 [0.0000, 0.0000] at 90 % is not surely above zero"


@pytest.mark.parametrize("days", [2, 3])
def test_the_same_gain_on_all_of_a_few_days_does_not_tell_chance(days: int) -> None:
    block = np.repeat(np.arange(days), 49)
    label = np.zeros(len(block), int)
    right = [np.arange(len(block)) % 49 >= wrong for wrong in (10, 13)]
    mine, theirs = (np.where(one, 0.1, 0.9) for one in right)
    models = [Scores(version, one, {"accuracy": 1.0}) for version, one in (("", mine), ("3", theirs))]
    evidence = Evidence("binary", "accuracy", label, block, models[0], True, models[1])
    verdict = BeatsChampion(confidence=0.999).judge(evidence)
    assert verdict.status == "failed"
    assert verdict.reason == f"accuracy gain 0.0612 is the same on all of {days} days, so chance cannot be told"


def test_a_clear_gain_passes_and_less_than_the_margin_does_not() -> None:
    evidence = flights(better_by=0.5)
    verdict = BeatsChampion(margin=0.005, confidence=0.9).judge(evidence)
    assert verdict.passed
    assert verdict.evidence["lower"] > 0
    assert verdict.reason.endswith("at 90 % is above the margin 0.005")
    refused = BeatsChampion(margin=0.5, confidence=0.9).judge(evidence)
    assert refused.status == "failed"
    assert refused.reason.endswith("is below the margin 0.5")


def test_a_loss_is_refused_also_where_lower_is_better() -> None:
    better = flights(better_by=0.5)
    worse = replace(better, challenger=better.champion, champion=better.challenger)
    for metric in ("roc_auc", "average_precision", "log_loss", "accuracy"):
        gate = BeatsChampion(metric=metric, confidence=0.9)
        assert gate.judge(worse).evidence["gain"] == pytest.approx(-gate.judge(better).evidence["gain"])
        assert gate.judge(worse).status == "failed"
    assert BeatsChampion(metric="average_precision", confidence=0.9).judge(better).passed


def test_rows_of_one_day_count_as_one() -> None:
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
    once, four_times = (BeatsChampion(confidence=0.9).judge(found).evidence for found in (evidence, more))
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
        passed += BeatsChampion(confidence=0.9).judge(evidence).passed
    assert 8 <= passed <= 36


def test_a_holdout_of_one_day_proves_nothing() -> None:
    evidence = flights(better_by=0.5)
    verdict = BeatsChampion(confidence=0.9).judge(replace(evidence, block=np.zeros(len(evidence.label), dtype=int)))
    assert verdict.status == "failed"
    assert verdict.reason.endswith("is not known from one day")


def with_gathered(evidence: Evidence, found: dict[Gate, dict]) -> Evidence:
    return replace(evidence, gathered={gate.declaration: numbers for gate, numbers in found.items()})


@pytest.mark.parametrize(
    ("measured", "status", "words"),
    [
        (Measured(50, 0.0, 0.2), "passed", "50 recorded requests"),
        (Measured(50, 1e-3, 0.2), "failed", "off by up to 0.001 where 1e-06 is allowed"),
        (Measured(50, float("nan"), 0.2), "failed", ""),
        (Measured(0, 0.0, 0.0), "failed", "0 recorded requests"),
        (Measured(0, 0.0, 0.0, "the file is damaged"), "failed", "could not answer: the file is damaged"),
    ],
)
def test_servable(measured: Measured, status: str, words: str) -> None:
    gate = Servable()
    verdict = gate.judge(with_gathered(flights(), {gate: asdict(measured)}))
    assert verdict.status == status
    assert words in verdict.reason


class Breaks(Gate):
    def judge(self, evidence: Evidence) -> Verdict:
        raise ZeroDivisionError("no rows")


class CannotGather(Gate):
    def gather(self, case: Case) -> dict:
        raise KeyError("temp")

    def judge(self, evidence: Evidence) -> Verdict:
        return self.verdict(True, "never looked")


def test_a_gate_that_crashes_is_an_error_and_blocks_even_if_it_only_warns() -> None:
    gates = (Breaks(on_fail="warn"), MetricFloor(metric="roc_auc", floor=0.1))
    verdicts = judge_all(gates, with_gathered(flights(), {gate: {} for gate in gates}))
    assert [verdict.status for verdict in verdicts] == ["error", "passed"]
    assert verdicts[0].reason == "ZeroDivisionError: no rows"
    assert verdicts[0].blocks


def test_evidence_that_could_not_be_gathered_is_an_error_of_that_gate_alone() -> None:
    gates = (CannotGather(on_fail="warn"), MetricFloor(metric="roc_auc", floor=0.1))
    verdicts = judge_all(gates, gather_all(gates, SimpleNamespace(evidence=flights())))
    assert [verdict.status for verdict in verdicts] == ["error", "passed"]
    assert "KeyError: 'temp'" in verdicts[0].reason
    assert verdicts[0].blocks


def test_a_gate_that_nothing_was_gathered_for_is_an_error() -> None:
    floor = MetricFloor(metric="roc_auc", floor=0.1)
    evidence = with_gathered(flights(), {floor: {}})
    assert judge_all([floor], evidence)[0].passed
    (verdict,) = judge_all([MetricFloor(metric="roc_auc", floor=0.2)], evidence)
    assert (verdict.status, verdict.blocks) == ("error", True)
    assert "evaluate again" in verdict.reason


def test_evidence_is_the_same_after_it_was_stored() -> None:
    gates = (MetricFloor(metric="roc_auc", floor=0.1), BeatsChampion(confidence=0.9))
    evidence = gather_all(gates, SimpleNamespace(evidence=flights()))
    files, digest = to_files(evidence)
    again = from_files(files)
    assert judge_all(gates, again) == judge_all(gates, evidence)
    assert to_files(again) == (files, digest)


@pytest.mark.parametrize(("on_fail", "blocks", "asks"), [("block", 1, 0), ("warn", 0, 0), ("ask", 0, 1)])
def test_what_becomes_of_a_failure_is_declared(on_fail: str, blocks: int, asks: int) -> None:
    verdict = MetricFloor(metric="roc_auc", floor=1.0, on_fail=on_fail).judge(flights())
    assert (verdict.blocks, verdict.asks) == (bool(blocks), bool(asks))
