"""What Airflow's asset events say of data and models: the same as `airworthy lineage`, as JSON values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from airworthy.config import Pipeline
from airworthy.lineage import FEATURES, RAW, Log, of_run
from airworthy.lineage.marks import up_to_date
from airworthy.profile import Profile
from airworthy.registry import Challenger
from airworthy.store import Store, TableRef, Write

NAMED = 20  # origins, runs or versions; an event is a row of Airflow's database


def of_raw(published: Sequence[TableRef], store: Store) -> list[dict[str, Any]]:
    """Returns what to say of partitions of `raw`: their content, and where it came from."""
    log = Log(store.history(RAW))
    return [{**_content(ref), **_origins(log.at(ref.partition, ref.version))} for ref in published]


def of_features(pipeline: Pipeline, published: Sequence[TableRef], profile: Profile) -> list[dict[str, Any]]:
    """Returns what to say of partitions of `features`, once all that is built on other rows of them is marked.

    MLflow is asked only if one of the partitions was written before. That it was is in the table's log, so a task
    that ended between writing and marking finds it when it runs again.

    Raises:
        ServiceError: MLflow or the ledger does not answer, and there may be something to mark.
    """
    store = Store(profile.store_uri, pipeline.name)
    log, raw = Log(store.history(FEATURES)), Log(store.history(RAW))
    rewritten = any(len(log.of[ref.partition]) > 1 for ref in published)
    found = up_to_date(pipeline, profile) if rewritten else []
    told = []
    for ref in published:
        writes = log.of[ref.partition]
        source = raw.source(writes[-1])
        made_from = {"version": source.version, "digest": source.digest} if source else None
        told.append({**_content(ref), "raw": made_from, **_origins(source)})
        if len(writes) > 1:
            stale = [one for one in found if any(read.partition == ref.partition for read in one.stale)]
            told[-1] |= {
                "replaces": writes[-2].version if ref.changed else None,
                "stale_runs": [one.run.run_id for one in stale][-NAMED:],
                "stale_versions": [version for one in stale for version in one.run.versions][-NAMED:],
            }
    return told


def of_model(pipeline: Pipeline, challenger: Challenger, profile: Profile) -> dict[str, Any]:
    """Returns what to say of a trained model, once its page tells the same.

    Raises:
        ServiceError: MLflow or the ledger does not answer.
    """
    found = of_run(up_to_date(pipeline, profile, challenger.run_id), challenger.run_id)
    return {
        "run_id": challenger.run_id,
        "model_digest": challenger.digest,
        "features": challenger.features.model_dump(),
        "window": [moment.isoformat() for moment in found.run.window],
        "holdout": [moment.isoformat() for moment in found.run.holdout],
        "partitions": sum(read.features is not None for read in found.reads),
        "stale": [read.partition for read in found.stale][:NAMED],
    }


def _content(ref: TableRef) -> dict[str, Any]:
    return ref.model_dump(include={"partition", "version", "digest", "rows", "changed"})


def _origins(raw: Write | None) -> dict[str, Any]:
    origins: list[Mapping[str, Any]] = raw.facts.get("origins", []) if raw else []
    named = [{"name": str(one["name"])[:500], "version": one["version"]} for one in origins[:NAMED]]
    return {"origins": named, "origins_count": len(origins)}
