"""A canary in batch scoring: the challenger's predictions for a scored partition, beside the champion's and after them.

They are in a table of their own, written by a task of its own, so a challenger that fails or hangs there keeps neither
the champion's predictions nor what is measured of them.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import pandas as pd

from airworthy.canary import part_of
from airworthy.config import Pipeline
from airworthy.errors import ServiceError
from airworthy.ledger import Entry
from airworthy.partitions import Partition, parse_key
from airworthy.profile import Profile
from airworthy.stages.monitor import VERSION, columns_of, loaded, partition_of, write_predictions
from airworthy.stages.performance import FEATURES, SCORED
from airworthy.store import Store

TRIED = "challenger_predictions"

log = logging.getLogger(__name__)


def tried(pipeline: Pipeline, partition: Partition, running: Entry, profile: Profile) -> str:
    """Leaves the challenger's predictions for its rows of a scored partition; returns why it cannot, or "".

    Its rows are those whose key is in its share, where `answers` says that they stand in place of the champion's; in
    the shadow they are all rows. A partition that the champion of this canary has not scored, or that began before the
    challenger's data ended, has none.

    Raises:
        ServiceError: MLflow does not answer.
    """
    store = Store(profile.store_uri, pipeline.name)
    if running.as_of is None or running.as_of > partition.start or not store.has(SCORED, partition.key):
        return ""
    if {*partition_of(store, SCORED, partition)[VERSION]} != {running.expected}:
        return ""
    features = partition_of(store, FEATURES, partition)
    chosen = features[_chosen(pipeline, running, features)]
    if chosen.empty:
        return ""
    try:
        with loaded(pipeline, running, profile) as model:
            prediction, classes = model.predict(chosen), model.contract.classes
    except ServiceError:
        raise
    except Exception as error:  # whatever a challenger does, the champion has scored the partition
        log.warning("Version %s failed on %s", running.version, partition.key, exc_info=True)
        return f"the challenger failed on {FEATURES}[{partition.key}]: {error}"
    found = chosen[pipeline.identity].assign(**columns_of(prediction, classes))
    found = found.assign(**{VERSION: running.version}, began=running.began, answers=not running.step.shadow)
    write_predictions(store, TRIED, partition, found)
    return ""


def compared(pipeline: Pipeline, store: Store, running: Entry) -> pd.DataFrame:
    """Returns the rows of a canary that both versions have scored in batch: `prediction` is the champion's.

    The challenger's are in `prediction_challenger`; of several classes also `p_<class>` and `p_<class>_challenger`.
    """
    parts = []
    for key in store.partitions(TRIED):
        partition = parse_key(pipeline.partition, key)
        own, champion = partition_of(store, TRIED, partition), store.read(SCORED, partitions=[key])
        own = own[own["began"] == running.began].drop(columns=["began", "answers"])
        champion = champion[champion[VERSION] == running.expected]
        parts.append(champion.merge(own, on=pipeline.identity, suffixes=("", "_challenger")))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _chosen(pipeline: Pipeline, running: Entry, features: pd.DataFrame) -> np.ndarray:
    """Returns which rows are the challenger's, by the same hash of the same key as in serving."""
    step, policy = running.step, pipeline.canary
    if step.shadow:
        return np.ones(len(features), dtype=bool)
    names: Sequence[str] = (policy.key,) if policy and policy.key else pipeline.key
    if any(name not in features for name in names):
        return np.zeros(len(features), dtype=bool)  # what has no key is the champion's
    salt = running.salt
    keys = zip(*(features[name].tolist() for name in names), strict=True)
    parts = (part_of(salt, values) for values in keys)
    return np.array([part is not None and part < step.share for part in parts], dtype=bool)
