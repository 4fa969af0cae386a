"""What a run of the training DAG does in a backtest, instead of what it does to make a champion."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from airworthy.backtest import results
from airworthy.budget import ReplayBudget
from airworthy.config import Pipeline
from airworthy.encoding import align_classes, encode_label, extend_classes
from airworthy.evidence import METRICS
from airworthy.gates import Gate
from airworthy.lineage import FEATURES
from airworthy.metrics import score_or_nan
from airworthy.model_files import LoadedModel, load_model
from airworthy.partitions import partition_at
from airworthy.profile import Profile
from airworthy.registry import Challenger, Registry
from airworthy.stages import evaluate as stage
from airworthy.stages import train as training
from airworthy.stages.evidence_files import EVIDENCE
from airworthy.stages.training_data import read_labelled
from airworthy.store import Store

log = logging.getLogger(__name__)


def train(
    pipeline: Pipeline, policy: str, as_of: datetime, profile: Profile, *, tags: Mapping[str, str] | None = None
) -> Challenger:
    """Returns a challenger that can never become champion, trained as a policy has it.

    Raises:
        ConfigError: There is no such policy.
        TrainError: There are no rows, one class only, or the model cannot be trained as declared.
        ServiceError: MLflow does not answer.
    """
    return training.train(pipeline.under(policy), as_of, profile, tags=tags, backtest=True)


def evaluate(pipeline: Pipeline, policy: str, challenger: Challenger, profile: Profile) -> stage.Evaluation:
    """Returns the evaluation, once what came after `as_of` is scored and on record in the table `backtests`.

    The challenger stands alone here: which champion it would have met depends on what the gates decided before,
    which the replay finds out. Evidence is gathered for the gates of all policies that share this training.

    Raises:
        ConfigError: There is no such policy.
        ModelError: The challenger's files are not the ones that were trained.
        ServiceError: MLflow does not answer.
    """
    under = pipeline.under(policy).model_copy(update={"gates": _gates(pipeline, policy)})
    found = stage.evaluate(under, challenger, None, profile, budget=ReplayBudget())
    store = Store(profile.store_uri, pipeline.name)
    version = store.version(FEATURES)
    scored = _scored(pipeline, challenger, profile, store, version)
    gathered, measured = _gathered(under, found, profile), found.measured
    for before in results.read(under, store, challenger.as_of, challenger.as_of):
        if before.challenger.run_id == challenger.run_id:  # times differ from one measurement to the next
            gathered, measured = {**gathered, **before.gathered}, before.measured
    result = results.Result(challenger, gathered, measured, scored)
    results.write(store, policy, training.declaration_key(under), result, version or 0)
    for row in scored.to_dict("records"):
        told = f"{row['start']:%Y-%m-%d} to {row['end']:%Y-%m-%d}"
        log.info("%s, %s: %s %.4f on %d rows", row["part"], told, pipeline.metric, row[pipeline.metric], row["rows"])
    return found


def _gathered(pipeline: Pipeline, evaluation: stage.Evaluation, profile: Profile) -> Mapping[str, Any]:
    """Returns what the gates gathered that do not look at a champion."""
    alone = {gate.declaration for gate in pipeline.gates if not gate.compares}
    file = f"{stage.evidence_folder(evaluation.evidence)}/{EVIDENCE}"
    stored = Registry(profile).load_json(evaluation.run_id, file)
    return {declaration: found for declaration, found in stored["gathered"].items() if declaration in alone}


def _gates(pipeline: Pipeline, policy: str) -> Sequence[Gate]:
    shared = training.declaration_key(pipeline.under(policy))
    others = [pipeline.under(name) for name in pipeline.backtest.names]
    sharing = [other for other in others if training.declaration_key(other) == shared]
    return tuple({gate.declaration: gate for other in sharing for gate in other.gates}.values())


def _scored(
    pipeline: Pipeline, challenger: Challenger, profile: Profile, store: Store, version: int | None
) -> pd.DataFrame:
    """Returns all metrics on the holdout, and on the rows from `as_of` on whose label is known by now, by month."""
    known = max(datetime.now(UTC) - pipeline.label.matures_after, challenger.as_of)
    after = read_labelled(pipeline, store, (challenger.as_of, known), version)
    holdout = read_labelled(pipeline, store, challenger.holdout, challenger.features.version)
    start, end = challenger.holdout
    numbers = {"part": results.HOLDOUT, "start": start, "end": end, "rows": len(holdout), **challenger.metrics}
    scored = [numbers]
    with TemporaryDirectory() as folder:
        files = Registry(profile).download(challenger.model_id, Path(folder))
        model = load_model(files, digest=challenger.digest, pipeline=pipeline)
        for _, part in after.groupby(after[pipeline.time].dt.strftime("%Y-%m")):
            month = partition_at("month", part[pipeline.time].iloc[0])
            interval = {"start": max(month.start, challenger.as_of), "end": min(month.end, known)}
            scored.append({"part": results.AFTER, **interval, "rows": len(part), **_metrics(pipeline, model, part)})
    return pd.DataFrame(scored)


def _metrics(pipeline: Pipeline, model: LoadedModel, rows: pd.DataFrame) -> dict[str, float]:
    task, column = pipeline.label.task, rows[pipeline.label.column]
    classes = extend_classes(task, model.contract.classes, column)
    label = encode_label(task, classes, column)
    prediction = align_classes(model.predict(rows), model.contract.classes, classes)
    return {metric: score_or_nan(task, metric, label, prediction) for metric in METRICS[task]}
