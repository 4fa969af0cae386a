"""The rows a training run may see: what was known at `as_of`, split by time into window and holdout."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pandas as pd

from airworthy.config import Pipeline
from airworthy.errors import Problems, TrainError
from airworthy.lineage import FEATURES, RAW, Log
from airworthy.partitions import partitions_between
from airworthy.registry import FeaturesRef
from airworthy.stages.quarantine import REPAIRS
from airworthy.store import Store

Interval = tuple[datetime, datetime]


@dataclass(frozen=True)
class TrainingData:
    """Labelled rows of the features table at one version.

    Attributes:
        window: Rows to train on, in order of partition.
        holdout: Later rows to score on.
        window_interval: `[start, end)` of `window`.
        holdout_interval: `[start, end)` of `holdout`.
    """

    window: pd.DataFrame
    holdout: pd.DataFrame
    window_interval: Interval
    holdout_interval: Interval
    features: FeaturesRef


def intervals(pipeline: Pipeline, as_of: datetime) -> tuple[Interval, Interval]:
    """Returns window and holdout as `[start, end)`.

    A label is known `matures_after` its row's time, so the holdout ends that long before `as_of`; it
    begins `train.holdout` before `as_of`, where the window ends. A pipeline file has the holdout the longer of the two.

    Raises:
        TrainError: No time is left for the window.
    """
    begin = as_of - pipeline.train.holdout
    known = as_of - pipeline.label.matures_after
    start = pipeline.start
    if not isinstance(pipeline.train.window, str):  # dateutil finds no span unequal to a text
        start = max(start, begin - pipeline.train.window)
    if start >= begin:
        rule = f"must leave time to train on after {pipeline.start:%Y-%m-%d} and before the holdout"
        raise TrainError(f"{pipeline.name}: as_of", rule, f"{as_of:%Y-%m-%d %H:%M}", "Choose a later as_of")
    return (start, begin), (begin, known)


def read_training_data(
    pipeline: Pipeline, as_of: datetime, store: Store, *, version: int | None = None
) -> TrainingData:
    """Returns window and holdout, read from one version of the features table, by default the newest.

    Raises:
        TrainError: There is no table, or no labelled row in the window or in the holdout.
    """
    window, holdout = intervals(pipeline, as_of)
    version = store.version(FEATURES) if version is None else version
    if version is None:
        hint = f"Run {pipeline.name}.ingest for the partitions before as_of"
        raise TrainError(f"{pipeline.name}: {FEATURES}", "must exist before a model can be trained", hint=hint)
    rows = read_labelled(pipeline, store, (window[0], holdout[1]), version)
    late = rows[pipeline.time] >= holdout[0]
    found = {"window": rows[~late], "holdout": rows[late]}
    for (name, part), (start, end) in zip(found.items(), (window, holdout), strict=True):
        if part.empty:
            rule = f"must have labelled rows from {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} (the {name})"
            hint = f"Run {pipeline.name}.ingest for these partitions, or choose another as_of"
            raise TrainError(f"{pipeline.name}: {FEATURES}, version {version}", rule, "none", hint)
    reference = FeaturesRef(version=version, digest=rows_digest(rows), rows=len(rows))
    return TrainingData(found["window"], found["holdout"], window, holdout, reference)


def read_labelled(pipeline: Pipeline, store: Store, interval: Interval, version: int | None = None) -> pd.DataFrame:
    """Returns the rows of the features table in an interval whose label is known, with a fresh index."""
    rows = store.read(FEATURES, between=interval, time=pipeline.time, version=version)
    return rows[rows[pipeline.label.column].notna()].reset_index(drop=True)


def read_raw(pipeline: Pipeline, data: TrainingData, store: Store) -> pd.DataFrame:
    """Returns the raw rows, repaired ones included, that the holdout's features were made from, whatever came later.

    Where the table's log does not say which version that was, the newest rows are taken.
    """
    start, end = data.holdout_interval
    features, raw = Log(store.history(FEATURES)), Log(store.history(RAW))
    versions, repaired = {}, []
    for partition in partitions_between(pipeline.partition, start, end):
        write = features.at(partition.key, data.features.version)
        versions[partition.key] = write.facts.get("raw") if write else None
        if write and write.facts.get("repairs") is not None:
            repaired.append(store.read(REPAIRS, partitions=[partition.key], version=write.facts["repairs"]))
    top = max((version for version in versions.values() if version is not None), default=None)
    chosen: dict[int | None, list[str]] = {}
    for key, version in versions.items():
        # Most partitions hold at the newest of these versions what they held at their own: one read is enough.
        kept = version is not None and raw.at(key, version) == raw.at(key, top or 0)
        chosen.setdefault(top if kept else version, []).append(key)
    parts = [
        store.read(RAW, partitions=keys, between=data.holdout_interval, time=pipeline.time, version=version)
        for version, keys in chosen.items()
    ]
    found = pd.concat([part for part in parts if len(part)] or parts, ignore_index=True)
    return _mended(pipeline, found, pd.concat(repaired)) if repaired else found


def _mended(pipeline: Pipeline, raw: pd.DataFrame, repaired: pd.DataFrame) -> pd.DataFrame:
    """Returns raw rows with repaired ones in their places."""
    broken, key = (pd.MultiIndex.from_frame(rows[pipeline.identity]) for rows in (raw, repaired))
    rows = repaired[key.isin(broken)][[*raw.columns]]
    return pd.concat([raw[~broken.isin(key)], rows], ignore_index=True)


def feature_columns(pipeline: Pipeline, rows: pd.DataFrame) -> pd.DataFrame:
    """Returns the columns a model may learn from: all but key, time, label, `pii`, `train.weight` and `train.exclude`.

    Raises:
        Problems: train names columns that are not there, or leaves none.
    """
    train = pipeline.train
    named = {"weight": (train.weight,) if train.weight else (), "exclude": train.exclude}
    hint = f"There are: {', '.join(map(str, rows.columns))}"
    problems = [
        TrainError(f"{pipeline.name}: train.{key}", "must name a column of features", name, hint)
        for key, names in named.items()
        for name in names
        if name not in rows.columns
    ]
    others = {*pipeline.key, pipeline.time, pipeline.label.column, *pipeline.pii, *named["weight"], *named["exclude"]}
    kept = [name for name in rows.columns if name not in others]
    if not kept:
        problems.append(TrainError(f"{pipeline.name}: train.exclude", "must leave a column to learn from"))
    if problems:
        raise Problems(f"{pipeline.name}: train", problems)
    return rows[kept]


def row_weights(pipeline: Pipeline, rows: pd.DataFrame, label: np.ndarray) -> np.ndarray | None:
    """Returns how much each row counts in learning; None if all count the same.

    `imbalance: balanced` scales the weights so that those of each class have the same sum, and all together the sum
    they had (King and Zeng, Logistic Regression in Rare Events Data, Political Analysis 2001).

    Args:
        pipeline: Declares `train.weight` and `train.imbalance`.
        rows: Of the features table.
        label: Shape (n,): what `encode_label` returned for them.

    Raises:
        TrainError: A weight is missing, below 0, infinite or no number, or all of a class are 0.
    """
    train = pipeline.train
    if train.weight is None and train.imbalance == "none":
        return None
    weight = np.ones(len(rows)) if train.weight is None else _declared_weight(pipeline, train.weight, rows)
    if pipeline.label.task != "regression":
        codes = label.astype("int64")
        sums = np.bincount(codes, weights=weight)
        present = np.unique(codes)
        if (sums[present] == 0).any():
            rule = "must be above 0 in some row of each class"
            raise TrainError(f"{pipeline.name}: train.weight: {train.weight}", rule, 0)
        if train.imbalance == "balanced":
            weight = weight / sums[codes] * (sums.sum() / len(present))
    return weight


def _declared_weight(pipeline: Pipeline, column: str, rows: pd.DataFrame) -> np.ndarray:
    where, hint = f"{pipeline.name}: train.weight: {column}", "Mend it in features(), or check it in `checks`"
    try:
        weight = rows[column].to_numpy("float64", na_value=np.nan)
    except (ValueError, TypeError) as error:
        raise TrainError(where, "must hold numbers", str(error), hint) from None
    wrong = ~np.isfinite(weight) | (weight < 0)
    if wrong.any():
        found = ", ".join(sorted({f"{value:g}" for value in weight[wrong]})[:3])
        rule = f"must be at least 0 in every row, but is not in {wrong.sum():,} of {len(weight):,}"
        raise TrainError(where, rule, found, hint)
    if not weight.any():
        raise TrainError(where, "must be above 0 in some row", 0, hint)
    return np.asarray(weight)


def rows_digest(rows: pd.DataFrame) -> str:
    """Returns the SHA-256 over names, types and values, which a later partition in the table does not change."""
    found = hashlib.sha256(repr([(name, str(kind)) for name, kind in rows.dtypes.items()]).encode())
    found.update(pd.util.hash_pandas_object(rows, index=False).to_numpy().tobytes())
    return found.hexdigest()
