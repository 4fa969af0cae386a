"""Calls the functions that users write, so that what goes wrong in them names their file and line."""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator

from airworthy.errors import AirworthyError, DataError
from airworthy.profile import ROOT

_copying: dict[str, threading.Lock] = {}  # by the name of the copy


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
    with raising(function):
        return found(function)(*arguments)


def found(function: str) -> Callable[..., Any]:
    """Returns what `module:name` names.

    Raises:
        DataError: There is no such function or class.
    """
    module, _, name = function.partition(":")
    named = getattr(importlib.import_module(module), name, None)
    if not callable(named):
        raise DataError(function, f"must be a function in the module {module}")
    return named  # type: ignore[no-any-return]


@contextmanager
def raising(function: str) -> Iterator[None]:
    """Turns what a user's code raises into a DataError that names its file and line."""
    try:
        yield
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
    """Returns the SHA-256 of the source of the module that a function written as `module:function` is in.

    Modules that it imports from its own top-level package, by an import statement, count as parts of its source.
    """
    name = function.partition(":")[0]
    own, *others = (hashlib.sha256(content).hexdigest() for content in _sources(name).values())
    return hashlib.sha256("".join([own, *others]).encode()).hexdigest() if others else own


def _sources(name: str) -> dict[str, bytes]:
    """Returns the source of a module, and after it those of the modules it imports below its top-level package."""
    found: dict[str, bytes] = {}
    waiting = {name}
    while waiting:
        module = waiting.pop()
        spec = importlib.util.find_spec(module)
        assert spec is not None
        if spec.origin is None:
            continue  # a folder without code of its own
        found[module] = Path(spec.origin).read_bytes()
        package = module if spec.submodule_search_locations is not None else module.rpartition(".")[0]
        waiting |= _imported(found[module], package, name.partition(".")[0]) - found.keys()
    return {name: found.pop(name), **dict(sorted(found.items()))}


def _imported(source: bytes, package: str, top: str) -> set[str]:
    """Returns the modules below a top-level package that a module of this package imports."""
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except (SyntaxError, ValueError):
        return set()  # importing it tells
    named = {one.name for node in nodes if isinstance(node, ast.Import) for one in node.names}
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            try:
                origin = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            except ImportError:
                continue  # beyond the top: importing it tells
            named |= {origin, *(f"{origin}.{one.name}" for one in node.names)}
    return {module for module in named if module.startswith(f"{top}.") and _is_module(module)}


def _is_module(name: str) -> bool:
    """Returns whether there is such a module; no module but packages is imported to find out."""
    parent = name.rpartition(".")[0]
    if parent:
        if not _is_module(parent):
            return False
        above = importlib.util.find_spec(parent)
        if above is None or above.submodule_search_locations is None:
            return False
    return importlib.util.find_spec(name) is not None


def copied(function: str) -> str:
    """Returns the same written with a copy of its module, as the file is now; the copy is imported.

    A server outlives edits of the file. Python imports a module once, so a new champion would be served with old
    code; and reloading it would change the code under the champion that still answers.
    """
    name, _, attribute = function.partition(":")
    copy = copy_name(name, digest(function))
    with _copying.setdefault(copy, threading.Lock()):  # another thread must not find it half-way
        _import_copy(name, copy)
    return f"{copy}:{attribute}"


def _import_copy(name: str, copy: str) -> None:
    if copy not in sys.modules:
        module = importlib.util.find_spec(name)
        assert module is not None and module.origin is not None
        spec = importlib.util.spec_from_file_location(copy, module.origin)
        assert spec is not None and spec.loader is not None
        sys.modules[copy] = importlib.util.module_from_spec(spec)  # a dataclass looks its own module up
        try:
            spec.loader.exec_module(sys.modules[copy])
        except BaseException:
            del sys.modules[copy]
            raise


def copy_name(module: str, code: str) -> str:
    """Returns what the copy of a module with this digest is called."""
    return f"{module}@{code[:12]}"


def _raised(function: str, error: Exception) -> DataError:
    rule = f"must not raise, but raised {type(error).__name__}: {error}"
    return DataError(function, rule, hint=_place(function, error))


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
