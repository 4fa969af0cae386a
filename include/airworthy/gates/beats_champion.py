"""`beats_champion: {margin: 0.005, confidence: 0.9}`: better than the champion, and not by chance."""

from __future__ import annotations

from pydantic import Field

from airworthy.evidence import LOWER_IS_BETTER, Evidence, Metric
from airworthy.gates import Gate
from airworthy.verdict import Verdict


class BeatsChampion(Gate):
    """Passes a challenger that gains at least `margin` on the champion, with a gain surely above zero.

    Method: a paired bootstrap. Both models are scored on the same resamples of the holdout; whole days
    are drawn, because rows of one day share its weather and are not independent (Efron and Tibshirani,
    An Introduction to the Bootstrap, 1993, chapters 8 and 13). The gain's percentiles at
    `1 - confidence` and `confidence` are printed; the lower one must be above zero.

    Attributes:
        metric: The metric compared; None is the one the pipeline leads with.
        margin: The least gain, in the metric's unit; for a metric where lower is better, the least reduction.
    """

    metric: Metric | None = None
    margin: float = Field(default=0.0, ge=0)
    confidence: float = Field(default=0.9, gt=0.5, lt=1)
    resamples: int = Field(default=1000, ge=100, le=100_000)
    seed: int = 0

    def judge(self, evidence: Evidence) -> Verdict:
        if not evidence.has_champion:
            return self.verdict(True, "there is no champion yet")
        if evidence.champion is None:
            return self.verdict(False, f"the champion could not be scored: {evidence.champion_error}")
        metric = self.metric or evidence.metric
        mine, theirs = evidence.challenger.metrics.get(metric), evidence.champion.metrics.get(metric)
        if mine is None or theirs is None:
            return self.verdict(False, f"{metric} was not measured for this {evidence.task} label")
        sign = -1 if metric in LOWER_IS_BETTER else 1
        gain = sign * (mine - theirs)
        lower, upper, days = self._interval(metric, evidence, sign)
        numbers = {"gain": gain, "lower": lower, "upper": upper, "challenger": mine, "champion": theirs, "days": days}
        if days == 1:
            return self.verdict(False, f"{metric} gain {gain:.4f} is not known from one day", **numbers)
        reason = f"{metric} gain {gain:.4f} [{lower:.4f}, {upper:.4f}] at {self.confidence * 100:g} % is "
        if not gain >= self.margin:
            return self.verdict(False, f"{reason}below the margin {self.margin:g}", **numbers)
        if not lower > 0:
            return self.verdict(False, f"{reason}not surely above zero", **numbers)
        return self.verdict(True, f"{reason}above the margin {self.margin:g}", **numbers)

    def _interval(self, metric: Metric, evidence: Evidence, sign: int) -> tuple[float, float, int]:
        import numpy as np

        from airworthy.metrics import resample

        assert evidence.champion is not None
        days, block = np.unique(evidence.block, return_inverse=True)
        even = np.full(len(days), 1 / len(days))
        counts = np.random.default_rng(self.seed).multinomial(len(days), even, size=self.resamples)
        mine, theirs = (
            resample(metric, evidence.label, scores.prediction, block, counts)
            for scores in (evidence.challenger, evidence.champion)
        )
        gains = sign * (mine - theirs)
        gains = gains[np.isfinite(gains)]  # a resample of days without a positive label has no roc_auc
        if len(gains) < self.resamples / 2:
            return float("nan"), float("nan"), len(days)
        lower, upper = np.quantile(gains, [1 - self.confidence, self.confidence])
        return float(lower), float(upper), len(days)
