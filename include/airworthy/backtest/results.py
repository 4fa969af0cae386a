"""The table `backtests`: what every training of a backtest scored on its holdout, and month by month after it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pandas as pd
from pydantic import TypeAdapter

from airworthy.config import Pipeline
from airworthy.evidence import Measured
from airworthy.partitions import Partition
from airworthy.registry import Challenger
from airworthy.stages.train import declaration_key
from airworthy.store import Store

_MEASURED = TypeAdapter(Measured)

BACKTESTS = "backtests"
HOLDOUT, AFTER = "holdout", "after"


@dataclass(frozen=True)
class Result:
    """One training of a backtest.

    Attributes:
        gathered: By a gate's declaration: what it gathered without looking at a champion.
        measured: What a fresh process found on the saved files.
        scored: Columns `part` (`holdout`, or `after` for the months from `as_of` on), `start`, `end`, `rows`, and one
            per metric.
    """

    challenger: Challenger
    gathered: Mapping[str, Any]
    measured: Measured
    scored: pd.DataFrame


def write(store: Store, policy: str, training: str, result: Result, version: int) -> None:
    """Leaves a result instead of what is there for this policy and `as_of`.

    Args:
        store: Of the pipeline.
        policy: Whose training it is.
        training: The `declaration_key` of the pipeline under that policy.
        result: What came of it.
        version: Of the features table, whose later rows were scored.
    """
    challenger = result.challenger
    rows = result.scored.assign(
        policy=policy,
        training=training,
        as_of=challenger.as_of,
        run_id=challenger.run_id,
        features_version=challenger.features.version,
        scored_version=version,
        challenger=challenger.model_copy(update={"reused": False}).model_dump_json(),
        gathered=json.dumps(result.gathered, sort_keys=True),
        measured=_MEASURED.dump_json(result.measured).decode(),
    )
    key = f"{policy}.{challenger.as_of:%Y-%m-%dT%H%M}"
    store.write(BACKTESTS, Partition(key, challenger.as_of, challenger.as_of), rows)


def read(pipeline: Pipeline, store: Store, first: datetime | None = None, last: datetime | None = None) -> list[Result]:
    """Returns what is on record for trainings just as this pipeline declares them, by `as_of`.

    Policies that differ in gates only share their trainings, so it may have been recorded for another one; of
    several records of one `as_of`, the newest counts.

    Args:
        pipeline: As the policy has it.
        store: Of the pipeline.
        first: No `as_of` is earlier.
        last: No `as_of` is later.
    """
    if store.version(BACKTESTS) is None:
        return []
    found = store.read(BACKTESTS)
    chosen = found["training"] == declaration_key(pipeline)
    if first is not None:
        chosen &= found["as_of"] >= first
    if last is not None:
        chosen &= found["as_of"] <= last
    return [_result(_newest(rows)) for _, rows in found[chosen].groupby("as_of")]


def _newest(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns one policy's record, whole: the one that was scored on the newest rows."""
    newest = rows["scored_version"] == rows["scored_version"].max()
    own = rows["policy"] == rows.loc[newest, "policy"].min()
    found: pd.DataFrame = rows[newest & own].reset_index(drop=True)
    return found


def _result(rows: pd.DataFrame) -> Result:
    challenger = Challenger.model_validate_json(rows["challenger"][0])
    measured = _MEASURED.validate_json(rows["measured"][0])
    return Result(challenger, json.loads(rows["gathered"][0]), measured, rows)
