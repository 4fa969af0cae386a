"""`slices: {columns: [origin, carrier], floor: 0.6}`: no part of the rows is served badly behind a good average."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

from pydantic import Field

from airworthy.errors import DataError
from airworthy.evidence import LOWER_IS_BETTER, Evidence, Metric
from airworthy.gates import Gate
from airworthy.verdict import Verdict

if TYPE_CHECKING:
    import numpy as np

    from airworthy.case import Case
    from airworthy.grouping import Grouping

_FEW = 30  # values of a column that are slices of their own
_PAIRED = 12  # the same in pairs of columns
_RANGES = 5  # of numbers
_LEAST_DAYS = 5


class Slices(Gate):
    """Passes a challenger that in no slice is surely below the floor, or surely worse than the champion.

    Slices are the values of the declared columns, and the worst ones found: of all features and pairs of them, those
    in which the challenger loses most are looked for on every other day, and judged on the days between, as what was
    chosen for looking bad looks bad. Surely means beyond the error by days (`airworthy.intervals`), corrected for the
    number of slices (Bonferroni): the chance that a challenger that is nowhere worse is stopped is `1 - confidence`.

    Attributes:
        columns: Of the features table, each with a slice that can be judged; None: all categories with at most 30
            values.
        find: How many of the worst slices to look for.
        rows: A slice with fewer is not judged.
        metric: The metric compared; None is the one the pipeline leads with.
        floor: What the metric must reach in every slice; for a metric where lower is better, the most it may be.
        tolerance: How much worse than the champion's the metric may be, as a share of the champion's.
    """

    columns: tuple[str, ...] | None = None
    find: int = Field(default=5, ge=0, le=50)
    rows: int = Field(default=300, ge=20)
    metric: Metric | None = None
    floor: float | None = None
    tolerance: float = Field(default=0.02, ge=0)
    confidence: float = Field(default=0.95, gt=0.5, lt=1)

    def gather(self, case: Case) -> Mapping[str, Any]:
        import numpy as np

        metric = self.metric or case.evidence.metric
        judged: list[dict[str, Any]] = []
        skipped: list[dict[str, Any]] = []
        unjudged: list[str] = []
        for grouping in self._declared(case):
            before = len(judged)
            for number, name in enumerate(grouping.names):
                inside = grouping.code == number
                found = _measured(case.evidence, metric, inside) if inside.sum() >= self.rows else None
                if found is None:
                    skipped.append({"slice": name, "rows": int(inside.sum())})
                else:
                    judged.append({"slice": name, "found": False, **found})
            unjudged += [grouping.column] * (len(judged) == before)
        later = np.unique(case.evidence.block, return_inverse=True)[1] % 2 == 1
        for name, inside in self._worst(case, ~later):
            found = _measured(case.evidence, metric, inside & later)
            if found is not None:
                judged.append({"slice": name, "found": True, **found})
        return {"metric": metric, "slices": judged, "too_small": skipped, "unjudged": unjudged}

    def judge(self, evidence: Evidence) -> Verdict:
        if evidence.has_champion and evidence.champion is None:
            return self.verdict(False, f"the champion could not be scored: {evidence.champion_error}")
        found = evidence.of(self)
        metric, slices, skipped = found["metric"], found["slices"], [one["slice"] for one in found["too_small"]]
        numbers = {"metric": metric, "slices": slices, "too_small": len(skipped)}
        unjudged = found["unjudged"] if self.columns is not None else []
        if not slices or unjudged:
            declared = self.columns is not None or self.floor is not None
            of = f" of {', '.join(unjudged)}" if unjudged else ""
            reason = f"no slice{of} has {self.rows} rows on {_LEAST_DAYS} days with an own {metric}"
            return self.verdict(not declared, reason, **numbers)
        tests = len(slices) * ((self.floor is not None) + evidence.has_champion)
        bad = [words for one in slices for words in self._wrong(one, metric, tests)]
        worst = min(slices, key=lambda one: _sign(metric) * one["value"])
        seen = f"of {len(slices)} slices {worst['slice']} has the worst {metric}, {worst['value']:.3f}"
        if skipped:
            more = f" and {len(skipped) - 3} more" if len(skipped) > 3 else ""
            seen += f" (too few rows or days to judge {', '.join(skipped[:3])}{more})"
        reason = "; ".join(bad[:3]) + (f"; and {len(bad) - 3} more" if len(bad) > 3 else "") if bad else seen
        return self.verdict(not bad, reason, **numbers)

    def _wrong(self, one: Mapping[str, Any], metric: Metric, tests: int) -> Iterator[str]:
        from airworthy.intervals import reach

        sign, what = _sign(metric), f"{one['slice']} ({one['rows']} rows): {metric} {one['value']:.3f}"
        errors = reach(self.confidence, one["days"], max(tests, 1))
        if self.floor is not None and sign * (one["value"] - self.floor) + errors * one["error"] < 0:
            yield f"{what} is surely {'below the floor' if sign > 0 else 'above the ceiling'} {self.floor:.3f}"
        if one["champion"] is not None:
            gain, allowed = sign * (one["value"] - one["champion"]), self.tolerance * abs(one["champion"])
            if gain + allowed + errors * one["gain_error"] < 0:
                yield f"{what} is surely worse than the champion's {one['champion']:.3f}"

    def _declared(self, case: Case) -> list[Grouping]:
        from airworthy.grouping import group

        columns = self.columns
        if columns is None:
            features = case.own.contract.features
            columns = tuple(one.name for one in features if one.type == "category" and len(one.categories) <= _FEW)
        if missing := [name for name in columns if name not in case.rows.columns]:
            raise DataError("slices", "must name columns of the features table", missing, "Return them from features()")
        return [group(case.rows[name], values=_FEW, ranges=_RANGES) for name in columns]

    def _worst(self, case: Case, looked_at: np.ndarray) -> list[tuple[str, np.ndarray]]:
        """Returns the worst slices on some of the rows: their names, and which rows of all are in them."""
        import numpy as np

        from airworthy.grouping import group

        if not self.find:
            return []
        names = dict.fromkeys([*(one.name for one in case.own.contract.features), *(self.columns or ())])
        groupings = [group(case.rows[name], values=_PAIRED, ranges=_RANGES) for name in names]
        loss = _loss(case.evidence)[looked_at]
        excess = (loss - loss.mean()) if case.evidence.champion is None else loss
        scale = float(excess.std()) or 1.0
        candidates = []
        for pair in [*((one,) for one in groupings), *combinations(groupings, 2)]:
            code, size = _crossed(pair)
            inside = code[looked_at]
            rows = np.bincount(inside, minlength=size)
            lost = np.bincount(inside, weights=excess, minlength=size)
            score = np.where(rows >= self.rows / 2, lost / np.sqrt(np.maximum(rows, 1)) / scale, -np.inf)
            candidates += [(float(score[at]), pair, int(at)) for at in np.argsort(-score)[: self.find] if score[at] > 0]
        chosen: list[tuple[str, np.ndarray]] = []
        for _, pair, cell in sorted(candidates, key=lambda one: -one[0]):
            if len(chosen) == self.find:
                break
            inside = _crossed(pair)[0] == cell
            if all((inside & other).sum() <= (inside | other).sum() / 2 for _, other in chosen):
                chosen.append((_named(pair, cell), inside))
        return chosen


def _sign(metric: Metric) -> int:
    return -1 if metric in LOWER_IS_BETTER else 1


def _loss(evidence: Evidence) -> np.ndarray:
    """Returns what the challenger lost by row: more than the champion, if there is one."""
    import numpy as np

    from airworthy.metrics import losses

    metric: Metric = "rmse" if evidence.task == "regression" else "log_loss"
    mine = losses(metric, evidence.label, evidence.challenger.prediction)
    if evidence.champion is None:
        return mine
    return np.asarray(mine - losses(metric, evidence.label, evidence.champion.prediction))


def _crossed(pair: Sequence[Grouping]) -> tuple[np.ndarray, int]:
    """Returns the rows' cells, and how many there are."""
    if len(pair) == 1:
        return pair[0].code, len(pair[0].names)
    return pair[0].code * len(pair[1].names) + pair[1].code, len(pair[0].names) * len(pair[1].names)


def _named(pair: Sequence[Grouping], cell: int) -> str:
    if len(pair) == 1:
        return pair[0].names[cell]
    first, second = divmod(cell, len(pair[1].names))
    return f"{pair[0].names[first]} and {pair[1].names[second]}"


def _measured(evidence: Evidence, metric: Metric, inside: np.ndarray) -> dict[str, Any] | None:
    """Returns a slice's numbers; None if it has too few days, or no metric of its own without one of them."""
    import numpy as np

    from airworthy.errors import TrainError
    from airworthy.intervals import standard_error, without_each
    from airworthy.metrics import resample, score

    days, block = np.unique(evidence.block[inside], return_inverse=True)
    label, models = evidence.label[inside], [evidence.challenger, evidence.champion]
    if len(days) < _LEAST_DAYS:
        return None
    counts, values, left_out = without_each(len(days)), [], []
    for answers in (model.prediction[inside] for model in models if model is not None):
        try:
            values.append(score(evidence.task, metric, label, answers))
        except TrainError:
            return None
        left_out.append(resample(metric, label, answers, block, counts))
    if not np.isfinite(left_out).all():
        return None
    both = len(values) == 2
    return {
        "rows": int(inside.sum()),
        "days": len(days),
        "value": values[0],
        "error": float(standard_error(left_out[0])),
        "champion": values[1] if both else None,
        "gain_error": float(standard_error(left_out[0] - left_out[1])) if both else None,
    }
