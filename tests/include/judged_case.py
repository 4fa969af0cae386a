"""A case made of arrays, to ask gates about holdouts whose truth is known."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from airworthy.encoding import describe_features
from airworthy.evidence import Evidence, Scores
from airworthy.gates import Gate, gather_all, judge_all
from airworthy.metrics import score_all
from airworthy.verdict import Verdict


def holdout(seed: int, days: int = 30, rows_a_day: int = 200) -> tuple[pd.DataFrame, np.ndarray, np.random.Generator]:
    """Returns rows with two categories and two numbers, each row's day, and a generator for what is made of them."""
    rng = np.random.default_rng(seed)
    block = np.repeat(np.arange(days), rows_a_day)
    rows = pd.DataFrame(
        {
            "origin": rng.choice(["EWR", "JFK", "LGA"], len(block)),
            "carrier": rng.choice(["AA", "B6", "UA", "WN"], len(block)),
            "hour": rng.integers(5, 24, len(block)),
            "wind": rng.normal(10, 4, len(block)),
        }
    )
    return rows, block, rng


def probability(signal: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-signal))


def case(
    rows: pd.DataFrame,
    block: np.ndarray,
    label: np.ndarray,
    challenger: np.ndarray,
    champion: np.ndarray | None = None,
    *,
    task: Any = "binary",
    features: list[str] | None = None,
) -> Any:
    """Returns what `gather` looks at; a model's answers are given, and there are neither files nor tables."""

    def scores(prediction: np.ndarray, version: str) -> Scores:
        return Scores(version, prediction, score_all(task, label, prediction))

    evidence = Evidence(
        task=task,
        metric="roc_auc" if task == "binary" else "rmse" if task == "regression" else "log_loss",
        label=label,
        block=block,
        challenger=scores(challenger, ""),
        has_champion=champion is not None,
        champion=None if champion is None else scores(champion, "3"),
        classes=() if task == "regression" else tuple(map(str, np.unique(label))),
    )
    contract = SimpleNamespace(features=describe_features(rows[features or list(rows.columns)]))
    pipeline = SimpleNamespace(set_aside=frozenset())
    return SimpleNamespace(rows=rows, evidence=evidence, own=SimpleNamespace(contract=contract), pipeline=pipeline)


def verdict(gate: Gate, made: Any) -> Verdict:
    """Returns what a gate says of a case, by way of stored evidence."""
    (found,) = judge_all([gate], gather_all([gate], made))
    return found
