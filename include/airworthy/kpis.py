"""The time series of a pipeline's key figures, and whether the newest value is what the ones before it let expect.

Seasons are taken out with statsmodels' MSTL (Bandara, Hyndman and Bergmeir, 2021, on the robust STL of Cleveland and
others, 1990). What is left has a level, the median of the last windows, and errors against it, whose spread is the
median absolute deviation; so an alarm of last week neither hides nor causes one today.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from airworthy.config import Strict
from airworthy.partitions import Grain

Scale = Literal["share", "amount", "number"]
SEASONS: dict[Grain, tuple[int, ...]] = {"hour": (24, 168), "day": (7,), "week": (), "month": ()}
KEPT: dict[Grain, int] = {"hour": 3 * 168, "day": 12 * 7, "week": 52, "month": 36}
_LEAST: dict[Grain, int] = {"hour": 2 * 168, "day": 2 * 7, "week": 12, "month": 12}
_RECENT = 7  # windows that the level is the median of
_SMALLEST: dict[Scale, float] = {"share": 0.02, "amount": math.log(1.25), "number": 0.05}
_STRICTER = 10  # a season is never quite regular, and a series never quite normal


@dataclass(frozen=True)
class Kpi:
    """A key figure of one window.

    Attributes:
        rows: That it was measured on.
    """

    name: str
    value: float
    rows: int
    scale: Scale = "number"


class Coverage(Strict):
    """How many of the predictions that serving gave are in the table `captured`, as far as is known."""

    captured: int
    lost: int

    @property
    def share(self) -> float:
        return self.captured / (self.captured + self.lost)

    @property
    def told(self) -> str:
        return f"{self.captured} of {self.captured + self.lost} predictions captured"


class KpiFinding(Strict):
    """The newest value of a time series.

    Attributes:
        expected: What was expected of it; None while there are too few windows before it.
        low, high: Between these it raises no alarm.
        deviations: How many of its usual errors it is away.
        windows: How many came before it.
        since: The first window of those in a row that raise an alarm, up to this one; "" if this one raises none.
    """

    kpi: str
    value: float
    expected: float | None = None
    low: float | None = None
    high: float | None = None
    deviations: float = 0.0
    alarm: bool = False
    windows: int = 0
    since: str = ""

    @property
    def reason(self) -> str:
        """What was found, as a sentence."""
        if self.expected is None:
            return f"{self.kpi} is {self.value:.4g}; {self.windows} windows before it are too few to judge by"
        return (
            f"{self.kpi} is {self.value:.4g}, expected {self.expected:.4g}, allowed {self.low:.4g} to {self.high:.4g}, "
            f"{self.deviations:.1f} times its usual error away"
        )

    @property
    def remedy(self) -> str:
        if not self.alarm:
            return ""
        return _REMEDIES.get(self.kpi.partition(":")[0], "Look at what changed upstream at that time")


_REMEDIES = {
    "rows": "Ask the source what it sends more or less of, and check for doubled or missing rows",
    "accuracy": "See which columns drifted or are written anew; mend them, or train again on labelled rows like these",
    "error": "See which columns drifted or are written anew; mend them, or train again on labelled rows like these",
    "missing": "Find out why the source leaves the column empty, or fills it now",
    "quarantined": "See what the rows fail: airworthy quarantine list",
    "failed_checks": "See what does not hold: airworthy validations --failed",
    "prediction": "See which columns drifted; if none did, the world may have changed: wait for labels or train again",
    "latency": "See what else the machines of serving do, and whether the model or its requests have grown",
    "failures": "See the log of serving: a lookup, the registry or the machine does not do its part",
    "refusals": "See what the requests lack that are refused; who sends them may have changed their form",
    "coverage": "See why serving could not capture its answers: a full disk, a store that was down, a kill",
    "performance": "See which columns drifted or are written anew; mend them, or train again on rows like these",
    "delay": "See what the runs of this partition waited for, or took long over",
}


def judge(
    kpi: str,
    value: float,
    history: Sequence[float] | np.ndarray,
    *,
    grain: Grain,
    scale: Scale,
    rows: int,
    alarms: float,
) -> KpiFinding:
    """Returns whether a value is what the windows before it let expect.

    Args:
        kpi: Its name.
        value: Of the newest window.
        history: Of the windows before it, in order, one for each; NaN where there is none.
        grain: How long a window is.
        scale: A share has binomial noise, an amount is judged by its logarithm.
        rows: That the value was measured on.
        alarms: The chance of an alarm while nothing changes.
    """
    before = np.asarray(history, dtype="float64")[-KEPT[grain] :]
    windows = int(np.isfinite(before).sum())
    if windows < _LEAST[grain]:
        return KpiFinding(kpi=kpi, value=value, windows=windows)
    to, back = (_log, math.expm1) if scale == "amount" else (np.asarray, float)
    expected, spread = _expected(to(before), grain)
    noise = math.sqrt(max(np.clip(expected, 0, 1) * (1 - np.clip(expected, 0, 1)), 0) / max(rows, 1))
    spread = max(spread, noise if scale == "share" else 0.0, 1e-12)
    smallest = _SMALLEST[scale] * (max(abs(expected), 1e-12) if scale == "number" else 1)
    allowed = max(_quantile(alarms / _STRICTER, windows) * spread, smallest)
    away = float(to(np.array([value]))[0]) - expected
    return KpiFinding(
        kpi=kpi,
        value=value,
        expected=back(expected),
        low=back(expected - allowed),
        high=back(expected + allowed),
        deviations=abs(away) / spread if abs(away) > smallest / 100 else 0.0,
        alarm=abs(away) >= allowed,
        windows=windows,
    )


def _expected(before: np.ndarray, grain: Grain) -> tuple[float, float]:
    """Returns what the next window is expected to hold, and the usual error of that."""
    periods = [period for period in SEASONS[grain] if len(before) > 2 * period]
    whole = _filled(before, max(periods, default=1))
    if np.ptp(whole) == 0:
        return float(whole[-1]), 0.0
    season, coming, widening = np.zeros(len(whole)), 0.0, 1.0
    if periods:
        season, coming = _season(whole, periods)
        cycles = len(whole) / periods[-1]
        widening = math.sqrt((1 + 1 / cycles) / (1 - 1 / cycles))  # the season has learned some of the noise
    rest = whole - season
    levels = np.median(np.lib.stride_tricks.sliding_window_view(rest, _RECENT), axis=1)
    errors = rest[_RECENT:] - levels[:-1]
    sizes = np.abs(errors - np.median(errors))
    # Both are the spread of normal errors; among few, one that is far off must not hide the next.
    spread = max(1.4826 * np.median(sizes), np.quantile(sizes, 0.95, method="lower") / 1.96)
    return float(levels[-1]) + coming, float(spread) * widening


def _season(whole: np.ndarray, periods: list[int]) -> tuple[np.ndarray, float]:
    """Returns the seasonal part of each window, and of the one to come."""
    from statsmodels.tsa.seasonal import MSTL

    smooth = [10 * (len(whole) // period) + 7 for period in periods]  # a season that does not change
    # A season is one value for each place in it (degree 0), as few cycles cannot tell a slope from noise. The smooth
    # parts need not be computed anew at each window, nor several times over where there are many.
    settings = {
        "robust": len(periods) == 1,
        "seasonal_deg": 0,
        "trend_jump": min(periods),
        "low_pass_jump": min(periods),
    }
    if len(periods) > 1:  # each season is found twice; what more rounds change is a hundredth of the noise
        settings |= {"inner_iter": 2, "seasonal_jump": len(whole) // min(periods)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a series that is all season, whose robust weights are 0 by 0
        found = MSTL(whole, periods=tuple(periods), windows=tuple(smooth), stl_kwargs=settings).fit().seasonal
    parts = np.asarray(found, dtype="float64").reshape(len(whole), -1)
    coming = sum(float(parts[-period, number]) for number, period in enumerate(periods))
    return parts.sum(axis=1), coming


def _filled(before: np.ndarray, period: int) -> np.ndarray:
    """Returns the series with each gap filled by the median of its place in the season."""
    whole = before.copy()
    for gap in np.flatnonzero(~np.isfinite(whole)):
        same = before[gap % period :: period]
        same = same[np.isfinite(same)] if np.isfinite(same).any() else before[np.isfinite(before)]
        whole[gap] = np.median(same)
    return whole


def _quantile(chance: float, windows: int) -> float:
    """Returns how many errors a value may be away: Student's, as a spread of few windows is uncertain itself."""
    from scipy.stats import t

    return float(t.isf(chance / 2, max(windows // 2, 3)))


def _log(values: np.ndarray) -> np.ndarray:
    return np.asarray(np.log1p(np.maximum(values, 0)))
