"""A small pipeline with data of its own, to train and judge real models within a second."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from airworthy.config import Pipeline, load_pipeline
from airworthy.features import compute_features
from airworthy.partitions import partitions_between
from airworthy.profile import Profile
from airworthy.store import Store

_KEPT = tempfile.TemporaryDirectory()  # filled stores, for as long as this process lives
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

    def environment(self, changes: Mapping[str, str]) -> dict[str, str]:
        """Returns the environment of another process that finds the same places."""
        profile = self.profile
        places = {
            "AIRWORTHY_HOME": str(self.folder / "home"),
            "AIRWORTHY_LEDGER_URL": profile.ledger_url,
            "AIRWORTHY_SERVING_URL": profile.serving_url,
            "AIRWORTHY_AIRFLOW_URL": profile.airflow_url,
            "MLFLOW_TRACKING_URI": profile.mlflow_uri,
        }
        return {**os.environ, **places, **changes}

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
            "gates": ["beats_champion", "servable"],
            "target": {"serving": {"timeout": 300}},  # whatever else this machine does meanwhile
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
        place = Path(self.profile.store_uri, pipeline.name)
        content = [pd.util.hash_pandas_object(frame).to_numpy().tobytes() for frame in (rows, features)]
        told = repr((pipeline.partition, pipeline.start, list(rows.dtypes.items()), list(features.dtypes.items())))
        filled = Path(_KEPT.name) / hashlib.sha256(b"".join([*content, told.encode()])).hexdigest()
        fresh = not place.exists()
        if fresh and filled.exists():
            shutil.copytree(filled, place)  # the same tables in a hundredth of the time
            return store
        last = rows["time"].max() + timedelta(seconds=1)
        for partition in partitions_between(pipeline.partition, pipeline.start, last):
            chosen = (rows["time"] >= partition.start) & (rows["time"] < partition.end)
            store.write("raw", partition, rows[chosen])
            store.write("features", partition, features[chosen])
        if fresh:
            shutil.copytree(place, filled)
        return store


def toy_at(folder: Path, mlflow_uri: str, patched: pytest.MonkeyPatch) -> Toy:
    """Returns a toy of its own; this process and those it starts find its code and its pipeline file."""
    (folder / "code").mkdir()
    (folder / "code" / "toy_features.py").write_text(TOY_FEATURES)
    patched.syspath_prepend(folder / "code")
    patched.delitem(sys.modules, "toy_features", raising=False)  # another test's copy
    patched.setenv("PYTHONPATH", str(folder / "code"), prepend=os.pathsep)
    patched.setenv("AIRWORTHY_CONFIG", str(folder / "config"))
    return Toy(folder, mlflow_uri, f"toy_{uuid.uuid4().hex[:8]}")
