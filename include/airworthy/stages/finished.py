"""A finished training run, to be judged in place of a new one: one of this registry, or one that was imported."""

from __future__ import annotations

import logging
from datetime import datetime

from airworthy.config import Pipeline
from airworthy.errors import ModelError, TrainError
from airworthy.lineage import FEATURES
from airworthy.partitions import utc
from airworthy.profile import Profile
from airworthy.registry import CHALLENGER, Challenger, FeaturesRef, Registry
from airworthy.stages.training_data import intervals, read_labelled, rows_digest
from airworthy.store import Store
from airworthy.training_runs import TrainingRuns

log = logging.getLogger(__name__)


def finished(pipeline: Pipeline, run_id: str, as_of: datetime, profile: Profile) -> Challenger:
    """Returns the challenger of a finished run, so that `evaluate` can judge it.

    One that was trained here comes as it is on record, with its own `as_of` and holdout. One that was imported is
    judged as if it had been trained here at `as_of`: on that holdout, from the newest version of this side's
    features, against the champion of that moment. It must have learnt from nothing in that holdout, so its window must
    end before; then neither has any champion, as each was admitted by the same rule. That is put on record as the
    run's own, so that asking again at the same moment gives the same.

    Args:
        pipeline: Whose run it must be.
        run_id: Of the MLflow run.
        as_of: The moment at which an imported model is judged.
        profile: Where the tables and MLflow are.

    Raises:
        ModelError: There is no such finished run of this pipeline, or the holdout begins before the window ends.
        TrainError: The holdout has no labelled rows here.
        ServiceError: MLflow does not answer.
    """
    registry = Registry(profile)
    runs = {run.run_id: run for run in TrainingRuns(profile).of(pipeline.name)}
    if run_id not in runs:
        hint = f"There are: {', '.join(list(runs)[-20:]) or 'none'}"
        raise ModelError(f"run {run_id}", f"must be a finished training run of {pipeline.name}", hint=hint)
    imported = registry.imported(run_id)
    if imported is None:
        found = registry.challenger(run_id).model_copy(update={"reused": True})
        log.info("Run %s was trained here, and is judged as of %s", run_id, f"{found.as_of:%Y-%m-%d %H:%M}")
        return found
    log.info("Run %s is %s, and is judged as of %s", run_id, runs[run_id].source, f"{as_of:%Y-%m-%d %H:%M}")
    return _taken_up(pipeline, imported, runs[run_id].window[1], utc(as_of), profile)


def _taken_up(
    pipeline: Pipeline, imported: Challenger, learnt_until: datetime, as_of: datetime, profile: Profile
) -> Challenger:
    _, holdout = intervals(pipeline, as_of)
    where = f"run {imported.run_id}: as_of"
    earliest = max(imported.as_of, learnt_until + pipeline.train.holdout)
    if holdout[0] < learnt_until or as_of < imported.as_of:
        rule = f"must be {earliest:%Y-%m-%d %H:%M} or later, so that its holdout holds nothing the model learnt from"
        raise ModelError(where, rule, f"{as_of:%Y-%m-%d %H:%M}", "Choose a later as_of, or wait for newer labels")
    store = Store(profile.store_uri, pipeline.name)
    version = store.version(FEATURES)
    if version is None:
        raise TrainError(f"{pipeline.name}: {FEATURES}", "must exist", hint=f"Run {pipeline.name}.ingest first")
    rows = read_labelled(pipeline, store, holdout, version)
    if rows.empty:
        rule = f"must have labelled rows from {holdout[0]:%Y-%m-%d %H:%M} to {holdout[1]:%Y-%m-%d %H:%M} (the holdout)"
        hint = f"Run {pipeline.name}.ingest for these partitions, or choose another as_of"
        raise TrainError(f"{pipeline.name}: {FEATURES}, version {version}", rule, "none", hint)
    features = FeaturesRef(version=version, digest=rows_digest(rows), rows=len(rows))
    update = {"as_of": as_of, "holdout": holdout, "features": features, "metrics": {}, "reused": True}
    challenger = imported.model_copy(update=update)
    Registry(profile).store_artifacts(imported.run_id, {CHALLENGER: challenger.model_dump_json(indent=1).encode()})
    return challenger
