"""One operator per stage; each calls `airworthy.stages` and hands on a small reference, never a frame."""

from __future__ import annotations

from airworthy_airflow.operators.canary import CanaryOperator
from airworthy_airflow.operators.data import (
    IngestOperator,
    ProcessOperator,
    ValidateOperator,
    WaitOperator,
)
from airworthy_airflow.operators.model import (
    DeployOperator,
    EvaluateOperator,
    GateOperator,
    TrainOperator,
)
from airworthy_airflow.operators.monitor import (
    DecideOperator,
    DriftOperator,
    PerformanceOperator,
    ScoreOperator,
)

__all__ = [
    "CanaryOperator",
    "DecideOperator",
    "DeployOperator",
    "DriftOperator",
    "EvaluateOperator",
    "GateOperator",
    "IngestOperator",
    "PerformanceOperator",
    "ProcessOperator",
    "ScoreOperator",
    "TrainOperator",
    "ValidateOperator",
    "WaitOperator",
]
