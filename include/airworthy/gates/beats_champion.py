"""`beats_champion: {margin: 0.005, error_budget: 0.1}`: better than the champion, and not by chance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from airworthy.evidence import Evidence, Metric
from airworthy.explain import problem
from airworthy.gates import Gate
from airworthy.intervals import Interval, of_gain
from airworthy.partitions import Duration
from airworthy.verdict import Verdict

if TYPE_CHECKING:
    from airworthy.budget import Spending
    from airworthy.case import Case


class BeatsChampion(Gate):
    """Passes a challenger that surely gains on the champion, or surely loses no more than a margin.

    Both models answer the same rows; the gain's interval is that of a jackknife over days (`airworthy.intervals`).
    It was chosen by simulation (`tests/benchmarks/test_levels.py`): for two equally good models, days of unlike
    size and each model with good and bad days of its own, it promotes about as often as declared, or less, down to
    0.002, also from seven days and with two positive rows in a hundred. There a clustered DeLong test (Obuchowski,
    Biometrics 53, 1997) promotes up to 2.5 times as often, and percentiles of a bootstrap up to seven times.

    By default a test is held to the alpha it draws from the pipeline's error budget (`airworthy.budget`), so the
    chance of promoting a worse model in any `period` is at most `error_budget`, however often one is retrained.

    Attributes:
        metric: The metric compared; None is the one the pipeline leads with.
        test: `superiority`: the gain is at least `margin`, and surely above zero. `non_inferiority`: it is surely
            above `-margin`.
        margin: In the metric's unit; for a metric where lower is better, of the reduction.
        confidence: Of each test by itself; instead of an error budget.
        error_budget: The chance of promoting a worse model (by more than the margin, if that is what is tested);
            0.1 where neither this nor `confidence` is declared.
        period: What the budget is for; it holds for every span of that length.
        share: Which part of what is left each test draws. 0.05 suits twelve tests a period and a hundred; of the
            power that the best number of equal parts would have, it costs a tenth.
    """

    over_days: ClassVar[bool] = True

    metric: Metric | None = None
    test: Literal["superiority", "non_inferiority"] = "superiority"
    margin: float = Field(default=0.0, ge=0)
    confidence: float | None = Field(default=None, gt=0.5, lt=1)
    error_budget: float | None = Field(default=None, gt=0, le=0.5)
    period: Duration = Field(default="12 months", validate_default=True)
    share: float = Field(default=0.05, gt=0, lt=1)

    @model_validator(mode="before")
    @classmethod
    def _spend_by_default(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("confidence") is None and value.get("error_budget") is None:
            return {**value, "error_budget": 0.1}
        return value

    @model_validator(mode="after")
    def _one_level(self) -> Self:
        if self.test == "non_inferiority" and not self.margin:
            raise problem("must be above 0 for non_inferiority: by how much it may be worse", 0, loc=("margin",))
        if self.confidence is not None and self.error_budget is not None:
            rule = "must be left out where confidence is declared, as only one of them can set the level"
            raise problem(rule, self.error_budget, loc=("error_budget",))
        return self

    @property
    def spending(self) -> Spending | None:
        """How tests draw from the error budget; None if each is held to `confidence`."""
        from airworthy.budget import Spending

        if self.error_budget is None:
            return None
        return Spending(budget=self.error_budget, period=self.period, share=self.share)

    def gather(self, case: Case) -> Mapping[str, Any]:
        if self.spending is None or case.evidence.champion is None:
            return {}
        from airworthy.budget import Look

        look = Look(
            pipeline=case.pipeline.name,
            as_of=case.challenger.as_of,
            run_id=case.challenger.run_id,
            champion=case.evidence.champion.version,
            # The metric by name: where the pipeline comes to lead with another one, that is another test.
            gate=self.model_copy(update={"metric": self.metric or case.evidence.metric}).declaration,
        )
        drawn = case.budget.draw(look, self.spending)
        return {"alpha": drawn.alpha, "look": drawn.sequence, "left": drawn.left}

    def judge(self, evidence: Evidence) -> Verdict:
        if not evidence.has_champion:
            return self.verdict(True, "there is no champion yet")
        if evidence.champion is None:
            return self.verdict(False, f"the champion could not be scored: {evidence.champion_error}")
        metric = self.metric or evidence.metric
        mine, theirs = evidence.challenger.metrics.get(metric), evidence.champion.metrics.get(metric)
        if mine is None or theirs is None:
            return self.verdict(False, f"{metric} was not measured for this {evidence.task} label")
        drawn = {} if self.confidence else dict(evidence.of(self))
        alpha = drawn["alpha"] if drawn else 1 - (self.confidence or 0)
        found = of_gain(
            metric, evidence.label, evidence.challenger.prediction, evidence.champion.prediction, evidence.block
        )
        lower, upper = found.bounds(1 - alpha)
        numbers = {"gain": found.value, "lower": lower, "upper": upper, "challenger": mine, "champion": theirs}
        passed, reason = self._told(metric, found, alpha)
        return self.verdict(passed, reason, **numbers, days=found.days, **{"alpha": alpha, **drawn})

    def _told(self, metric: Metric, found: Interval, alpha: float) -> tuple[bool, str]:
        if not found.known:
            days = "one day" if found.days == 1 else f"{found.days} days, as too few hold rows of both classes"
            return False, f"{metric} gain {found.value:.4f} is not known from {days}"
        if not alpha > 0:
            return False, f"{metric} gain {found.value:.4f} cannot be tested, as nothing is left of the error budget"
        if found.value and found.error <= 1e-9 * abs(found.value):
            days = f"is the same on all of {found.days} days, so chance cannot be told"
            return False, f"{metric} gain {found.value:.4f} {days}"
        lower, upper = found.bounds(1 - alpha)
        level = f"{100 * (1 - alpha):.3f}".rstrip("0").rstrip(".")
        reason = f"{metric} gain {found.value:.4f} [{lower:.4f}, {upper:.4f}] at {level} % is "
        if self.test == "non_inferiority":
            sure = lower > -self.margin
            return sure, f"{reason}{'surely' if sure else 'not surely'} above {-self.margin:g}"
        if not found.value >= self.margin:
            return False, f"{reason}below the margin {self.margin:g}"
        if not lower > 0:
            return False, f"{reason}not surely above zero"
        return True, f"{reason}above the margin {self.margin:g}"
