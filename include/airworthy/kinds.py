"""Finds the kinds of sources, models, gates and targets: one module each, registered nowhere.

A kind is a module of a family's package, and the class in it whose name is the module's name in
CamelCase: `gates/metric_floor.py` holds `class MetricFloor(Gate)`, which a pipeline file writes as
`metric_floor: {metric: roc_auc, floor: 0.7}`.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

Family = Literal["sources", "models", "gates", "targets"]


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
    found = getattr(module, "".join(part.capitalize() for part in name.split("_")))
    assert issubclass(found, Kind), f"{module.__name__}: the class must derive from {family}' base class"
    return found


def parse(family: Family, declared: Any) -> Kind:
    """Returns the kind that a one-key mapping such as `{metric_floor: {floor: 0.7}}` declares.

    Raises:
        ValueError: It is not a one-key mapping, or no such kind exists.
        pydantic.ValidationError: The kind's own fields break a rule.
    """
    if isinstance(declared, Kind):
        return declared
    if isinstance(declared, str):
        declared = {declared: {}}
    known = ", ".join(names(family))
    if not isinstance(declared, dict) or len(declared) != 1:
        raise ValueError(f"must be one of {known}, written as `kind: {{...}}`")
    ((name, fields),) = declared.items()
    try:
        kind = find(family, name)
    except KeyError:
        raise ValueError(f"must be one of {known}") from None
    return kind.model_validate(fields or {})
