"""`fairness: {columns: [sex], criterion: equalized_odds, difference: 0.1}`: groups of people are treated alike."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from airworthy.errors import DataError
from airworthy.evidence import Evidence, Metric
from airworthy.gates import Gate
from airworthy.verdict import Verdict

if TYPE_CHECKING:
    import numpy as np

    from airworthy.case import Case
    from airworthy.grouping import Grouping

_MOST = 12  # groups of a column: of strings the rarest share one, numbers are told apart by range
_RANGES = 4
_LEAST_DAYS = 5


class Fairness(Gate):
    """Passes a challenger that does not surely treat two groups of a sensitive column more differently than allowed.

    Rates are Fairlearn's (Weerts et al., JMLR 24, 2023): `demographic_parity` compares the share of rows that are
    predicted positive, `equalized_odds` that share among truly positive and among truly negative rows, `metric` a
    metric. Each pair of groups is compared, with an interval by days (`airworthy.intervals`) corrected for how many
    pairs there are (Bonferroni): a challenger within the limits is stopped with a chance of at most `1 - confidence`.
    Groups with too few rows or days are named, and not judged.

    Attributes:
        columns: Of the features table; a model need not learn from them.
        metric: With `criterion: metric`, which one; None is the one the pipeline leads with.
        threshold: From which probability on a row counts as predicted positive.
        difference: The most by which two groups may differ.
        ratio: The least that the lower value of two groups may be of the higher one.
        rows: A group with fewer, or with rows on fewer than five days, is not judged; for `equalized_odds` and for
            metrics of a binary label, with fewer of either label.
    """

    compares: ClassVar[bool] = False

    columns: tuple[str, ...] = Field(min_length=1)
    criterion: Literal["demographic_parity", "equalized_odds", "metric"] = "equalized_odds"
    metric: Metric | None = None
    threshold: float = Field(default=0.5, gt=0, lt=1)
    difference: float | None = Field(default=None, ge=0)
    ratio: float | None = Field(default=None, gt=0, le=1)
    rows: int = Field(default=100, ge=20)
    confidence: float = Field(default=0.95, gt=0.5, lt=1)

    @model_validator(mode="after")
    def _limited(self) -> Self:
        if self.difference is None and self.ratio is None:
            raise ValueError("must have a limit: difference or ratio")
        return self

    def gather(self, case: Case) -> Mapping[str, Any]:
        from airworthy.grouping import group

        if case.evidence.task != "binary" and self.criterion != "metric":
            hint = "Write `criterion: metric`"
            raise DataError("fairness", "must compare a metric where the label is not binary", self.criterion, hint)
        if missing := [name for name in self.columns if name not in case.rows.columns]:
            hint = "Return them from features(); a column in train.exclude is there, and not learnt from"
            raise DataError("fairness", "must name columns of the features table", missing, hint)
        found = {}
        for name in self.columns:
            grouping = group(case.rows[name], values=_MOST, ranges=_RANGES)
            found[name] = self._compared(case.evidence, grouping)
        return {"columns": found}

    def judge(self, evidence: Evidence) -> Verdict:
        columns = evidence.of(self)["columns"]
        pairs = [pair for found in columns.values() for pair in found["pairs"]]
        skipped = [name for found in columns.values() for name in found["too_small"]]
        numbers = {"columns": {name: found["groups"] for name, found in columns.items()}, "too_small": skipped}
        if alone := [name for name, found in columns.items() if not found["pairs"]]:
            reason = f"{', '.join(alone)} does not have two groups of {self.rows} rows on {_LEAST_DAYS} days to compare"
            return self.verdict(False, reason, **numbers)
        tests = len(pairs) * ((self.difference is not None) + (self.ratio is not None))
        unfair = [words for pair in pairs for words in self._unfair(pair, tests)]
        widest = max(pairs, key=lambda pair: pair["difference"])
        reason = "; ".join(unfair[:3]) + (f"; and {len(unfair) - 3} more" if len(unfair) > 3 else "")
        reason = reason or f"at most {_told(widest)}"
        if skipped:
            reason += f" (too few rows or days to judge {', '.join(skipped)})"
        return self.verdict(not unfair, reason, widest=widest, **numbers)

    def _unfair(self, pair: Mapping[str, Any], tests: int) -> Iterator[str]:
        from airworthy.intervals import reach

        errors, told = reach(self.confidence, pair["days"], tests), _told(pair)
        if self.difference is not None and pair["difference"] - errors * pair["error"] > self.difference:
            yield f"{told}: surely more than {self.difference:g} apart"
        if self.ratio is not None:
            if pair["ratio"] is None:
                yield f"{told}: a ratio of these is not defined"
            elif math.log(pair["likely_ratio"]) + errors * pair["log_ratio_error"] < math.log(self.ratio):
                yield f"{told}: surely less than {self.ratio:g} of each other"

    def _compared(self, evidence: Evidence, grouping: Grouping) -> dict[str, Any]:
        """Returns a column's groups with their values, and each pair of groups with its difference and ratio."""
        import numpy as np

        groups, too_small = {}, []
        for number, name in enumerate(grouping.names):
            inside = grouping.code == number
            values = self._values(evidence, inside) if self._enough(evidence, inside) else []
            if values and all(np.isfinite(value.without).all() for value in values):
                groups[name] = values
            else:
                too_small.append(name)
        pairs = [
            _pair((one, first), (two, second))
            for one, two in combinations(groups, 2)
            for first, second in zip(groups[one], groups[two], strict=True)
        ]
        told = {name: {value.name: value.value for value in values} for name, values in groups.items()}
        return {"groups": told, "too_small": too_small, "pairs": pairs}

    def _values(self, evidence: Evidence, inside: np.ndarray) -> list[_Value]:
        if self.criterion == "metric":
            return [_of_metric(self.metric or evidence.metric, evidence, inside)]
        return _of_rates(self.criterion, evidence, inside, self.threshold)

    def _enough(self, evidence: Evidence, inside: np.ndarray) -> bool:
        import numpy as np

        parts = [inside]
        if self.criterion == "equalized_odds" or (self.criterion == "metric" and evidence.task == "binary"):
            parts = [inside & (evidence.label == 1), inside & (evidence.label != 1)]
        return all(part.sum() >= self.rows and len(np.unique(evidence.block[part])) >= _LEAST_DAYS for part in parts)


@dataclass(frozen=True)
class _Value:
    """A quantity of one group.

    Attributes:
        without: The same without each day, shape (days,).
        variance: What it would have if rows were independent; 0 if that is not known.
        days: On how many there are rows of the group.
    """

    name: str
    value: float
    without: np.ndarray
    variance: float
    days: int


def _of_rates(criterion: str, evidence: Evidence, inside: np.ndarray, threshold: float) -> list[_Value]:
    import numpy as np
    from fairlearn import metrics as rates

    label, block = evidence.label[inside] == 1, np.unique(evidence.block, return_inverse=True)[1]
    chosen, block, days = evidence.challenger.prediction[inside] >= threshold, block[inside], block.max() + 1
    if criterion == "demographic_parity":
        asked = {"selection_rate": (rates.selection_rate, np.ones(len(label), dtype=bool))}
    else:
        asked = {
            "true_positive_rate": (rates.true_positive_rate, label),
            "false_positive_rate": (rates.false_positive_rate, ~label),
        }
    found = []
    for name, (rate, among) in asked.items():
        hits = np.bincount(block[among], weights=chosen[among], minlength=days)
        rows = np.bincount(block[among], minlength=days)
        value = float(rate(label.astype(int), chosen.astype(int), pos_label=1))
        # Half a row on either side: no chosen row among a hundred does not prove that there never is one.
        likely = (hits.sum() + 0.5) / (rows.sum() + 1)
        without = (hits.sum() - hits + 0.5) / (rows.sum() - rows + 1)
        found.append(_Value(name, value, without, float(likely * (1 - likely) / rows.sum()), int((rows > 0).sum())))
    return found


def _of_metric(metric: Metric, evidence: Evidence, inside: np.ndarray) -> _Value:
    import numpy as np

    from airworthy.intervals import without_each
    from airworthy.metrics import resample, score

    label, answers = evidence.label[inside], evidence.challenger.prediction[inside]
    every, block = np.unique(evidence.block, return_inverse=True)
    without = resample(metric, label, answers, block[inside], without_each(len(every)))
    days = len(np.unique(block[inside]))
    return _Value(metric, score(evidence.task, metric, label, answers), without, 0.0, days)


def _pair(one: tuple[str, _Value], two: tuple[str, _Value]) -> dict[str, Any]:
    import numpy as np

    from airworthy.intervals import standard_error

    (low_name, low), (high_name, high) = sorted((one, two), key=lambda group: group[1].value)
    difference, ratio, log_ratio_error = high.value - low.value, None, None
    error = max(float(standard_error(high.without - low.without)), math.sqrt(low.variance + high.variance))
    if low.value >= 0 and min(low.without.min(), high.without.min()) > 0:
        ratio = low.value / high.value if high.value > 0 else 1.0
        independent = math.sqrt(sum(group.variance / group.without.mean() ** 2 for group in (low, high)))
        log_ratio_error = max(float(standard_error(np.log(low.without / high.without))), independent)
    return {
        "quantity": low.name,
        "low": [low_name, low.value],
        "high": [high_name, high.value],
        "difference": difference,
        "error": error,
        "ratio": ratio,
        "likely_ratio": None if ratio is None else float((low.without / high.without).mean()),
        "log_ratio_error": log_ratio_error,
        "days": min(low.days, high.days),
    }


def _told(pair: Mapping[str, Any]) -> str:
    (low, less), (high, more) = pair["low"], pair["high"]
    apart = f"{pair['difference']:.3f} apart" + ("" if pair["ratio"] is None else f", ratio {pair['ratio']:.2f}")
    return f"{pair['quantity']} {more:.3f} for {high}, {less:.3f} for {low} ({apart})"
