"""Months of the toy pipeline whose labels come as a test says."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from airworthy.config import Pipeline
from airworthy.features import compute_features
from airworthy.partitions import Partition, parse_key
from airworthy.store import Store
from toy_pipeline import Toy

APRIL, MAY, JUNE, JULY, AUGUST, SEPTEMBER, OCTOBER = (
    parse_key("month", f"2013-{month:02}-01") for month in range(4, 11)
)
IDENTITY = ["flight", "day", "time"]


@dataclass
class Months:
    """A pipeline, and the raw rows of its months."""

    toy: Toy
    pipeline: Pipeline
    rows: pd.DataFrame

    @property
    def store(self) -> Store:
        return Store(self.toy.profile.store_uri, self.pipeline.name)

    def month(self, partition: Partition) -> pd.DataFrame:
        chosen = (self.rows["time"] >= partition.start) & (self.rows["time"] < partition.end)
        return self.rows[chosen].astype({"late": "float64"}).reset_index(drop=True)

    def ingest(self, partition: Partition, rows: pd.DataFrame) -> None:
        features = rows[[*IDENTITY, "late"]].join(compute_features(self.pipeline, rows))
        self.store.write("features", partition, features)
