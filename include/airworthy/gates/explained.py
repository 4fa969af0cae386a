"""`explained: {share: 0.8}`: the model does not rest on a single feature."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from airworthy.evidence import LOWER_IS_BETTER, Evidence
from airworthy.gates import Gate
from airworthy.verdict import Verdict

if TYPE_CHECKING:
    import numpy as np

    from airworthy.case import Case


class Explained(Gate):
    """Passes a challenger in whose predictions no single feature has more than its share.

    A feature's share is that of its mean absolute SHAP value, on a sample of the holdout, where the model's kind has
    them (XGBoost: TreeSHAP); else of how much the leading metric loses when its values are permuted (Breiman, Random
    Forests, 2001). A model of fewer than three features is not judged.

    Attributes:
        share: The most one feature may have.
        rows: How many rows of the holdout are looked at.
    """

    compares: ClassVar[bool] = False

    share: float = Field(default=0.8, gt=0, le=1)
    rows: int = Field(default=2000, ge=100, le=100_000)
    seed: int = 0

    def gather(self, case: Case) -> Mapping[str, Any]:
        import numpy as np

        chosen = np.random.default_rng(self.seed).permutation(len(case.rows))
        if case.evidence.task == "binary":  # metrics need a row of either class, however rare one is
            first = np.unique(case.evidence.label[chosen], return_index=True)[1]
            chosen = np.concatenate([chosen[first], np.delete(chosen, first)])
        chosen = chosen[: self.rows]
        sample = case.rows.iloc[chosen]
        parts = case.own.contributions(sample)
        if parts is None:
            method, weights = "permutation", self._permuted(case, chosen)
        else:
            method, weights = "SHAP", np.abs(parts).reshape(-1, parts.shape[-1]).mean(axis=0)
        total = float(weights.sum())
        names = [feature.name for feature in case.own.contract.features]
        shares = {name: float(weight) / total if total else 0.0 for name, weight in zip(names, weights, strict=True)}
        ordered = sorted(shares.items(), key=lambda one: -one[1])
        return {"method": method, "rows": len(sample), "total": total, "shares": dict(ordered)}

    def judge(self, evidence: Evidence) -> Verdict:
        found = evidence.of(self)
        shares: dict[str, float] = found["shares"]
        top, share = next(iter(shares.items()))
        what = f"{top} has {share:.0%} of {found['method']} on {found['rows']} rows"
        if len(shares) < 3:
            return self.verdict(True, f"{what}; there are too few features to judge", **found)
        if not found["total"] > 0:
            nothing = "no feature changes a prediction"
            if found["method"] == "permutation":
                nothing = f"{evidence.metric} is no worse when the values of any one feature are permuted"
            return self.verdict(False, f"{nothing}, on {found['rows']} rows", **found)
        reason = what if share <= self.share else f"{what}, allowed are {self.share:.0%}"
        return self.verdict(share <= self.share, reason, **found)

    def _permuted(self, case: Case, chosen: np.ndarray) -> np.ndarray:
        """Returns by feature how much of the metric its permutation costs, at least zero."""
        import numpy as np
        from sklearn.inspection import permutation_importance

        from airworthy.encoding import align_classes
        from airworthy.metrics import score

        evidence, features = case.evidence, [feature.name for feature in case.own.contract.features]
        sign = -1 if evidence.metric in LOWER_IS_BETTER else 1

        def scored(model: Any, rows: Any, label: np.ndarray) -> float:
            answers = align_classes(case.own.predict(rows), case.own.contract.classes, evidence.classes)
            return sign * score(evidence.task, evidence.metric, label, answers)

        rows = case.rows.iloc[chosen][features]
        found = permutation_importance(
            _Trained(), rows, evidence.label[chosen], scoring=scored, n_repeats=3, random_state=self.seed
        )
        return np.asarray(np.clip(found.importances_mean, 0, None))


class _Trained:
    """What scikit-learn takes for an estimator; it is never asked, as the scoring answers itself."""

    def fit(self, *_: Any) -> _Trained:
        return self
