"""A small pipeline with data of its own, to train and judge real models within a second."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from airworthy.config import Pipeline, load_pipeline
from airworthy.features import compute_features
from airworthy.partitions import partitions_between
from airworthy.profile import Profile
from airworthy.store import Store

TOY_START = datetime(2013, 1, 1, tzinfo=UTC)
TOY_FEATURES = """
def features(frame):
    return frame[["distance", "carrier_name", "wind"]].assign(hour=frame["time"].dt.hour, long=frame["distance"] > 1)
"""


@dataclass
class Toy:
    """A pipeline of its own with a store of its own: 20 flights a day, late when far, windy, or flown by B6."""

    folder: Path
    mlflow_uri: str
    name: str

    @property
    def profile(self) -> Profile:
        return Profile(
            store_uri=str(self.folder / "store"),
            reports_dir=self.folder / "reports",
            mlflow_uri=self.mlflow_uri,
            ledger_url=f"sqlite:///{self.folder}/ledger.db",
            serving_url="http://127.0.0.1:1",
            airflow_url="http://127.0.0.1:1",
        )

    def pipeline(self, **changes: Any) -> Pipeline:
        """Returns the pipeline, written to where another process finds it."""
        content = {
            "description": "Toy flights",
            "start": TOY_START.isoformat(),
            "partition": "month",
            "source": {"files": {"glob": "toy/{partition}.parquet"}},
            "time": "time",
            "key": ["flight", "day"],
            "label": {"column": "late", "matures_after": "1 day"},
            "features": "toy_features:features",
            "model": {"xgboost": {"params": {"max_depth": 3, "n_estimators": 15}}},
            "train": {"holdout": "1 month"},
            **changes,
        }
        file = self.folder / "config" / "pipelines" / f"{self.name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(yaml.safe_dump(content))
        return load_pipeline(file)

    def rows(self, days: int = 100, seed: int = 0) -> pd.DataFrame:
        rng = np.random.default_rng(seed)
        made = pd.DataFrame({"day": np.repeat(np.arange(days), 20), "flight": np.tile(np.arange(20), days)})
        seconds = made["day"] * 86_400 + rng.integers(0, 86_400, len(made))
        made["time"] = pd.Series(pd.to_datetime(TOY_START) + pd.to_timedelta(seconds, unit="s")).astype(
            "datetime64[us, UTC]"
        )
        made["carrier_name"] = rng.choice(["AA", "B6", "UA"], len(made))
        made["distance"] = rng.normal(size=len(made))
        made["wind"] = rng.normal(size=len(made))
        signal = made["distance"] + made["wind"] + (made["carrier_name"] == "B6") + rng.normal(size=len(made))
        made.loc[rng.random(len(made)) < 0.05, "wind"] = np.nan
        return made.assign(late=signal > 1)

    def fill(self, pipeline: Pipeline, rows: pd.DataFrame) -> Store:
        """Returns the store with the rows in `raw` and what they become in `features`."""
        store = Store(self.profile.store_uri, pipeline.name)
        identity = rows[[*pipeline.key, pipeline.time, pipeline.label.column]]
        features = identity.join(compute_features(pipeline, rows))
        last = rows["time"].max() + timedelta(seconds=1)
        for partition in partitions_between(pipeline.partition, pipeline.start, last):
            chosen = (rows["time"] >= partition.start) & (rows["time"] < partition.end)
            store.write("raw", partition, rows[chosen])
            store.write("features", partition, features[chosen])
        return store
