"""Finds the kinds of sources, models, gates, targets, online stores and faults: one module each, registered nowhere.

A kind is a module of a family's package, and the class in it whose name is the module's name in
CamelCase: `gates/metric_floor.py` holds `class MetricFloor(Gate)`, which a pipeline file writes as
`metric_floor: {metric: roc_auc, floor: 0.7}`.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer, ValidationError

from airworthy.explain import below, meant, problem

Family = Literal["sources", "models", "gates", "targets", "online", "gameday.faults"]


class Kind(BaseModel):
    """A frozen declaration whose fields are the keys a pipeline file may write."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def kind(cls) -> str:
        return cls.__module__.rpartition(".")[2]


def names(family: Family) -> list[str]:
    """Returns the kinds of a family, sorted."""
    package = importlib.import_module(f"airworthy.{family}")
    return sorted(m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_"))


def find(family: Family, name: str) -> type[Kind]:
    """Returns the class of one kind.

    Raises:
        KeyError: There is no such kind.
    """
    if name not in names(family):
        raise KeyError(name)
    module = importlib.import_module(f"airworthy.{family}.{name}")
    found: type[Kind] = getattr(module, "".join(part.capitalize() for part in name.split("_")))
    assert issubclass(found, Kind), f"{module.__name__}: the class must derive from the base class of {family}"
    return found


def parse(family: Family, declared: Any) -> Kind:
    """Returns the kind that a one-key mapping such as `{metric_floor: {floor: 0.7}}` declares.

    Raises:
        pydantic.ValidationError: It is not a one-key mapping, no such kind exists, or its fields break a rule.
    """
    if isinstance(declared, Kind):
        return declared
    if isinstance(declared, str):
        declared = {declared: {}}
    known = names(family)
    if not isinstance(declared, dict) or len(declared) != 1:
        raise problem(f"must be one of {', '.join(known)}, written as `{known[0]}: {{...}}`", declared)
    ((name, fields),) = declared.items()
    if name not in known:
        raise problem(f"must be one of {', '.join(known)}", name, hint=meant(str(name), known))
    try:
        kind = find(family, name)
    except Exception as error:  # a broken module must not take the pipelines down that do not use it
        raise problem(f"is a kind whose module cannot be imported: {error}", name, loc=(name,)) from error
    try:
        return kind.model_validate({} if fields is None else fields)
    except ValidationError as error:
        raise below(name, error) from None


def declared(family: Family) -> BeforeValidator:
    """Returns what makes a field hold the kind that a file declares."""
    return BeforeValidator(lambda value: parse(family, value))


# As a file writes it, so that a pipeline can be read back from what it was written to.
as_written = PlainSerializer(lambda kind: {kind.kind(): kind.model_dump(mode="json")}, return_type=dict[str, Any])
