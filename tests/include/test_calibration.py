"""`calibration` where it is known what is calibrated: days share their luck, so that their rows are not independent."""

from __future__ import annotations

import numpy as np
import pytest

from airworthy.evidence import Evidence, Scores, Task
from airworthy.gates.calibration import Calibration


def logistic(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


def evidence(task: Task, label: np.ndarray, prediction: np.ndarray, block: np.ndarray) -> Evidence:
    classes = ("low", "middle", "high") if task == "multiclass" else ()
    return Evidence(task, "log_loss", label, block, Scores("", prediction, {}), False, classes=classes)


def binary(seed: int, rate: float = 0.25, shift: float = 0.0, sharpen: float = 1.0, days: int = 30) -> Evidence:
    """Returns predictions that are true on average over days, then shifted and sharpened on the log-odds."""
    rng = np.random.default_rng(seed)
    block = np.repeat(np.arange(days), 200)
    logit = np.log(rate / (1 - rate)) + rng.normal(0, 1, len(block))
    label = (rng.random(len(block)) < logistic(logit + rng.normal(0, 0.3, days)[block])).astype(int)
    return evidence("binary", label, logistic(sharpen * logit + shift), block)


def multiclass(seed: int, shift: float = 0.0) -> Evidence:
    rng = np.random.default_rng(seed)
    block = np.repeat(np.arange(30), 100)
    logit = rng.normal(0, 1, (len(block), 3))
    label = (logit + rng.gumbel(size=logit.shape)).argmax(axis=1)
    likely = np.exp(logit + np.array([0, 0, shift]))
    return evidence("multiclass", label, likely / likely.sum(axis=1, keepdims=True), block)


def regression(seed: int, shift: float = 0.0) -> Evidence:
    rng = np.random.default_rng(seed)
    block = np.repeat(np.arange(30), 100)
    truth = rng.normal(100, 2, len(block))
    label = truth + rng.normal(0, 1, len(block)) + rng.normal(0, 0.5, 30)[block]
    return evidence("regression", label, truth + shift, block)


@pytest.mark.parametrize("rate", [0.5, 0.25, 0.02])
def test_a_calibrated_model_passes(rate: float) -> None:
    passed = [Calibration().judge(binary(seed, rate)).passed for seed in range(50)]
    assert all(passed)


@pytest.mark.parametrize("make", [multiclass, regression])
def test_a_calibrated_model_of_another_task_passes(make) -> None:
    assert all(Calibration().judge(make(seed)).passed for seed in range(30))


@pytest.mark.parametrize(
    ("miscalibrated", "words"),
    [
        (lambda seed: binary(seed, shift=1.2), "the bias is surely beyond 0.1"),
        (lambda seed: binary(seed, rate=0.02, shift=1.5), "the bias is surely beyond 0.0"),
        (lambda seed: binary(seed, rate=0.5, sharpen=4.0), "the calibration error is surely beyond 0.1"),
        (lambda seed: multiclass(seed, shift=1.5), "bias of high +"),
        (lambda seed: multiclass(seed, shift=-1.5), "bias of high -"),
        (lambda seed: regression(seed, shift=1.5), "the bias is surely beyond 0.5"),
        (lambda seed: regression(seed, shift=-1.5), "the bias is surely beyond 0.5"),
    ],
)
def test_a_miscalibrated_model_is_stopped_by_name(miscalibrated, words: str) -> None:
    for seed in range(20):
        verdict = Calibration().judge(miscalibrated(seed))
        assert (verdict.gate, verdict.status, verdict.blocks) == ("calibration", "failed", True)
        assert words in verdict.reason


def test_what_bins_are_off_by_chance_is_taken_out() -> None:
    """The calibration error of a calibrated model is near zero, where bins of few rows alone say otherwise.

    Its lower bound is not exact there: it is above zero for three such models in ten, by a thousandth on average.
    """
    found = [Calibration().judge(binary(seed, days=10)).evidence for seed in range(100)]
    assert np.mean([numbers["calibration_error"] for numbers in found]) < 0.025
    assert np.mean([max(numbers["error_lower"], 0) for numbers in found]) < 0.003


@pytest.mark.parametrize("days", [10, 30, 90])
def test_a_calibration_error_at_the_tolerance_is_seldom_stopped(days: int) -> None:
    """What is allowed is what it truly is: at 90 % one in ten may be stopped."""
    many = [Calibration().judge(binary(1000 + seed, rate=0.5, sharpen=1.7, days=400)) for seed in range(20)]
    truth = float(np.mean([verdict.evidence["calibration_error"] for verdict in many]))
    gate = Calibration(tolerance=truth / 0.5)  # half the rows are positive
    verdicts = [gate.judge(binary(seed, rate=0.5, sharpen=1.7, days=days)) for seed in range(200)]
    stopped = np.mean(["the calibration error is surely beyond" in verdict.reason for verdict in verdicts])
    assert stopped <= 0.1 + 2.33 * (0.09 / 200) ** 0.5


def test_a_model_at_the_tolerance_is_seldom_stopped() -> None:
    """Its bias is truly what is allowed: at 90 % one in ten may be stopped."""
    stopped = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        block = np.repeat(np.arange(30), 50)
        label = rng.normal(0, 1, len(block)) + rng.normal(0, 0.3, 30)[block]
        shifted = np.full(len(label), 0.25 * np.sqrt(1.09))
        stopped += not Calibration().judge(evidence("regression", label, shifted, block)).passed
    assert stopped / 300 <= 0.1 + 2.33 * (0.09 / 300) ** 0.5


def rare(seed: int, share: float, sharpen: float = 1.0) -> Evidence:
    """Returns three classes, of which the last is rare; sharpened only between the first two."""
    rng = np.random.default_rng(seed)
    block = np.repeat(np.arange(30), 200)
    logit = rng.normal(0, 1, len(block))
    first = (1 - share) * logistic(logit)
    truth = np.stack([first, 1 - share - first, np.full(len(block), share)], axis=1)
    label = (rng.random((len(block), 1)) > truth.cumsum(axis=1)).sum(axis=1)
    first = (1 - share) * logistic(sharpen * logit)
    return evidence("multiclass", label, np.stack([first, 1 - share - first, truth[:, 2]], axis=1), block)


def test_a_rare_class_does_not_limit_the_calibration_error_of_the_likeliest() -> None:
    """Off by 0.05 is a tenth of the deviation of whether the likeliest class is right, and far more of the rare one."""
    for seed in range(20):
        verdict = Calibration().judge(rare(seed, share=0.003, sharpen=1.4))
        assert verdict.passed, verdict.reason
        assert verdict.evidence["error_lower"] > verdict.evidence["allowed"]
        assert verdict.evidence["error_allowed"] == pytest.approx(0.25 * 0.46, abs=0.02)


def test_a_class_without_rows_does_not_block() -> None:
    found = rare(5, share=0.0)
    answers = found.challenger.prediction * 0.9995 + np.array([0, 0, 0.0005])  # it is thought of, as it once was there
    verdict = Calibration().judge(evidence("multiclass", found.label, answers, found.block))
    assert verdict.passed, verdict.reason
    surely = found.challenger.prediction * 0.99 + np.array([0, 0, 0.01])
    assert not Calibration().judge(evidence("multiclass", found.label, surely, found.block)).passed


def test_one_day_proves_no_calibration() -> None:
    verdict = Calibration().judge(binary(1, days=1))
    assert verdict.status == "failed"
    assert "not known from one day" in verdict.reason


def test_a_constant_prediction_has_one_bin() -> None:
    found = binary(3)
    constant = np.full(len(found.label), found.label.mean())
    assert Calibration().judge(evidence("binary", found.label, constant, found.block)).passed
