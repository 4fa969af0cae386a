"""A test that may be looked at after every day: how much who bets on a challenger has won by now.

Nobody can win surely against a fair game, so the chance that the wealth of somebody who began with 1 ever reaches
1/a is at most a (Ville's inequality), however often one looks, and whenever one stops. Sources: Waudby-Smith and
Ramdas, "Estimating means of bounded random variables by betting", JRSS B 86 (2024); Ramdas, Gruenwald, Vovk and
Shafer, "Game-theoretic statistics and safe anytime-valid inference", Statistical Science 38 (2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

_BETS = tuple(number / 10 for number in range(1, 10))  # shares of the wealth; one bettor each, as many at the start

_LARGEST = 3  # times the usual gain or loss: what a day may count


def wealth(gains: Sequence[float]) -> float:
    """Returns the e-value against the hypothesis that days bring no gain on average, given those before them.

    Each day is measured by how large gains and losses have been before it, and counts at most as three usual ones: no
    single day decides, and days of any scale can be bet on without a bound on them. So what is tested is the average
    of gains that are cut off there; with a lower bound, small steady gains would outweigh a rare large loss. Rows of
    one day need not be independent. The first day is not bet on.

    Args:
        gains: Of each day, in the order in which they became known.
    """
    bettors = [1.0] * len(_BETS)
    squares = 0.0
    for number, gain in enumerate(gains):
        if squares > 0:
            score = max(-1.0, min(1.0, gain / (_LARGEST * sqrt(squares / number))))
            bettors = [won * (1 + bet * score) for won, bet in zip(bettors, _BETS, strict=True)]
        squares += gain * gain
    return sum(bettors) / len(bettors)
