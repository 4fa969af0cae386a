"""Names what changed where a source writes the same values in another way: case, prefix, date format, unit.

A migration often changes how values are written and not what they mean. The model has then never seen them, and
"carrier has drifted" says less than "values came in lower case".
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

import numpy as np

from airworthy.config import Strict
from airworthy.sketches import CategorySketch, NumberSketch

LEAST = 0.02  # of the rows must be written anew
_EXPLAINED = 0.8  # of the new values must be old ones in other dress
_KNOWN = 0.001  # a pattern that fewer of the reference's rows have counts as new
_DATE = re.compile(r"\d{1,4}([-/.:T ]\d{1,4})+.*")
_MEASURE = re.compile(r"[-+]?\d[\d.,]*(\s*[^\W\d_]{1,4}|\s*[%°]\w?)")

# What a unit is worth in another one.
UNITS = {
    "thousands to ones, or kilo": 1000.0,
    "shares to percent": 100.0,
    "hours to minutes, or minutes to seconds": 60.0,
    "hours to seconds": 3600.0,
    "days to hours": 24.0,
    "miles to kilometres": 1.609344,
    "nautical miles to kilometres": 1.852,
    "feet to metres": 0.3048,
    "inches to centimetres": 2.54,
    "inches to millimetres": 25.4,
    "pounds to kilograms": 0.45359237,
    "gallons to litres": 3.785411784,
}
_TOLERANCE = 0.03
_PAIRED = 50  # new values that are compared with every old one


class FormatChange(Strict):
    """A column whose values are written in another way than in training.

    Attributes:
        change: What is different.
        share: Of the rows with a value that are written so.
        before: How a value was written; "" of numbers.
        now: How it is written.
    """

    column: str
    change: str
    share: float
    before: str = ""
    now: str = ""

    @property
    def reason(self) -> str:
        """What was found, as a sentence."""
        example = f", e.g. {self.now!r} for {self.before!r}" if self.before else ""
        return f"{self.column}: {self.change} in {self.share:.0%} of rows, allowed is less than {LEAST:.0%}{example}"

    @property
    def remedy(self) -> str:
        return "Let the source or features() write it as before, and ingest the partition again; do not train on it"


def text_change(column: str, reference: CategorySketch, current: CategorySketch) -> FormatChange | None:
    """Returns how a column writes its values now; None if as before, or if the new values are new in substance."""
    new = {value: count for value, count in current.counts.items() if value not in reference.counts}
    total = sum(new.values())
    if not reference.present or not current.present or total < LEAST * current.present:
        return None
    for change, form in _FORMS.items():
        old = {form(value): value for value in reference.counts}
        if sum(count for value, count in new.items() if form(value) in old) >= _EXPLAINED * total:
            now = max((value for value in new if form(value) in old), key=new.__getitem__)
            share = total / current.present
            change = _case(new) if change == "case" else change
            return FormatChange(column=column, change=change, share=share, before=old[form(now)], now=now)
    return _affix(column, reference, current, new) or _pattern_change(column, reference, current)


def unit_change(column: str, reference: NumberSketch, current: NumberSketch) -> FormatChange | None:
    """Returns the unit that a column of numbers seems to have changed; None if none explains its mean and spread."""
    spreads = np.sqrt(reference.variance), np.sqrt(current.variance)
    if not reference.present or not current.present or not spreads[0] or not spreads[1]:
        return None
    ratio = spreads[1] / spreads[0]
    known = {name: (factor, 0.0) for name, factor in UNITS.items()}
    known["degrees Celsius to Fahrenheit"] = (1.8, 32.0)
    inverse = {_turned(name): (1 / factor, -add / factor) for name, (factor, add) in known.items()}
    for name, (factor, add) in (known | inverse).items():
        expected = reference.mean * factor + add
        if abs(ratio / factor - 1) < _TOLERANCE and abs(current.mean - expected) < _TOLERANCE * max(
            abs(expected), spreads[1]
        ):
            change = f"numbers are as before times {ratio:.4g}, as from {name},"
            return FormatChange(column=column, change=change, share=1.0)
    return None


def pattern(value: str) -> str:
    """Returns how a value is written: `A` and `a` for letters, `9` for digits, in dates as many as there are."""
    if _MEASURE.fullmatch(value):
        return re.sub(r"[-+]?\d[\d.,]*", "9", value)
    if _DATE.fullmatch(value):
        return re.sub(r"[^\W\d_]+", "a", re.sub(r"\d", "9", value))
    value = re.sub(r"\d+", "9", value)
    return re.sub(r"[^\WA-Z\d_]+", "a", re.sub(r"[A-Z]+", "A", value))


_FORMS: dict[str, Callable[[str], str]] = {
    "case": str.casefold,
    "values have other spaces around them": str.strip,
    "values have other leading zeros": lambda value: value.lstrip("0") or "0",
    "whole numbers have other decimals": lambda value: re.sub(r"\.0+$", "", value),
    "values have other punctuation": lambda value: re.sub(r"[\W_]+", "", value).casefold(),
}


def _case(new: dict[str, int]) -> str:
    for name, written in (("lower", str.islower), ("upper", str.isupper)):
        if all(map(written, new)):
            return f"values came in {name} case"
    return "values came in other case"


def _affix(column: str, reference: CategorySketch, current: CategorySketch, new: dict[str, int]) -> FormatChange | None:
    """Returns what all new values have before or behind an old one, or have lost there."""
    found: Counter[tuple[str, str]] = Counter()
    pairs: dict[tuple[str, str], tuple[str, str]] = {}
    common = dict(Counter(new).most_common(_PAIRED))
    for value, count in common.items():
        for old in reference.counts:
            short, long = sorted((value, old), key=len)
            verb = "have" if value == long else "lost"
            if not short or short == long:
                continue
            for kind, part in (("prefix", long.removesuffix(short)), ("suffix", long.removeprefix(short))):
                if part != long:
                    key = f"values {verb} the {kind}", part
                    found[key] += count
                    pairs.setdefault(key, (old, value))
    if not found:
        return None
    key, count = max(found.items(), key=lambda one: (one[1], one[0]))
    if count < _EXPLAINED * sum(common.values()) or (len(new) == 1 and len(reference.counts) > 1):
        return None  # a single new value may end like an old one by accident
    share = sum(new.values()) / current.present
    before, now = pairs[key]
    return FormatChange(column=column, change=f"{key[0]} {key[1]!r}", share=share, before=before, now=now)


def _pattern_change(column: str, reference: CategorySketch, current: CategorySketch) -> FormatChange | None:
    before, now = _patterns(reference), _patterns(current)
    told = sum(current.counts.values())
    new = {written: count for written, (count, _) in now.items() if _share(before, written, reference) < _KNOWN}
    if not before or sum(new.values()) < max(LEAST * told, 1):
        return None
    most, usual = max(new, key=new.__getitem__), max(before, key=lambda written: before[written][0])
    if usual in now and now[usual][0] > _share(before, usual, reference) * told:
        return None  # nothing that was there has become rarer
    change = f"values are written as {most} and no longer as {usual}"
    share = sum(new.values()) / told
    return FormatChange(column=column, change=change, share=share, before=before[usual][1], now=now[most][1])


def _patterns(sketch: CategorySketch) -> dict[str, tuple[int, str]]:
    """Returns how many rows each pattern has, and a value of it."""
    found: dict[str, tuple[int, str]] = {}
    for value, count in sketch.counts.items():
        before, example = found.get(pattern(value), (0, value))
        found[pattern(value)] = (before + count, example)
    return found


def _share(patterns: dict[str, tuple[int, str]], written: str, sketch: CategorySketch) -> float:
    return patterns.get(written, (0, ""))[0] / max(sum(sketch.counts.values()), 1)


def _turned(name: str) -> str:
    return " or ".join(" to ".join(reversed(one.split(" to "))) for one in name.replace(", or", " or").split(" or "))
