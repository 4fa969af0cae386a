"""How far two sketches of a column are apart, and how likely that much is if nothing has changed.

The distances are Evidently's: Wasserstein's over the standard deviation of the reference for numbers, Jensen and
Shannon's for categories. The chances count rows, which are taken as drawn independently of each other.
"""

from __future__ import annotations

import numpy as np

from airworthy.sketches import CategorySketch, NumberSketch, Sketch

_LEAST_DEVIATION = 0.001  # as Evidently has it
_EXPECTED = 5  # rows that a cell needs for a chi-squared test (Cochran, 1954)


def distance(reference: Sketch, current: Sketch) -> float | None:
    """Returns Evidently's distance; None if one side holds no values."""
    if not reference.present or not current.present:
        return None
    if isinstance(reference, NumberSketch):
        assert isinstance(current, NumberSketch)
        return _wasserstein(reference, current) / max(float(np.sqrt(reference.variance)), _LEAST_DEVIATION)
    from scipy.spatial.distance import jensenshannon

    assert isinstance(current, CategorySketch)
    before, now = _cells(reference, current)
    return float(jensenshannon(before / before.sum(), now / now.sum()))


def chance(reference: Sketch, current: Sketch) -> float:
    """Returns at most how likely a distance this large is if both sides are drawn from the same distribution."""
    if not reference.present or not current.present:
        return 1.0
    if isinstance(reference, NumberSketch):
        assert isinstance(current, NumberSketch)
        return _chance_of_numbers(reference, current)
    assert isinstance(current, CategorySketch)
    return _homogeneous(*_cells(reference, current))


def missing_chance(reference: Sketch, current: Sketch) -> float:
    """Returns how likely the shares of missing values differ this much if they are the same."""
    before, now = (np.array([one.present, one.rows - one.present], dtype="float64") for one in (reference, current))
    if not before.sum() or not now.sum():
        return 1.0
    expected = (before + now) * min(before.sum(), now.sum()) / (before.sum() + now.sum())
    if expected.min() >= _EXPECTED:
        return _homogeneous(before, now)
    from scipy.stats import fisher_exact

    return float(fisher_exact(np.stack([before, now]).astype("int64")).pvalue)


def _chance_of_numbers(reference: NumberSketch, current: NumberSketch) -> float:
    """Returns a bound of the chance of Wasserstein's distance.

    Between large samples of one distribution, the distance is the integral of the absolute value of a Gaussian
    process. Its mean is at most the square root of 2/π times the integral of the deviation of F - G, and no part of
    it varies more than the difference of the means does, so that by Gaussian concentration (Borell, 1975; Cirel'son,
    Ibragimov and Sudakov, 1976) it exceeds its mean by u of those standard errors with at most the chance of a normal
    variable to exceed u.
    """
    from scipy.stats import norm

    m, n = reference.present, current.present
    spread = reference.variance / m + max(reference.variance, current.variance) / n
    found = _wasserstein(reference, current)
    least = (n / (m + n)) ** min(n, 1000)  # there are not more ways than that to draw these n rows out of all
    if not found:
        return 1.0
    if not spread:
        return float(least)
    width = _widths(reference, current)
    noise = np.zeros(len(width))
    for sketch, count in ((reference, m), (current, n)):
        share = np.divide(_areas(sketch), width, out=np.zeros(len(width)), where=width > 0).clip(0, 1)
        noise += share * (1 - share) / count
    usual = float(np.sqrt(2 / np.pi) * (np.sqrt(noise) * width).sum())
    return float(max(norm.sf((found - usual) / np.sqrt(spread)), least))


def _wasserstein(reference: NumberSketch, current: NumberSketch) -> float:
    """Returns the area between both distribution functions.

    Each side's values in a bin are taken to lie at their mean. That keeps the area between the functions where they
    do not cross, and finds most of it where they do.
    """
    edges = reference.edges
    left, right = np.concatenate(([edges[0]], edges)), np.concatenate((edges, [edges[-1]]))
    steps = [sketch.counts / sketch.present for sketch in (reference, current)]
    means = [
        np.where(sketch.counts > 0, sketch.sums / np.maximum(sketch.counts, 1), np.nan)
        for sketch in (reference, current)
    ]
    first, last = (np.where(np.isnan(one), left, one) for one in (np.fmin(*means), np.fmax(*means)))
    before = np.cumsum(steps[0] - steps[1]) - (steps[0] - steps[1])
    between = before + np.where(means[0] == first, steps[0], -steps[1])
    after = before + steps[0] - steps[1]
    # Beyond the outer edges, what is left of the first and right of the last mean has no height.
    before[0] = after[-1] = 0.0
    area = np.abs(before * (first - left)) + np.abs(between * (last - first)) + np.abs(after * (right - last))
    return float(area.sum())


def _areas(sketch: NumberSketch) -> np.ndarray:
    """Returns the area below the distribution function in each bin; above it in the last one, which has no end."""
    edges, counts = sketch.edges, sketch.counts
    left = np.concatenate(([edges[0]], edges))
    right = np.concatenate((edges, [edges[-1]]))
    below = np.concatenate(([0.0], np.cumsum(counts)[:-1]))
    areas = (right - left) * below + counts * right - sketch.sums
    areas[-1] = sketch.sums[-1] - counts[-1] * edges[-1]
    return np.asarray(areas / sketch.present)


def _widths(*sketches: NumberSketch) -> np.ndarray:
    edges = sketches[0].edges
    low, high = min(one.low for one in sketches), max(one.high for one in sketches)
    return np.diff(np.concatenate(([min(low, edges[0])], edges, [max(high, edges[-1])])))


def _cells(reference: CategorySketch, current: CategorySketch) -> tuple[np.ndarray, np.ndarray]:
    """Returns how often each value of the reference comes in both, and last, how often any other does."""
    names = list(reference.counts)
    before = [float(reference.counts[name]) for name in names] + [float(reference.other)]
    shared = [float(current.counts.get(name, 0)) for name in names]
    now = [*shared, float(current.present) - sum(shared)]
    return np.array(before), np.array(now)


def _homogeneous(before: np.ndarray, now: np.ndarray) -> float:
    """Returns the chance of Pearson's chi-squared, with the rare cells taken together."""
    from scipy.stats import chi2_contingency

    table = np.stack([before, now])
    expected = table.sum(axis=0) * table.sum(axis=1).min() / table.sum()
    order = np.argsort(expected)
    rare = order[: int(np.searchsorted(np.cumsum(expected[order]), _EXPECTED, side="right")) + 1]
    rare = np.union1d(rare, np.flatnonzero(expected < _EXPECTED))
    kept = np.setdiff1d(np.arange(table.shape[1]), rare)
    cells = np.column_stack([table[:, kept], table[:, rare].sum(axis=1)])
    cells = cells[:, cells.sum(axis=0) > 0]
    if cells.shape[1] < 2:
        return 1.0
    return float(chi2_contingency(cells, correction=False).pvalue)
