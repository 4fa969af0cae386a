"""`metric_floor: {metric: roc_auc, floor: 0.7}`: the challenger is good enough by itself."""

from __future__ import annotations

from airworthy.evidence import LOWER_IS_BETTER, Evidence, Metric
from airworthy.gates import Gate
from airworthy.verdict import Verdict


class MetricFloor(Gate):
    """Passes a challenger whose metric on the holdout is at least `floor`.

    For a metric where lower is better (log_loss, rmse, mae) `floor` is the most it may be.
    """

    metric: Metric
    floor: float

    def judge(self, evidence: Evidence) -> Verdict:
        value = evidence.challenger.metrics.get(self.metric)
        if value is None:
            return self.verdict(False, f"{self.metric} was not measured for this {evidence.task} label")
        ceiling = self.metric in LOWER_IS_BETTER
        passed = value <= self.floor if ceiling else value >= self.floor
        if ceiling:
            words = "is not above the ceiling" if passed else "is above the ceiling"
        else:
            words = "is not below the floor" if passed else "is below the floor"
        return self.verdict(passed, f"{self.metric} {value:.3f} {words} {self.floor:.3f}", value=value)
