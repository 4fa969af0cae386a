"""What a training run says about itself in MLflow: its tags, and its trials as a table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airworthy.provenance import code_version

if TYPE_CHECKING:
    from airworthy.registry import Training

TRIALS = "trials.json"


def run_tags(training: Training) -> dict[str, str]:
    """Returns what the run is found by, and what it was made from."""
    contract = training.contract
    code = code_version()
    return {
        "pipeline": contract.pipeline,
        "training_key": training.training_key,
        "digest": training.digest,
        "as_of": contract.as_of.isoformat(),
        "window": interval_tag(contract.window),
        "holdout": interval_tag(contract.holdout),
        "features.version": str(training.features.version),
        "features.digest": training.features.digest,
        "features.function": contract.features_function or "",
        "features.function_digest": contract.features_digest,
        "model.code": contract.model_code,
        "code": code,
        "mlflow.source.name": "airworthy",
        "mlflow.source.type": "JOB",
        "mlflow.source.git.commit": code.removesuffix("-dirty"),
        "mlflow.loggedArtifacts": json.dumps([{"path": TRIALS, "type": "table"}]),
        **training.tags,
    }


def interval_tag(interval: tuple[datetime, datetime]) -> str:
    """Returns `[start, end)` as a run's tags have it."""
    # A run started by hand is as of this very moment, and what reads the tag must know where its last hour ends.
    moments = [moment.astimezone(UTC).replace(tzinfo=None) for moment in interval]
    exact = any(moment.second or moment.microsecond for moment in moments)
    return " to ".join(moment.isoformat(" ", "auto" if exact else "minutes") for moment in moments)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns rows as the JSON that MLflow's pages show as a table."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    return json.dumps({"columns": columns, "data": [[row.get(key) for key in columns] for row in rows]})
