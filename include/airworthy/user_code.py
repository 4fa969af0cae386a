"""Calls the functions that users write, so that what goes wrong in them names their file and line."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator

from airworthy.errors import AirworthyError, DataError
from airworthy.profile import ROOT


def _importable(value: str) -> str:
    module, _, name = value.partition(":")
    if not (module and name.isidentifier()):
        raise ValueError("must be written as `module:function`")
    try:
        found = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise ValueError(f"names the module {module!r}, which cannot be imported; put it in include/pipelines")
    return value


Function = Annotated[str, AfterValidator(_importable)]


def call(function: str, *arguments: Any) -> Any:
    """Returns what a function written as `module:function` returns.

    Raises:
        DataError: There is no such function, or it raised; an `AirworthyError` it raises is passed on as it is.
    """
    try:
        return _find(function)(*arguments)
    except AirworthyError:
        raise
    except Exception as error:
        raise _raised(function, error) from error


def drawn(function: str, items: Iterator[Any]) -> Iterator[Any]:
    """Yields what a function's iterator yields; what it raises is told as `call` does."""
    while True:
        try:
            item = next(items)
        except StopIteration:
            return
        except AirworthyError:
            raise
        except Exception as error:
            raise _raised(function, error) from error
        yield item


def digest(function: str) -> str:
    """Returns the SHA-256 of the source of the module that a function written as `module:function` is in."""
    module = importlib.util.find_spec(function.partition(":")[0])
    assert module is not None and module.origin is not None
    return hashlib.sha256(Path(module.origin).read_bytes()).hexdigest()


def _raised(function: str, error: Exception) -> DataError:
    rule = f"must not raise, but raised {type(error).__name__}: {error}"
    return DataError(function, rule, hint=_place(function, error))


def _find(function: str) -> Callable[..., Any]:
    module, _, name = function.partition(":")
    found = getattr(importlib.import_module(module), name, None)
    if not callable(found):
        raise DataError(function, f"must be a function in the module {module}")
    return found  # type: ignore[no-any-return]


def _place(function: str, error: Exception) -> str:
    """Returns the innermost line of the user's own file that the exception passed through."""
    origin = importlib.util.find_spec(function.partition(":")[0])
    file = None if origin is None else origin.origin
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    if isinstance(error, SyntaxError) and error.filename == file:
        return f"Line {error.lineno} of {_short(file)}: {(error.text or '').strip()}"
    if not frames or file is None:
        return ""
    return f"Line {frames[-1].lineno} of {_short(file)}: {frames[-1].line}"


def _short(file: str | None) -> str:
    path = Path(file or "")
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name
