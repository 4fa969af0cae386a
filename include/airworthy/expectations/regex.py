"""Regular expressions of Python in the words of RE2, which DuckDB searches with and Spark's Java understands."""

from __future__ import annotations

import re
import sys
from functools import cache
from re import _constants as sre  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

from airworthy.expectations.rows import UntranslatableError

_MOST = 1000  # repetitions in RE2
_FLAGS = re.UNICODE | re.VERBOSE | re.DOTALL
_CATEGORIES = {
    sre.CATEGORY_DIGIT: r"\d+",
    sre.CATEGORY_NOT_DIGIT: r"\D+",
    sre.CATEGORY_SPACE: r"\s+",
    sre.CATEGORY_NOT_SPACE: r"\S+",
    sre.CATEGORY_WORD: r"\w+",
    sre.CATEGORY_NOT_WORD: r"\W+",
}


def re2(pattern: str) -> str:
    """Returns a pattern with which RE2 finds something in exactly the texts in which Python does.

    They differ in what is a digit or a letter outside ASCII, and in what ends a text. Only whether
    something is found matters, so groups capture nothing.

    Raises:
        UntranslatableError: It is no regular expression, or RE2 knows nothing of the kind, such as
            look-around, back-references and word boundaries.
    """
    try:
        parsed = parser.parse(pattern)
    except (re.error, RecursionError) as error:
        raise UntranslatableError(str(error)) from None
    if parsed.state.flags & ~_FLAGS:
        raise UntranslatableError("the regular expression has flags")
    return _sequence(parsed, dotall=bool(parsed.state.flags & re.DOTALL), last=True)


def _sequence(items: Any, *, dotall: bool, last: bool) -> str:
    parts = list(items)
    return "".join(
        _item(operator, argument, dotall=dotall, last=last and number == len(parts) - 1)
        for number, (operator, argument) in enumerate(parts)
    )


def _item(operator: Any, argument: Any, *, dotall: bool, last: bool) -> str:
    if operator is sre.LITERAL:
        return _character(argument)
    if operator is sre.NOT_LITERAL:
        return f"[^{_character(argument)}]"
    if operator is sre.ANY:
        return r"[\x{0}-\x{10FFFF}]" if dotall else r"[^\x{A}]"
    if operator is sre.IN:
        return _set(argument)
    if operator is sre.AT:
        return _place(argument, last=last)
    if operator is sre.BRANCH:
        return f"(?:{'|'.join(_sequence(one, dotall=dotall, last=last) for one in argument[1])})"
    if operator is sre.SUBPATTERN and not argument[1] and not argument[2]:
        return f"(?:{_sequence(argument[3], dotall=dotall, last=last)})"
    if operator in (sre.MAX_REPEAT, sre.MIN_REPEAT):
        least, most, repeated = argument
        return f"(?:{_sequence(repeated, dotall=dotall, last=False)}){_times(least, most)}"
    raise UntranslatableError(f"RE2 has no {str(operator).lower()}")


def _times(least: int, most: Any) -> str:
    if least > _MOST or (most is not sre.MAXREPEAT and most > _MOST):
        raise UntranslatableError(f"RE2 repeats at most {_MOST} times")
    return f"{{{least},{'' if most is sre.MAXREPEAT else most}}}"


def _place(place: Any, *, last: bool) -> str:
    if place in (sre.AT_BEGINNING, sre.AT_BEGINNING_STRING):
        return r"\A"
    if place is sre.AT_END_STRING:
        return r"\z"
    if place is sre.AT_END and last:  # Python's `$` also stands before a final newline
        return r"(?:\n?\z)"
    raise UntranslatableError(f"RE2 has no {str(place).lower()}")


def _set(members: Any) -> str:
    ranges: list[tuple[int, int]] = []
    negated = False
    for operator, argument in members:
        if operator is sre.NEGATE:
            negated = True
        elif operator is sre.LITERAL:
            ranges.append((argument, argument))
        elif operator is sre.RANGE:
            ranges.append(argument)
        elif operator is sre.CATEGORY and argument in _CATEGORIES:
            ranges.extend(_category(argument))
        else:
            raise UntranslatableError(f"RE2 has no {str(operator).lower()}")
    inside = "".join(f"{_character(first)}-{_character(final)}" for first, final in ranges)
    return f"[{'^' if negated else ''}{inside}]"


def _character(code: int) -> str:
    return rf"\x{{{code:X}}}"


@cache
def _category(category: Any) -> tuple[tuple[int, int], ...]:
    """Returns the ranges of characters that Python itself takes for digits, spaces or letters."""
    characters = "".join(map(chr, range(sys.maxunicode + 1)))
    return tuple((found.start(), found.end() - 1) for found in re.finditer(_CATEGORIES[category], characters))
