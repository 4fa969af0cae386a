"""Says in plain words, with the path as in the YAML, what pydantic found wrong."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from airworthy.errors import ConfigError

_RULES = {
    "missing": "is required",
    "extra_forbidden": "is not a known key",
    "string_type": "must be text",
    "string_too_short": "must not be empty",
    "string_pattern_mismatch": "must match {pattern}",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be one of {expected}",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "too_short": "must have at least {min_length} item(s)",
    "too_long": "must have at most {max_length} item(s)",
    "dict_type": "must be a mapping of keys",
    "model_type": "must be a mapping of keys",
    "model_attributes_type": "must be a mapping of keys",
}
_WITHOUT_VALUE = frozenset({"missing", "extra_forbidden"})


def explain(where: str, error: ValidationError) -> list[ConfigError]:
    """Returns one error per broken rule, each naming the path of keys that leads to it."""
    problems = []
    details = error.errors(include_url=False)
    for detail in details:
        kind, context, loc = detail["type"], detail.get("ctx", {}), detail["loc"]
        if kind == "too_short" and any(
            len(other["loc"]) > len(loc) and other["loc"][: len(loc)] == loc for other in details
        ):
            continue  # pydantic leaves broken items out before it counts
        if kind.startswith(("datetime", "date", "timezone")):
            rule = "must be a date, e.g. 2013-01-31"
        elif kind in _RULES:
            rule = _RULES[kind].format(**{key: _plain(value) for key, value in context.items()})
        else:
            rule = detail["msg"].removeprefix("Value error, ")
        got = {} if kind in _WITHOUT_VALUE else {"got": context.get("got", detail["input"])}
        place, hint = _path(loc), context.get("hint", "Check the spelling" if kind == "extra_forbidden" else "")
        problems.append(ConfigError(where, f"{place} {rule}".strip(), hint=hint, **got))
    return problems


def problem(rule: str, got: Any, *, loc: tuple[int | str, ...] = (), hint: str = "") -> ValidationError:
    """Returns an error for a validator to raise, with its own place, value and hint."""
    context = {"got": got, "hint": hint}
    kind = PydanticCustomError("rule", "{rule}", {"rule": rule, **context})
    return ValidationError.from_exception_data("rule", [InitErrorDetails(type=kind, loc=loc, input=got)])


def below(key: str, *errors: ValidationError) -> ValidationError:
    """Returns the same errors as one, with every place one key deeper."""
    details = []
    for detail in (detail for error in errors for detail in error.errors(include_url=False)):
        kind: Any = detail["type"]
        context = detail.get("ctx", {})
        if kind == "rule":
            kind = PydanticCustomError("rule", "{rule}", context)
        loc = (key, *detail["loc"])
        details.append(InitErrorDetails(type=kind, loc=loc, input=detail["input"], ctx=context))
    return ValidationError.from_exception_data(errors[0].title, details)


def meant(name: str, known: Iterable[str]) -> str:
    """Returns a hint that names the known name closest to a misspelt one; "" if none is close."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"Perhaps {close[0]} is meant" if close else ""


def _path(loc: tuple[int | str, ...]) -> str:
    path = ""
    for part in loc:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return str(value).replace("'", "").replace(" or ", ", ")
