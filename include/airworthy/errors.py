"""Errors that name the place, the rule, the value and the remedy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

SHOWN = 10


class AirworthyError(Exception):
    """A problem a person can act on, rendered as `where: rule. Got value. Hint.`.

    Args:
        where: The place, e.g. `config/pipelines/churn.yaml: gates[0].floor` or `raw[2013-01-07]`.
        rule: What must hold there, without a final period.
        got: The offending value; left out of the message when not given.
        hint: What to do about it, without a final period.
    """

    _MISSING = object()

    def __init__(self, where: str, rule: str, got: Any = _MISSING, hint: str = "") -> None:
        self.where = where
        self.rule = rule
        self.got = got
        self.hint = hint
        got_text = "" if got is self._MISSING else f" Got {_shorten(repr(got))}."
        hint_text = f" {hint.rstrip('.')}." if hint else ""  # another error's text may serve as a hint
        super().__init__(f"{where}: {rule}.{got_text}{hint_text}")

    def __reduce__(self) -> tuple[Any, ...]:
        """Returns how to make it again, as what crosses a process must be; its cause stays behind."""
        return _again, (type(self), str(self), self.__dict__)

    @property
    def got_text(self) -> str:
        """The offending value as text; "" if there is none."""
        if self.got is self._MISSING:
            return ""
        return self.got if isinstance(self.got, str) else repr(self.got)

    def reworded(self, change: Callable[[str], str]) -> Self:
        """Returns the same error with its rule, value and hint as `change` writes them, and without a cause."""
        found = type(self).__new__(type(self))
        found.__dict__.update(self.__dict__)
        got = self.got if change(self.got_text) == self.got_text else change(self.got_text)
        AirworthyError.__init__(found, self.where, change(self.rule), got, change(self.hint))
        return found


class ConfigError(AirworthyError):
    """A pipeline file or a profile breaks a rule."""


class DataError(AirworthyError):
    """A partition, or what a source returned for it, breaks a rule."""


class TrainError(AirworthyError):
    """A model cannot be trained or scored on the data it was given."""


class ConflictError(AirworthyError):
    """Somebody else changed what this action expected to find; judge again before acting."""


class ModelError(AirworthyError):
    """A model cannot be trusted, does not answer as recorded, or does not go live."""


class ServiceError(AirworthyError):
    """A service (MLflow, the ledger's database, serving, the stack) did not do its part."""


class Problems(AirworthyError):
    """Every problem of one place at once; at most ten are spelled out.

    Args:
        where: The file or table all problems belong to.
        problems: At least one.
    """

    def __init__(self, where: str, problems: Sequence[AirworthyError]) -> None:
        self.where = where
        self.problems = tuple(problems)
        lines = [str(problem) for problem in self.problems[:SHOWN]]
        if len(self.problems) > SHOWN:
            lines.append(f"... and {len(self.problems) - SHOWN} more")
        Exception.__init__(self, "\n".join(lines))


def _again(kind: type[AirworthyError], text: str, said: dict[str, Any]) -> AirworthyError:
    found = kind.__new__(kind)
    found.__dict__.update(said)
    Exception.__init__(found, text)
    return found


def _shorten(text: str, limit: int = 200) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
