"""The days on which a canary's challenger and the champion were compared: each enters once, when its labels are known.

A day that has entered stays as it was: a sequence whose past changes between two looks is no fair game, so labels
that come or change later do not count here. `performance` counts them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import dataset as ds

from airworthy.capture import AT, CAPTURED, OTHER, OTHER_PROBABILITY, OTHER_VERSION, PROBABILITY, REQUEST, ROW
from airworthy.columns import TIMESTAMP
from airworthy.config import Pipeline
from airworthy.content import PARTITION
from airworthy.encoding import encode_label
from airworthy.ledger import Entry
from airworthy.partitions import Grain, Partition, parse_key, partition_at, partitions_between
from airworthy.profile import Profile
from airworthy.stages.canary_batch import compared
from airworthy.stages.monitor import CLASS, loaded
from airworthy.stages.performance import FEATURES
from airworthy.store import Store

DAYS = "canary_days"
UNIT = "unit"

_COLUMNS = ("began", "number", "day", "version", "champion", "rows", "champion_loss", "challenger_loss", "gain")


def compared_days(
    pipeline: Pipeline, entries: Sequence[Entry], running: Entry, profile: Profile, now: datetime
) -> pd.DataFrame:
    """Returns a canary's days in the order in which they entered, those included whose labels are known by now.

    They are kept in the table `canary_days`: rows with a label and both predictions, the average loss of both
    versions, and the gain, which is the difference.

    Args:
        entries: The pipeline's ledger.
        running: The last step of the canary.
        now: When to look.

    Raises:
        DataError: A label is of no class that the champion knows.
        ServiceError: MLflow does not answer.
    """
    store = Store(profile.store_uri, pipeline.name)
    entered = _entered(store, running)
    asked = _asked(pipeline, store, running, entries[running.began - 1].at)
    asked = asked[~asked[UNIT].isin({_unit(pipeline, day).key for day in entered["day"]})]
    labelled = [_labelled(pipeline, store, unit, rows, now) for unit, rows in asked.groupby(UNIT)]
    if not sum(map(len, labelled)):
        return entered
    champion = next(one for one in reversed(entries) if one.crowns and one.version == running.expected)
    with loaded(pipeline, champion, profile) as model:
        classes = model.contract.classes
    found = _days(pipeline, pd.concat(labelled), classes, running)
    found["number"] = range(len(entered), len(entered) + len(found))
    every = pd.concat([entered, found], ignore_index=True)[[*_COLUMNS]] if len(entered) else found[[*_COLUMNS]]
    added = pa.Table.from_pandas(found[[*_COLUMNS]], preserve_index=False)
    added = added.set_column(_COLUMNS.index("day"), "day", added["day"].cast(TIMESTAMP))
    keys = [_unit(pipeline, day).key for day in found["day"]]
    store.append(DAYS, keys, added, once=(f"canary-{running.began}", len(every)))
    return every


def _entered(store: Store, running: Entry) -> pd.DataFrame:
    if store.version(DAYS) is None:
        return pd.DataFrame({name: pd.Series(dtype="float64") for name in _COLUMNS})
    known = store.read(DAYS)
    known = known[known["began"] == running.began].sort_values("number", kind="stable")
    return known.drop_duplicates("day").reset_index(drop=True)[[*_COLUMNS]]


def _asked(pipeline: Pipeline, store: Store, running: Entry, began: datetime) -> pd.DataFrame:
    """Returns what both versions have scored, each key of a partition once: as last asked, or else in batch."""
    found = pd.concat([_in_batch(pipeline, store, running), _captured(pipeline, store, running, began)])
    if found.empty:
        return pd.DataFrame({UNIT: pd.Series(dtype="object")})
    found[UNIT] = [_unit(pipeline, moment).key for moment in found["happened"]]
    found[PARTITION] = [partition_at(pipeline.partition, moment).key for moment in found["happened"]]
    return found.drop_duplicates([PARTITION, *pipeline.key], keep="last")


def _captured(pipeline: Pipeline, store: Store, running: Entry, began: datetime) -> pd.DataFrame:
    rows = store.scan(CAPTURED) if store.version(CAPTURED) is not None else None
    key, time = list(pipeline.key), pipeline.time
    if rows is None or not {OTHER_VERSION, time, *key} <= {*rows.schema.names}:
        return pd.DataFrame()
    wide = [name for name in rows.schema.names if name.startswith((PROBABILITY, OTHER_PROBABILITY))]
    names = [*dict.fromkeys((*key, time)), AT, REQUEST, ROW, "prediction", "version", OTHER, OTHER_VERSION, *wide]
    both = [running.version, running.expected]
    chosen = (ds.field(AT) >= pa.scalar(began, TIMESTAMP)) & ds.field(OTHER).is_valid()
    chosen &= ds.field("version").isin(both) & ds.field(OTHER_VERSION).isin(both)
    found: pd.DataFrame = rows.to_table(columns=names, filter=chosen).to_pandas()
    return found.assign(happened=found[time].fillna(found[AT])).sort_values([AT, REQUEST, ROW])


def _in_batch(pipeline: Pipeline, store: Store, running: Entry) -> pd.DataFrame:
    """Returns the rows of batch scoring under the names that captured ones have."""
    found = compared(pipeline, store, running)
    names = {"prediction_challenger": OTHER, "version_challenger": OTHER_VERSION}
    for name in (name for name in found.columns if name.startswith(CLASS)):
        own = name.removesuffix("_challenger")
        prefix = PROBABILITY if own == name else OTHER_PROBABILITY
        names[name] = f"{prefix}{own.removeprefix(CLASS)}"
    found = found.rename(columns=names)
    return found.assign(happened=found[pipeline.time]) if len(found) else found


def _labelled(pipeline: Pipeline, store: Store, unit: Any, rows: pd.DataFrame, now: datetime) -> pd.DataFrame:
    """Returns the rows of a unit that have a label, if it is over and enough of them have; else none."""
    span = parse_key(_grain(pipeline), unit)
    if span.end + pipeline.label.matures_after > now or store.version(FEATURES) is None:
        return rows.iloc[:0]
    key, label = [PARTITION, *pipeline.key], pipeline.label.column
    names = [one.key for one in partitions_between(pipeline.partition, span.start, span.end)]
    known = store.read(FEATURES, partitions=names, columns=[*key, label]).dropna(subset=[label]).drop_duplicates()
    known = known.infer_objects()
    known = known[~known.duplicated(subset=key, keep=False)]  # several that differ say nothing
    found = rows.merge(known, on=key)
    return found if len(found) >= pipeline.monitor.labels.enough * len(rows) else found.iloc[:0]


def _days(pipeline: Pipeline, rows: pd.DataFrame, classes: Sequence[str], running: Entry) -> pd.DataFrame:
    label = encode_label(pipeline.label.task, classes, rows[pipeline.label.column])
    answered, other = _losses(pipeline, rows, classes, label)
    own = (rows["version"] == running.version).to_numpy()  # whether the challenger gave the answer
    losses = pd.DataFrame({"champion_loss": np.where(own, other, answered)})
    losses["challenger_loss"] = np.where(own, answered, other)
    losses["day"] = pd.to_datetime(rows["happened"].to_numpy(), utc=True).floor("D")
    found = losses.groupby("day", sort=True).mean().assign(rows=losses.groupby("day").size()).reset_index()
    found["gain"] = found["champion_loss"] - found["challenger_loss"]
    return found.assign(began=running.began, version=running.version, champion=running.expected)


def _losses(
    pipeline: Pipeline, rows: pd.DataFrame, classes: Sequence[str], label: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the loss of each row's answer, and of the other version's prediction; shape (rows,), from 0 to 1.

    Of numbers, whose errors have no bound, it is 1 for the one that is further from the label.
    """
    if pipeline.label.task == "multiclass":
        truth = np.eye(len(classes))[label]
        wide = ([f"{prefix}{name}" for name in classes] for prefix in (PROBABILITY, OTHER_PROBABILITY))
        answered, other = (((rows[names].to_numpy() - truth) ** 2).sum(axis=1) / 2 for names in wide)
        return answered, other
    answered, other = (np.abs(rows[name].to_numpy(dtype="float64") - label) for name in ("prediction", OTHER))
    if pipeline.label.task == "binary":
        return answered**2, other**2
    return (answered > other).astype(float), (other > answered).astype(float)


def _grain(pipeline: Pipeline) -> Grain:
    return "day" if pipeline.partition == "hour" else pipeline.partition


def _unit(pipeline: Pipeline, moment: datetime) -> Partition:
    return partition_at(_grain(pipeline), moment)
