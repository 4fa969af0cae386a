"""What an archive says of a training run besides the model: as text, and believed of nothing but its origin."""

from __future__ import annotations

from airworthy.config import Strict

RECORD = "run.json"
CHALLENGER = "challenger.json"
LINEAGE = "lineage.json"
LEDGER = "ledger.json"
MODEL = "model"
ARTIFACTS = "artifacts"

SOURCE = "source"  # the folder, among the artifacts of the run it becomes, that holds all of this


class Point(Strict):
    """One value of a metric."""

    value: float
    timestamp: int
    step: int


class Record(Strict):
    """A training run as MLflow has it."""

    name: str
    params: dict[str, str]
    metrics: dict[str, tuple[Point, ...]]
    tags: dict[str, str]
