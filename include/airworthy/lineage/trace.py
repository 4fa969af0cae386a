"""`airworthy lineage`: from a model to its data, and from data to the models made of it, in the terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from airworthy.config import Pipeline, load_pipeline
from airworthy.errors import DataError
from airworthy.lineage import Lineage, Use, lineages, of_run, of_version, tables, uses
from airworthy.lineage.page import page_path, write_page
from airworthy.profile import Profile, load_profile, pipelines_dir
from airworthy.registry import IMPORTED_LINEAGE, Registry
from airworthy.terminal import lines


def run(pipeline: str, environment: Mapping[str, str], *, as_json: bool = False, **asked: str | None) -> None:
    """Prints the lineage of one model, or of data.

    Args:
        pipeline: The pipeline's name.
        environment: Where the services are.
        as_json: For machines.
        asked: One of `model_version`, `run`, `partition` and `origin`; without any, every model in a line.

    Raises:
        ModelError: There is no such model.
        DataError: There is no such partition or origin.
    """
    profile = load_profile(environment)
    declared = load_pipeline(pipelines_dir() / f"{pipeline}.yaml")
    found = lineages(declared, profile)
    if version := asked.get("model_version"):
        _tell_model(declared, profile, of_version(found, version), as_json=as_json)
    elif run_id := asked.get("run"):
        _tell_model(declared, profile, of_run(found, run_id), as_json=as_json)
    elif (partition := asked.get("partition")) or (origin := asked.get("origin")):
        wanted = {"partition": partition} if partition else {"origin": origin or ""}
        _tell_data(uses(declared, profile, found, **wanted), wanted, as_json=as_json)
    else:
        print(_json([_as_json(one) for one in found]) if as_json else "\n".join(lines(*tables.models(found))))


def _tell_model(pipeline: Pipeline, profile: Profile, lineage: Lineage, *, as_json: bool) -> None:
    if as_json:
        print(_json(_as_json(lineage)))
        return
    write_page(pipeline, lineage, profile)
    run_id = lineage.run.run_id
    registry = Registry(profile)
    print(f"{pipeline.name} {tables.name(lineage)}\n")
    print("\n".join(lines(*tables.model(lineage, registry.run_url(run_id)))), end="\n\n")
    recorded = registry.load_artifact(run_id, IMPORTED_LINEAGE) if lineage.run.source else None
    if recorded is not None:
        lineage = Lineage.model_validate_json(recorded)
        print(f"There it was {tables.name(lineage)}, {tables.features(lineage)} of features, of:\n")
    print("\n".join(lines(*tables.partitions(lineage))), end="\n\n")
    print(f"As a picture: {profile.reports_dir / page_path(pipeline, run_id)}")


def _tell_data(found: list[Use], wanted: Mapping[str, str], *, as_json: bool) -> None:
    if not found:
        (name, value) = next(iter(wanted.items()))
        raise DataError(f"{name} {value}", "must be in raw", hint="`airworthy lineage` without it lists every model")
    if as_json:
        print(_json([{**use.model_dump(mode="json"), "lineages": list(map(_brief, use.lineages))} for use in found]))
    else:
        print("\n".join(lines(*tables.back(found))))


def _as_json(lineage: Lineage) -> dict[str, Any]:
    told = lineage.model_dump(mode="json")
    for read, dumped in zip(lineage.reads, told["reads"], strict=True):
        dumped["state"] = read.state
    return told


def _brief(lineage: Lineage) -> dict[str, Any]:
    told = lineage.model_dump(mode="json", exclude={"reads"})
    return {**told, "stale": [read.partition for read in lineage.stale]}


def _json(value: Any) -> str:
    return json.dumps(value, indent=1)
