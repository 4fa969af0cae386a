"""A pipeline whose user code is written by the test, for tests of the data stages."""

from __future__ import annotations

import importlib
import itertools
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from airworthy.config import Pipeline
from airworthy.partitions import parse_key
from airworthy.store import Store

DAY = parse_key("day", "2026-01-05")
NEXT_DAY = parse_key("day", "2026-01-06")

_numbers = itertools.count()


def parcels(count: int = 10, partition: Any = DAY, **changes: Any) -> pd.DataFrame:
    """Returns well-formed rows."""
    frame = pd.DataFrame(
        {
            "id": [f"{partition.key}-{number}" for number in range(count)],
            "at": pd.date_range(partition.start, periods=count, freq="min"),
            "weight": [float(number % 7) for number in range(count)],
            "service": ["slow" if number % 3 else "fast" for number in range(count)],
            "late": [number % 2 for number in range(count)],
        }
    )
    return frame.assign(**changes)


class World:
    """A folder with modules, a store and reports."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.reports = folder / "reports"
        self.store = Store(str(folder / "store"), "parcels")
        self.rows = parcels()
        monkeypatch.syspath_prepend(str(folder))
        monkeypatch.setenv("AIRWORTHY_CONFIG", str(folder / "config"))

    def module(self, code: str) -> str:
        """Returns the name of a new module with this code."""
        name = f"user_module_{next(_numbers)}"
        (self.folder / f"{name}.py").write_text(code)
        importlib.invalidate_caches()  # where a folder's time is coarse, two modules are written within one tick of it
        return name

    def pipeline(self, code: str = "", **changes: Any) -> Pipeline:
        """Returns a pipeline whose source gives `self.rows`, and whose `features` is in `code` if that has one."""
        file = self.folder / "rows.pickle"
        self.rows.to_pickle(file)
        extract = f"import pandas\ndef extract(start, end):\n    return pandas.read_pickle({str(file)!r})\n"
        module = self.module(code if "def extract" in code else extract + code)
        content = {
            "name": "parcels",
            "description": "Will a parcel be late?",
            "start": "2026-01-01",
            "source": {"python": {"function": f"{module}:extract"}},
            "time": "at",
            "key": ["id"],
            "label": {"column": "late"},
            "features": f"{module}:features" if "def features" in code else None,
            "model": {"xgboost": {}},
        }
        return Pipeline.model_validate({**content, **changes})


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)
