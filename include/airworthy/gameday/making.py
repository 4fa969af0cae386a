"""Makes the copy of a pipeline, and removes all of it."""

from __future__ import annotations

import json
import logging
import shutil
from datetime import datetime
from typing import Any

import pandas as pd
import sqlalchemy as sa

from airworthy.config import Pipeline
from airworthy.database import Database
from airworthy.errors import DataError
from airworthy.gameday.copies import STATE, Copy, promote
from airworthy.gameday.declaration import declare, folder_of, name_of
from airworthy.gameday.served import end_orphan
from airworthy.ledger import Ledger
from airworthy.pages import write_whole
from airworthy.partitions import parse_key
from airworthy.profile import Profile
from airworthy.registry import Registry
from airworthy.stages.ingest import RAW
from airworthy.stages.process import FEATURES
from airworthy.store import Store

_ROWS = 20_000  # of a partition
_DELETED = "RESOURCE_DOES_NOT_EXIST"

log = logging.getLogger(__name__)


def make(pipeline: Pipeline, profile: Profile) -> Copy:
    """Returns a copy with the newest partitions of a pipeline, and a champion that does not know the last of them.

    Nothing of the pipeline itself is changed. A copy that an earlier game day left is removed first.

    Raises:
        ConfigError: The pipeline has views, or no schema contract.
        DataError: It has too few partitions.
        TrainError: No champion can be trained on them.
        ServiceError: MLflow or the ledger does not answer.
    """
    real = Store(profile.store_uri, pipeline.name)
    before, coming = _chosen(pipeline, real)
    remove(pipeline.name, profile)
    folder, name = folder_of(pipeline.name), name_of(pipeline.name)
    folder.mkdir(parents=True, mode=0o700)
    lent = declare(pipeline, folder, profile)
    as_of = parse_key(pipeline.partition, coming[0]).start
    state = {"as_of": as_of.isoformat(), "coming": coming, "lent": lent}
    write_whole(folder / STATE, json.dumps(state))
    copy = Copy.of(pipeline.name, profile)
    _make_schema(name, copy.profile)
    with copy.here():
        Ledger(copy.profile.ledger_url).create()
        for key in before:
            _copy_tables(key, real, copy)
        (folder / "kept").mkdir()
        for key in coming:
            _rows(real, RAW, key).to_parquet(folder / "kept" / f"{key}.parquet", index=False)
        entry = promote(copy)
    log.info("%s: version %s is champion of %d partitions before %s", name, entry.version, len(before), coming[0])
    return copy


def remove(pipeline: str, profile: Profile) -> None:
    """Leaves nothing of a pipeline's copy: its files, its ledger, its registered model and its runs' files.

    MLflow keeps its experiment among the deleted ones, until `mlflow gc`.

    Raises:
        ServiceError: MLflow or the ledger does not answer.
    """
    name, folder = name_of(pipeline), folder_of(pipeline)
    end_orphan(folder)
    _drop_schema(name, profile)
    _forget_model(name, Registry(profile))
    if folder.exists():
        shutil.rmtree(folder)


def _chosen(pipeline: Pipeline, real: Store) -> tuple[list[str], list[str]]:
    """Returns the partitions that a champion is trained on, and those that come after its training."""
    there = sorted(real.partitions(FEATURES)) if real.version(FEATURES) is not None else []
    last = pipeline.retrain.debounce
    if len(there) <= last:
        rule = f"must have more than {last} partition(s): as many must drift until a retrain is asked for"
        hint = f"Run {pipeline.name}.ingest for more"
        raise DataError(f"{pipeline.name}: {FEATURES}", rule, len(there), hint)
    coming = there[-last:]
    as_of = parse_key(pipeline.partition, coming[0]).start
    since: datetime = as_of - pipeline.train.holdout - pipeline.train.holdout
    before = [key for key in there[:-last] if parse_key(pipeline.partition, key).end > since]
    if not before:
        raise DataError(
            f"{pipeline.name}: {FEATURES}", f"must have partitions after {since:%Y-%m-%d}", there[-last - 1]
        )
    return before, coming


def _copy_tables(key: str, real: Store, copy: Copy) -> None:
    partition = parse_key(copy.pipeline.partition, key)
    raw = copy.store.write(RAW, partition, _rows(real, RAW, key))
    copy.store.write(FEATURES, partition, _rows(real, FEATURES, key), facts={"raw": raw.version, "digest": raw.digest})


def _rows(real: Store, table: str, key: str) -> pd.DataFrame:
    return real.read(table, partitions=[key]).head(_ROWS)


def _make_schema(name: str, profile: Profile) -> None:
    if sa.make_url(profile.ledger_url).get_backend_name() == "postgresql":
        with Database("copy's ledger", profile.ledger_url).transaction() as connection:
            connection.execute(sa.text(f'CREATE SCHEMA "{name}"'))


def _drop_schema(name: str, profile: Profile) -> None:
    if sa.make_url(profile.ledger_url).get_backend_name() == "postgresql":
        with Database("copy's ledger", profile.ledger_url).transaction() as connection:
            connection.execute(sa.text(f'DROP SCHEMA IF EXISTS "{name}" CASCADE'))


def _forget_model(name: str, registry: Registry) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    with registry.answering():
        client = registry.client
        try:
            client.delete_registered_model(name)
        except MlflowException as error:
            if error.error_code != _DELETED:
                raise
        found = client.get_experiment_by_name(name)
        if found is None or found.lifecycle_stage != "active":
            return
        files: Any = get_artifact_repository(found.artifact_location, tracking_uri=registry.uri)
        files.delete_artifacts()
        client.rename_experiment(found.experiment_id, f"{name} {found.experiment_id}")  # frees the name
        client.delete_experiment(found.experiment_id)
