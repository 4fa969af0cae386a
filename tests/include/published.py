"""The toy pipeline with its data in files, so that partitions go through ingest, validate and process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from airworthy.config import Pipeline
from airworthy.ledger import Ledger
from airworthy.lineage import facts
from airworthy.partitions import parse_key
from airworthy.stages.ingest import ingest
from airworthy.stages.process import process
from airworthy.stages.validate import validate
from airworthy.store import Store
from toy_pipeline import Toy

MONTHS = ("2013-01-01", "2013-02-01", "2013-03-01")


class Published:
    """A pipeline whose partitions are published one by one, as Airflow's tasks do it."""

    def __init__(self, toy: Toy, **changes: Any) -> None:
        self.toy = toy
        self.profile = toy.profile
        self.data = toy.folder / "data"
        self.data.mkdir(exist_ok=True)
        self.source = {"files": {"glob": f"{self.data}/{{partition}}.parquet"}}
        self.pipeline: Pipeline = self.declare(**changes)
        self.store = Store(self.profile.store_uri, self.pipeline.name)
        self.rows = toy.rows().assign(note=0.0)
        Ledger(self.profile.ledger_url).create()

    def declare(self, **changes: Any) -> Pipeline:
        self.pipeline = self.toy.pipeline(source=self.source, **changes)
        return self.pipeline

    def file(self, key: str) -> Path:
        return self.data / f"{key}.parquet"

    def publish(self, key: str, rows: pd.DataFrame | None = None, run: str = "backfill") -> dict[str, Any]:
        """Returns what the asset event of `features` says once the file's content is published."""
        features = self.process(key, rows, run)
        return facts.of_features(self.pipeline, [features], self.profile)[0]

    def process(self, key: str, rows: pd.DataFrame | None = None, run: str = "backfill") -> Any:
        """Returns the partition of features; nothing is marked yet."""
        partition = parse_key("month", key)
        chosen = self.rows if rows is None else rows
        inside = (chosen["time"] >= partition.start) & (chosen["time"] < partition.end)
        chosen[inside].to_parquet(self.file(key), index=False)
        raw = ingest(self.pipeline, partition, self.store)
        found = validate(self.pipeline, partition, raw, self.store, self.profile.reports_dir)
        return process(self.pipeline, partition, found, self.store, run=run)

    def changed(self, key: str) -> pd.DataFrame:
        """Returns the rows, those of one partition being other ones."""
        partition = parse_key("month", key)
        inside = (self.rows["time"] >= partition.start) & (self.rows["time"] < partition.end)
        return self.rows.assign(distance=self.rows["distance"].where(~inside, -self.rows["distance"]))
