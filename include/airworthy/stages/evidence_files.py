"""Evidence as files: numbers as JSON, what belongs to rows as Parquet."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping

import numpy as np
import pandas as pd

from airworthy.evidence import Evidence, Scores

EVIDENCE = "evidence.json"
HOLDOUT = "holdout.parquet"


def to_files(evidence: Evidence) -> tuple[dict[str, bytes], str]:
    """Returns the evidence as files by name, and their digest."""
    columns: dict[str, np.ndarray] = {"label": evidence.label, "block": evidence.block}
    models = {"challenger": evidence.challenger, "champion": evidence.champion}
    for name, scores in models.items():
        if scores is not None:
            for number, values in enumerate(scores.prediction.reshape(len(evidence.label), -1).T):
                columns[f"{name}_{number}"] = values
    table = io.BytesIO()
    pd.DataFrame(columns).to_parquet(table, index=False)
    content = {
        "task": evidence.task,
        "metric": evidence.metric,
        "classes": evidence.classes,
        "has_champion": evidence.has_champion,
        "champion_error": evidence.champion_error,
        "gathered": evidence.gathered,
        "missing": evidence.missing,
        **{n: {"version": s.version, "metrics": s.metrics} if s else None for n, s in models.items()},
    }
    files = {EVIDENCE: json.dumps(content, indent=1).encode(), HOLDOUT: table.getvalue()}
    return files, digest(files)


def from_files(files: Mapping[str, bytes]) -> Evidence:
    """Returns the evidence that `to_files` wrote."""
    content = json.loads(files[EVIDENCE])
    table = pd.read_parquet(io.BytesIO(files[HOLDOUT]))

    def scores(name: str) -> Scores | None:
        if content[name] is None:
            return None
        prediction = table[[column for column in table.columns if column.startswith(f"{name}_")]].to_numpy()
        prediction = prediction if content["task"] == "multiclass" else prediction[:, 0]
        return Scores(content[name]["version"], prediction, content[name]["metrics"])

    challenger = scores("challenger")
    assert challenger is not None
    return Evidence(
        task=content["task"],
        metric=content["metric"],
        label=table["label"].to_numpy(),
        block=table["block"].to_numpy(),
        challenger=challenger,
        has_champion=content["has_champion"],
        champion=scores("champion"),
        champion_error=content["champion_error"],
        classes=tuple(content["classes"]),
        gathered=content["gathered"],
        missing=content["missing"],
    )


def digest(files: Mapping[str, bytes]) -> str:
    """Returns the SHA-256 over the contents of evidence files."""
    return hashlib.sha256(files[EVIDENCE] + files[HOLDOUT]).hexdigest()
