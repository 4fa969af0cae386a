"""`metric_floor: {metric: roc_auc, floor: 0.7}`: the challenger is good enough by itself, and not by chance."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from airworthy.evidence import LOWER_IS_BETTER, Evidence, Metric
from airworthy.gates import Gate
from airworthy.intervals import of_metric
from airworthy.verdict import Verdict


class MetricFloor(Gate):
    """Passes a challenger whose metric on the holdout is surely at least `floor`.

    The bound of a one-sided interval must reach it: what would be reached by luck on a few good days does not pass.
    For a metric where lower is better (log_loss, rmse, mae) `floor` is the most it may surely be.

    Attributes:
        confidence: Of the bound (`airworthy.intervals`: a jackknife over days).
    """

    over_days: ClassVar[bool] = True

    metric: Metric
    floor: float
    confidence: float = Field(default=0.9, gt=0.5, lt=1)

    def judge(self, evidence: Evidence) -> Verdict:
        value = evidence.challenger.metrics.get(self.metric)
        if value is None:
            return self.verdict(False, f"{self.metric} was not measured for this {evidence.task} label")
        found = of_metric(self.metric, evidence.label, evidence.challenger.prediction, evidence.block)
        lower, upper = found.bounds(self.confidence)
        numbers = {"value": value, "lower": lower, "upper": upper, "days": found.days}
        if not found.known:
            days = "one day" if found.days == 1 else f"{found.days} days"
            return self.verdict(False, f"{self.metric} {value:.3f} is not known for sure from {days}", **numbers)
        reason = f"{self.metric} {value:.3f} [{lower:.3f}, {upper:.3f}] at {self.confidence * 100:g} % "
        if self.metric in LOWER_IS_BETTER:
            passed = upper <= self.floor
            reason += f"is {'surely' if passed else 'not surely'} at most {self.floor:.3f}"
        else:
            passed = lower >= self.floor
            reason += f"is {'surely' if passed else 'not surely'} at least {self.floor:.3f}"
        return self.verdict(passed, reason, **numbers)
