"""`calibration: {tolerance: 0.25}`: what the challenger predicts is, on average, what happens."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from airworthy.evidence import Evidence
from airworthy.gates import Gate
from airworthy.intervals import Interval, effective_days, jackknife, of_mean
from airworthy.verdict import Verdict

if TYPE_CHECKING:
    import numpy as np


class Calibration(Gate):
    """Refuses a challenger whose predictions are surely off by more than a tolerance.

    Two things are measured on the holdout, with intervals over days (`airworthy.intervals`): the bias, which is the
    mean prediction less the mean label (multiclass: of each class, the confidence shared among them), and for
    classes the expected calibration error over bins of equal size (Naeini, Cooper and Hauskrecht, AAAI 2015;
    multiclass: of the likeliest class). What bins are off by chance is taken out of the latter (as in Kumar, Liang
    and Ma, Verified Uncertainty Calibration, NeurIPS 2019), since it is above zero for every finite holdout. Measured:
    a calibration error that truly is what is allowed is stopped in 2 to 6 of 100 holdouts at 90 %; near zero its
    lower bound is not exact, and above zero for three calibrated models in ten, by a thousandth.

    Attributes:
        tolerance: How far off is allowed, as a share of the label's standard deviation (multiclass: of each class's
            own; for the calibration error, of whether the likeliest is right); of a label that is true in a quarter
            of the rows, 0.25 is 0.11, and 0.035 of one that is true in two of a hundred.
        confidence: How sure it must be that the tolerance is exceeded.
    """

    compares: ClassVar[bool] = False
    over_days: ClassVar[bool] = True

    tolerance: float = Field(default=0.25, gt=0)
    confidence: float = Field(default=0.9, gt=0.5, lt=1)
    bins: int = Field(default=10, ge=2, le=100)

    def judge(self, evidence: Evidence) -> Verdict:
        name, bias, deviation, confidence = self._bias(evidence)
        allowed = self.tolerance * deviation
        lower, upper = bias.bounds(confidence)
        numbers = {"bias": bias.value, "lower": lower, "upper": upper, "allowed": allowed, "days": bias.days}
        if not bias.known:
            return self.verdict(False, f"bias {bias.value:+.4f} is not known from one day", **numbers)
        level = f"at {100 * self.confidence:g} %"
        told = [f"{name} {bias.value:+.4f} [{lower:+.4f}, {upper:+.4f}]"]
        off = [f"the bias is surely beyond {allowed:.4f}"] * bool(lower > allowed or upper < -allowed)
        if evidence.task != "regression":
            error, deviation = self._calibration_error(evidence)
            allowed = self.tolerance * deviation
            lower, upper = error.bounds(self.confidence)
            numbers |= {"calibration_error": error.value, "error_lower": lower, "error_upper": upper}
            numbers["error_allowed"] = allowed
            told.append(f"calibration error {error.value:.4f} [{max(lower, 0):.4f}, {upper:.4f}]")
            off += [f"the calibration error is surely beyond {allowed:.4f}"] * bool(lower > allowed)
        within = " and ".join(dict.fromkeys(f"{limit:.4f}" for limit in (numbers["allowed"], allowed)))
        reason = f"{', '.join(told)} {level}: {' and '.join(off) or f'not surely off by more than {within}'}"
        return self.verdict(not off, reason, **numbers)

    def _bias(self, evidence: Evidence) -> tuple[str, Interval, float, float]:
        """Returns the bias that exceeds the tolerance most, what it is of, its label's deviation and confidence."""
        label, prediction = evidence.label, evidence.challenger.prediction
        if prediction.ndim == 1:
            deviation = float(label.std()) if evidence.task == "regression" else _deviation(label)
            return "bias", of_mean(prediction - label, evidence.block), deviation, self.confidence
        confidence = 1 - (1 - self.confidence) / len(evidence.classes)
        found = []
        for number, name in enumerate(evidence.classes):
            truth = label == number
            bias = of_mean(prediction[:, number] - truth, evidence.block)
            found.append((f"bias of {name}", bias, _deviation(truth), confidence))

        def excess(one: tuple[str, Interval, float, float]) -> float:
            _, bias, deviation, _ = one
            lower, upper = bias.bounds(confidence)
            return max(lower, -upper) - self.tolerance * deviation

        return max(found, key=excess)

    def _calibration_error(self, evidence: Evidence) -> tuple[Interval, float]:
        """Returns the error, and the deviation of what is predicted: multiclass, that the likeliest class is right."""
        import numpy as np

        prediction, truth = evidence.challenger.prediction, evidence.label
        if prediction.ndim == 2:
            truth, prediction = prediction.argmax(axis=1) == evidence.label, prediction.max(axis=1)
        edges = np.unique(np.quantile(prediction, np.linspace(0, 1, self.bins + 1)[1:-1]))
        place = np.searchsorted(edges, prediction, side="right")
        days, owner = np.unique(evidence.block, return_inverse=True)
        shape = (len(days), len(edges) + 1)
        cell = owner * shape[1] + place
        off, rows = (
            np.bincount(cell, weights=weights, minlength=shape[0] * shape[1]).reshape(shape)
            for weights in (prediction - truth, None)
        )
        total, count = off.sum(axis=0), rows.sum(axis=0)
        without = _mean(total - off, count - rows)
        noise = without.var(axis=0) * (len(days) - 1)  # the jackknife's variance of each bin
        gap = _mean(total, count)
        beyond_chance = count @ np.sqrt(np.maximum(gap**2 - noise, 0)) / count.sum()
        errors = (np.abs(total - off)).sum(axis=1) / (count - rows).sum(axis=1)
        found = jackknife(float(beyond_chance), errors, effective_days(owner, np.zeros_like(owner)))
        return found, _deviation(truth)


def _deviation(truth: np.ndarray) -> float:
    """Returns the standard deviation of what is true or not; at least that of what is true in one row."""
    return float(max(truth.std(), len(truth) ** -0.5))


def _mean(off: np.ndarray, rows: np.ndarray) -> np.ndarray:
    import numpy as np

    return np.asarray(off / np.maximum(rows, 1))
