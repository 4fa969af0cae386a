"""`leakage: {alone: 0.9}`: no feature knows the label from where a live request could not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from airworthy.evidence import Evidence
from airworthy.gates import Gate
from airworthy.verdict import Verdict

if TYPE_CHECKING:
    import pandas as pd

    from airworthy.case import Case
    from airworthy.encoding import Feature

_ENOUGH = 100  # rows, to speak of identifiers and of the newest rows
_REPEATS = 5  # of whole numbers to be expected by chance; where there is none, they are identifiers


class Leakage(Gate):
    """Passes a challenger none of whose features leaks the label, as far as the holdout shows.

    Method: the signs of Kaufman et al., Leakage in Data Mining (ACM TKDD 6, 2012), measured on the holdout: a feature
    that tells the label too well alone; one whose absence tells it (`airworthy.telling`); identifiers; and what is
    known too late: times after the row's own that predictions depend on, and features that are missing only in the
    newest rows, whose label is not known yet.

    Attributes:
        alone: The best area under the ROC curve that one feature may have by itself.
        alone_r2: The same for regression, as R².
        missing: How far the label of rows where a feature is missing may surely be on the way from its share among the
            other rows of that day (of numbers: their mean rank) to certainty.
        unique: The largest share of rows in which a category may be another value each; whole numbers may not
            be different in every row, where by chance some would repeat.
        late: By how much the share of missing values may be higher in rows whose label is not known yet.
        known: Features and inputs that are known in time, though they look as if they were not.
    """

    compares: ClassVar[bool] = False

    alone: float = Field(default=0.9, gt=0.5, le=1)
    alone_r2: float = Field(default=0.98, gt=0, le=1)
    missing: float = Field(default=0.3, gt=0, le=1)
    unique: float = Field(default=0.9, gt=0, le=1)
    late: float = Field(default=0.5, gt=0, le=1)
    known: tuple[str, ...] = ()

    def gather(self, case: Case) -> Mapping[str, Any]:
        from airworthy.telling import alone, few_valued, where_missing

        evidence, rows = case.evidence, case.rows
        features = case.own.contract.features
        categories = few_valued(rows, [one.name for one in features if one.type == "category"])
        newest = _newest(case)
        found = {}
        for feature in features:
            name, column = feature.name, rows[feature.name]
            others = [one for one in categories if one.column != name]
            found[name] = {
                "alone": alone(evidence.task, evidence.label, evidence.block, column),
                "missing": where_missing(evidence.task, evidence.label, evidence.block, column, others),
                "identifies": _identifies(feature, column),
                "null": float(column.isna().mean()),
                "newest_null": None if newest is None else float(newest[name].isna().mean()),
            }
        return {
            "task": evidence.task,
            "features": found,
            "newest_rows": 0 if newest is None else len(newest),
            "after": _after(case),
        }

    def judge(self, evidence: Evidence) -> Verdict:
        found = evidence.of(self)
        tests = sum(one["missing"]["looked_at"] for one in found["features"].values())
        leaks = {
            name: words
            for name, one in found["features"].items()
            if name not in self.known
            for words in [[*self._told(one, evidence.task), *self._absent(one, tests), *self._late(one)]]
            if words
        }
        for name, share in found["after"].items():
            if name not in self.known:
                leaks.setdefault(name, []).append(f"is after the row's time in {share:.0%} of requests")
        best = max(found["features"].items(), key=lambda one: one[1]["alone"])
        told = f"{best[0]} tells most alone, {_scale(evidence.task)} {best[1]['alone']:.3f}"
        reason = "; ".join(f"{name} {' and '.join(words)}" for name, words in leaks.items())
        return self.verdict(not leaks, reason or told, leaks=leaks, features=found["features"], after=found["after"])

    def _told(self, one: Mapping[str, Any], task: str) -> Iterator[str]:
        ceiling = self.alone_r2 if task == "regression" else self.alone
        if not one["alone"] <= ceiling:
            yield f"tells the label alone ({_scale(task)} {one['alone']:.3f}, allowed is {ceiling:g})"
        kind, share = one["identifies"]
        if share >= 1 if kind == "integers" else share > self.unique:
            yield f"is an identifier ({share:.0%} of its {kind} are different)"

    def _absent(self, one: Mapping[str, Any], tests: int) -> Iterator[str]:
        from airworthy.intervals import reach

        for place in one["missing"]["surest"]:
            errors = reach(0.99, place["days"], 2 * tests)
            if abs(place["told"]) - errors * place["error"] > self.missing:
                where = "" if place["slice"] == "all rows" else f" with {place['slice']}"
                yield f"tells the label by missing ({abs(place['told']):.0%} certain in {place['rows']} rows{where})"
                return

    def _late(self, one: Mapping[str, Any]) -> Iterator[str]:
        if one["newest_null"] is not None and one["newest_null"] - one["null"] > self.late:
            shares = f"{one['newest_null']:.0%} against {one['null']:.0%} before"
            yield f"is known too late (missing in {shares}, where the label is not known yet)"


def _scale(task: str) -> str:
    return "R²" if task == "regression" else "AUC"


def _identifies(feature: Feature, column: pd.Series[Any]) -> tuple[str, float]:
    """Returns what kind of values may be identifiers, and the share of them that are different."""
    held = column.dropna()
    if len(held) < _ENOUGH:
        return "values", 0.0
    if feature.type == "category":
        return "values", held.nunique() / len(held)
    whole = held.dtype.kind in "iu" or (held.dtype.kind == "f" and bool((held % 1 == 0).all()))
    if whole:  # pairs of rows with one value that numbers drawn from this range would have: with few, none is by chance
        whole = len(held) ** 2 / (2 * (float(held.max()) - float(held.min()) + 1)) > _REPEATS
    return "integers", held.nunique() / len(held) if whole else 0.0


def _newest(case: Case) -> pd.DataFrame | None:
    """Returns the rows whose label cannot be known yet; None if there are too few."""
    from airworthy.store import Store

    pipeline, challenger = case.pipeline, case.challenger
    rows = Store(case.profile.store_uri, pipeline.name).read(
        "features",
        between=(challenger.holdout[1], challenger.as_of),
        time=pipeline.time,
        version=challenger.features.version,
    )
    return rows if len(rows) >= _ENOUGH else None


def _after(case: Case) -> dict[str, float]:
    """Returns the inputs that hold later times than the row's and that predictions depend on; the share of requests."""
    import pandas as pd

    from airworthy.encoding import conform

    contract, time = case.own.contract, case.pipeline.time
    asked = conform(contract.inputs, case.own.requests())
    found = {}
    for name in (one.name for one in contract.inputs if one.type == "timestamp" and one.name != time):
        later = (asked[name] > asked[time]).mean()
        if later > 0 and _depends(case, asked.assign(**{name: asked[name] - pd.Timedelta(days=500, hours=7)})):
            found[name] = float(later)
    return found


def _depends(case: Case, changed: pd.DataFrame) -> bool:
    import numpy as np

    from airworthy.errors import DataError

    try:
        return not np.array_equal(case.own.predict_raw(changed), case.own.predict_raw(case.own.requests()))
    except DataError:
        return True  # features() looks at it, as it cannot do with this value
