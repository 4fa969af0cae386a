"""`stability: {gap: 0.3, spread: 0.02}`: the challenger did not learn its rows by heart, nor its seed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from airworthy.evidence import LOWER_IS_BETTER, Evidence, Metric
from airworthy.gates import Gate
from airworthy.metrics import score
from airworthy.verdict import Verdict

if TYPE_CHECKING:
    from airworthy.case import Case


class Stability(Gate):
    """Passes a challenger that does nearly as well on the holdout as on its training rows, whatever its seed.

    Attributes:
        metric: The metric compared; None is the one the pipeline leads with.
        gap: How much worse the holdout may be than the training rows, as a share of the larger value of the two.
        spread: How much the best and the worst seed may differ on the holdout, as a share of the challenger's value.
        seeds: How often the training is repeated with another seed; each costs a fit. 0 leaves the spread out.
    """

    compares: ClassVar[bool] = False

    metric: Metric | None = None
    gap: float = Field(default=0.3, gt=0)
    spread: float = Field(default=0.02, gt=0)
    seeds: int = Field(default=2, ge=0, le=20)

    def gather(self, case: Case) -> Mapping[str, Any]:
        from airworthy.encoding import encode_label

        pipeline, contract, evidence = case.pipeline, case.own.contract, case.evidence
        if case.imported:
            return {"window": None, "seeds": []}
        metric, window = self.metric or evidence.metric, case.window()
        label = encode_label(contract.task, contract.classes, window[pipeline.label.column])
        seeds = range(contract.seed + 1, contract.seed + 1 + self.seeds)
        return {
            "window": score(contract.task, metric, label, case.own.predict(window)),
            "seeds": [score(contract.task, metric, evidence.label, case.refit(seed)) for seed in seeds],
        }

    def judge(self, evidence: Evidence) -> Verdict:
        found, metric = evidence.of(self), self.metric or evidence.metric
        value, window = evidence.challenger.metrics[metric], found["window"]
        if window is None:
            return self.verdict(True, f"{metric} is {value:.4f}; what it learnt from is elsewhere", value=value)
        worse = value - window if metric in LOWER_IS_BETTER else window - value
        gap = worse / max(abs(value), abs(window), 1e-12)
        tried = (value, *found["seeds"])
        spread = (max(tried) - min(tried)) / max(abs(value), 1e-12)
        told = [f"{metric} {value:.4f} is {abs(gap):.1%} {'worse' if gap > 0 else 'better'} than on the training rows"]
        if self.seeds:
            told.append(f"{spread:.2%} apart over {len(tried)} seeds")
        allowed = [f"{self.gap:.1%} worse"] * (not gap <= self.gap)
        allowed += [f"{self.spread:.2%} apart"] * (not spread <= self.spread)
        reason = " and ".join(told) + (f", where {' and '.join(allowed)} is allowed" if allowed else "")
        return self.verdict(not allowed, reason, value=value, window=window, gap=gap, spread=spread, seeds=len(tried))
