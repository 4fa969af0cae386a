"""How far the rows of a partition are from what the champion was trained on, column by column.

A column has drifted if an effect is large and no accident. The effect is Evidently's distance, or the difference of
the shares of missing values, which distances leave out; it is held against a threshold, because at many rows every
difference is significant. That it is no accident is Holm's procedure over all tests of a partition: while nothing
changes, it raises any alarm at all in a share of `false_alarms` of the partitions at most.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from airworthy.concept import Calibration, apart
from airworthy.config import Strict
from airworthy.distances import chance, distance, missing_chance
from airworthy.formatting import FormatChange
from airworthy.kpis import Coverage, KpiFinding
from airworthy.sketches import Kind, Sketch, Sketches, kind_of

PREDICTION = "prediction"
Cause = Literal["values", "missing", "empty", "concept", ""]


class ColumnDrift(Strict):
    """One column of a partition against the training reference.

    Attributes:
        score: The distance; None if either side holds no values to compare.
        missing: Share of missing values in the partition.
        reference_missing: The same in the reference.
        note: Why the column counts as drifted beside its score; "" if there is nothing to add.
        chance: How likely this much is at most if nothing has changed, corrected for how many tests there are.
        remedy: What to do about it; "" if it has not drifted.
        sampled: What Evidently finds on a sample of the rows; None if it was not asked.
    """

    column: str
    kind: Kind
    score: float | None
    threshold: float
    missing: float
    reference_missing: float
    drifted: bool
    note: str = ""
    chance: float = 1.0
    remedy: str = ""
    sampled: float | None = None

    @property
    def reason(self) -> str:
        """What was found, as a sentence."""
        distance = "holds no values to compare" if self.score is None else f"is {self.score:.2f} from training"
        return f"{self.column} {self.note or f'{distance}, allowed is less than {self.threshold:g}'}"


class ConceptDrift(Strict):
    """Whether labels come as they did on the holdout where the model says the same.

    Attributes:
        rows: How many labels are known.
        score: The mean difference, over the rows; as a share, or in standard deviations of a regression's residuals.
        observed: The mean of the outcome: the label, whether the likeliest class is right, or the residual.
        expected: What it was on the holdout, for predictions like these.
    """

    rows: int
    score: float
    threshold: float
    observed: float
    expected: float
    drifted: bool
    chance: float = 1.0
    remedy: str = ""

    @property
    def reason(self) -> str:
        """What was found, as a sentence."""
        return (
            f"where the model says the same, labels are {self.score:.3f} from the holdout, allowed is less than "
            f"{self.threshold:g}: {self.observed:.3f} on average, expected {self.expected:.3f}"
        )


class Drift(Strict):
    """A partition against what its champion was trained on.

    Attributes:
        version: The champion that scored it.
        columns: One finding per feature, and one for `prediction`.
        page: The page's path below `reports_dir`; the findings as JSON are beside it.
        label: The same of the label; None while it is not known.
        concept: None while labels are not known, or the model has nothing to compare them with.
        formats: Columns that write their values in another way.
        kpis: One finding per time series of the pipeline.
        coverage: How many online predictions of that time are known; None if there were none.
    """

    pipeline: str
    partition: str
    version: str
    rows: int
    columns: tuple[ColumnDrift, ...]
    page: str
    label: ColumnDrift | None = None
    concept: ConceptDrift | None = None
    formats: tuple[FormatChange, ...] = ()
    kpis: tuple[KpiFinding, ...] = ()
    coverage: Coverage | None = None

    @property
    def drifted(self) -> tuple[ColumnDrift, ...]:
        return tuple(column for column in self.columns if column.drifted)

    @property
    def alarms(self) -> list[str]:
        """Everything that was found, as sentences with what to do."""
        found: list[ColumnDrift | ConceptDrift | FormatChange | KpiFinding] = [*self.drifted]
        found += [one for one in (self.label, self.concept) if one is not None and one.drifted]
        found += [*self.formats, *(one for one in self.kpis if one.alarm)]
        return [f"{one.reason}. {one.remedy}" for one in found]


@dataclass(frozen=True)
class Limits:
    """From where on something has drifted.

    Attributes:
        columns: The threshold of each column; differences in the share of missing values are held against it too.
        concept: The threshold of the difference in outcomes.
        false_alarms: The share of partitions that may raise an alarm while nothing changes.
    """

    columns: Mapping[str, float]
    concept: float = 0.05
    false_alarms: float = 0.01


def compare(
    reference: Sketches, current: Sketches, limits: Limits, concept: tuple[Calibration, Calibration] | None = None
) -> tuple[list[ColumnDrift], ConceptDrift | None]:
    """Returns one finding per column of `limits`, in its order, and one of the concept if there is any.

    Args:
        reference: Sketches of the training rows.
        current: Sketches of the same columns of the partition.
        limits: What is allowed.
        concept: Outcomes on the holdout, and in the partition.
    """
    chances = []
    for name in limits.columns:
        chances += [chance(reference[name], current[name]), missing_chance(reference[name], current[name])]
    outcomes = apart(*concept) if concept else None
    corrected = holm([*chances, *([outcomes.chance] if outcomes else [])])
    columns = [
        _judged(name, (reference[name], current[name]), limits, corrected[2 * number : 2 * number + 2])
        for number, name in enumerate(limits.columns)
    ]
    if outcomes is None:
        return columns, None
    drifted = outcomes.effect >= limits.concept and corrected[-1] <= limits.false_alarms
    found = ConceptDrift(
        rows=outcomes.rows,
        score=outcomes.effect,
        threshold=limits.concept,
        observed=outcomes.observed,
        expected=outcomes.expected,
        drifted=drifted,
        chance=corrected[-1],
        remedy="What the model learned does not hold any more: train again on rows like these" if drifted else "",
    )
    return columns, found


def holm(chances: Sequence[float]) -> list[float]:
    """Returns the chances corrected so that those of a true hypothesis are below x in a share of x of all families.

    The procedure is Holm's (A simple sequentially rejective multiple test procedure, 1979); tests may depend.
    """
    order = sorted(range(len(chances)), key=chances.__getitem__)
    corrected, most = [1.0] * len(chances), 0.0
    for rank, number in enumerate(order):
        most = max(most, min(1.0, (len(chances) - rank) * chances[number]))
        corrected[number] = most
    return corrected


def _judged(name: str, sketches: tuple[Sketch, Sketch], limits: Limits, chances: Sequence[float]) -> ColumnDrift:
    reference, current = sketches
    score, threshold = distance(reference, current), limits.columns[name]
    was_gone, gone = (1 - one.present / one.rows if one.rows else 1.0 for one in sketches)
    empty = not current.present and reference.present > 0
    missing_moved = abs(gone - was_gone) >= (min(threshold, was_gone or 1) if empty else threshold)
    missing_moved = missing_moved and chances[1] <= limits.false_alarms
    moved = score is not None and score >= threshold and chances[0] <= limits.false_alarms
    remedy = ""
    if missing_moved:
        remedy = "Find out why the source leaves it empty, or fills it now"
    elif moved:
        remedy = (
            "See which columns drifted with it; if the world has changed, train again"
            if name == PREDICTION
            else "If the world has changed, train again; if its meaning or unit has, mend the source or features()"
        )
    return ColumnDrift(
        column=name,
        kind=kind_of(reference),
        score=score,
        threshold=threshold,
        missing=gone,
        reference_missing=was_gone,
        drifted=moved or missing_moved,
        note=f"is missing in {gone:.0%} of rows, in training {was_gone:.0%}" if missing_moved else "",
        chance=min(chances[:1] if moved and not missing_moved else chances),
        remedy=remedy,
    )
