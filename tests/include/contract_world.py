"""Raw partitions held to a contract, for tests of it: chunks go through `Enforcement` into a store, as in ingest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from airworthy.config import Pipeline
from airworthy.contracts.enforce import Enforcement
from airworthy.contracts.file import SchemaContract, load
from airworthy.partitions import Partition, parse_key
from airworthy.store import Store, TableRef

MONDAY, TUESDAY, WEDNESDAY = (parse_key("day", f"2026-01-0{day}") for day in (5, 6, 7))
CANARY = "canary.4711@example.org"


def rows(partition: Partition = MONDAY, count: int = 40, **changes: Any) -> pd.DataFrame:
    """Returns well-formed rows."""
    frame = pd.DataFrame(
        {
            "id": [f"{partition.key}-{number}" for number in range(count)],
            "at": pd.date_range(partition.start, periods=count, freq="min"),
            "weight": [float("nan") if number % 10 == 0 else number % 7 + 0.5 for number in range(count)],
            "pieces": [number % 4 for number in range(count)],
            "service": ["slow" if number % 3 else "fast" for number in range(count)],
            "insured": [number % 2 == 0 for number in range(count)],
            "email": [CANARY] * count,
            "late": [number % 2 for number in range(count)],
        }
    )
    return frame.assign(**changes)


def chunked(frame: pd.DataFrame, size: int = 16) -> list[pa.Table]:
    return [
        pa.Table.from_pandas(frame.iloc[start : start + size], preserve_index=False)
        for start in range(0, len(frame), size)
    ]


class ContractWorld:
    """A folder with a config, a store and reports."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.reports = folder / "reports"
        self.store = Store(str(folder / "store"), "parcels")
        self.file = folder / "config" / "contracts" / "parcels.yaml"
        self.enforcement: Enforcement

    def pipeline(self, on_change: str = "block", **changes: Any) -> Pipeline:
        content = {
            "name": "parcels",
            "description": "Will a parcel be late?",
            "start": "2026-01-01",
            "source": {"files": {"glob": str(self.folder / "{partition}.parquet")}},
            "time": "at",
            "key": ["id"],
            "label": {"column": "late"},
            "pii": ["email"],
            "contract": {"on_change": on_change},
            "model": {"xgboost": {}},
        }
        return Pipeline.model_validate({**content, **changes})

    def enforcement_of(self, pipeline: Pipeline, partition: Partition) -> Enforcement:
        return Enforcement(pipeline, partition, self.reports)

    def ingest(self, pipeline: Pipeline, partition: Partition, frame: pd.DataFrame | Sequence[pa.Table]) -> TableRef:
        self.enforcement = self.enforcement_of(pipeline, partition)
        chunks = chunked(frame) if isinstance(frame, pd.DataFrame) else frame

        rows = self.enforcement.conform(chunks)
        return self.store.write("raw", partition, rows, evolve=True, facts={"changes": self.enforcement.told})

    @property
    def kinds(self) -> list[str]:
        return [change.kind for change in self.enforcement.changes]

    def contract(self) -> SchemaContract:
        found = load(self.pipeline())
        assert found is not None
        return found

    def page(self, partition: Partition) -> str:
        return (self.reports / "parcels" / "contract" / f"{partition.key}.html").read_text()


@pytest.fixture
def contract_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ContractWorld:
    monkeypatch.setenv("AIRWORTHY_CONFIG", str(tmp_path / "config"))
    return ContractWorld(tmp_path)
