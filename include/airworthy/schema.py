"""The JSON Schema of pipeline files, for editors; every kind there is contributes its own keys."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from airworthy import kinds
from airworthy.config import Pipeline, known_expectations

_FIELDS: dict[str, kinds.Family] = {
    "source": "sources",
    "model": "models",
    "gates": "gates",
    "target": "targets",
    "online": "online",
}


def schema() -> dict[str, Any]:
    """Returns the schema of `config/pipelines/<name>.yaml`.

    It knows the names of expectations, but not their arguments, which Great Expectations checks when it runs.
    """
    found = {family: {name: kinds.find(family, name) for name in kinds.names(family)} for family in _FIELDS.values()}
    models: list[type[BaseModel]] = [Pipeline, *(kind for family in found.values() for kind in family.values())]
    places, definitions = models_json_schema([(model, "validation") for model in models])
    pipeline = definitions["$defs"].pop("Pipeline")
    definitions["$defs"]["Expectation"] = {
        "description": "One expectation of Great Expectations, under its own name.",
        "type": "object",
        "propertyNames": {"enum": sorted(known_expectations())},
        "additionalProperties": {"type": "object"},
        "minProperties": 1,
        "maxProperties": 1,
    }
    properties = pipeline["properties"]
    properties.pop("name")  # the file's own name
    policy = definitions["$defs"]["Policy"]["properties"]
    policy |= {name: {"$ref": f"#/$defs/{name.capitalize()}"} for name in ("train", "tune")}
    for place in (properties, definitions["$defs"]["View"]["properties"], policy):
        for field in _FIELDS.keys() & place.keys():
            kinds_there = found[_FIELDS[field]]
            written = [_written(name, places[kind, "validation"]) for name, kind in kinds_there.items()]
            alone = [name for name, kind in kinds_there.items() if not _required(kind)]
            choice = {"oneOf": [*written, {"enum": alone}]}
            many = place[field].get("type") == "array"
            place[field] = {"type": "array", "items": choice, "minItems": 1} if many else choice
    required = [name for name in pipeline["required"] if name != "name"]
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "An Airworthy pipeline"}
    return {**head, **pipeline, **head, "required": required, "$defs": _used(definitions["$defs"], properties)}


def _required(kind: type[kinds.Kind]) -> bool:
    return any(field.is_required() for field in kind.model_fields.values())


def _written(name: str, place: dict[str, Any]) -> dict[str, Any]:
    """Returns the schema of the one-key mapping that declares a kind."""
    return {"type": "object", "properties": {name: place}, "required": [name], "additionalProperties": False}


def _used(definitions: dict[str, Any], properties: dict[str, Any]) -> dict[str, Any]:
    """Returns the definitions that are referred to; the families' base classes are not."""
    used: set[str] = set()
    text = str(properties)
    while found := {name for name in definitions if name not in used and f"#/$defs/{name}'" in text}:
        used |= found
        text += str([definitions[name] for name in found])
    return {name: definitions[name] for name in sorted(used)}
