"""evaluate: what challenger and champion do on the same later rows; and what the gates make of it."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import TypeAdapter

from airworthy.config import Pipeline, Strict
from airworthy.encoding import align_classes, encode_label, extend_classes
from airworthy.errors import ConflictError, DataError, ModelError, TrainError
from airworthy.evidence import Evidence, Metric, Scores, Servable
from airworthy.gates import judge_all
from airworthy.ledger import Entry
from airworthy.metrics import score_all
from airworthy.model_files import LoadedModel, load_model
from airworthy.profile import Profile
from airworthy.registry import Challenger, Registry
from airworthy.serving.check import check_in_fresh_process
from airworthy.stages.training_data import read_labelled
from airworthy.store import Store
from airworthy.verdict import Verdict

log = logging.getLogger(__name__)

EVALUATION = "evaluation.json"
VERDICTS = "verdicts.json"
_EVIDENCE = "evidence.json"
_HOLDOUT = "holdout.parquet"
_MICROSECONDS_A_DAY = 86_400_000_000


class Evaluation(Strict):
    """What `evaluate` found, without the rows.

    Attributes:
        run_id: The challenger's run, which keeps the evidence.
        champion: The champion's version, or None if there was none.
        champion_metrics: None if there is no champion, or it could not be scored.
        evidence: SHA-256 of the evidence; its files are artifacts of the run under `evidence/<first 12 digits>/`.
    """

    run_id: str
    champion: str | None
    challenger_metrics: dict[Metric, float]
    champion_metrics: dict[Metric, float] | None
    servable: Servable
    evidence: str


def evaluate(pipeline: Pipeline, challenger: Challenger, champion: Entry | None, profile: Profile) -> Evaluation:
    """Returns the scores of challenger and champion on the challenger's holdout; the evidence is stored with its run.

    Meanwhile a fresh process loads the challenger's files and answers its recorded requests.

    Args:
        pipeline: Whose gates will judge.
        challenger: What `train` returned.
        champion: Whom the challenger is judged against (`Ledger.champion_at`); None if there is no champion.
        profile: Where the tables and MLflow are.

    Raises:
        ModelError: The challenger's files are not the ones that were trained.
        DataError: The holdout does not have the columns the challenger needs.
        ServiceError: MLflow does not answer.
    """
    registry, store = Registry(profile), Store(profile.store_uri, pipeline.name)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(max_workers=1) as pool:
        files = registry.download(challenger.model_id, Path(folder, "challenger"))
        checked = pool.submit(_servable, files, challenger.digest, pipeline.name)
        rows = read_labelled(pipeline, store, challenger.holdout, challenger.features.version)
        own = load_model(files, digest=challenger.digest, pipeline=pipeline)
        theirs, error = _load_champion(pipeline, champion, registry, Path(folder, "champion"))
        evidence = _evidence(pipeline, rows, own, champion, theirs, error)
        servable = checked.result()
    stored, digest = _to_files(evidence, servable)
    evaluation = Evaluation(
        run_id=challenger.run_id,
        champion=champion.version if champion else None,
        challenger_metrics=evidence.challenger.metrics,
        champion_metrics=evidence.champion.metrics if evidence.champion else None,
        servable=servable,
        evidence=digest,
    )
    # The evidence of an earlier judgement stays, as a promotion may rest on it; the copy on top is the latest.
    files_of_run = {f"{evidence_folder(digest)}/{name}": content for name, content in stored.items()}
    latest = {EVALUATION: evaluation.model_dump_json(indent=1).encode()}
    registry.store_artifacts(challenger.run_id, files_of_run | latest)
    return evaluation


def judge(pipeline: Pipeline, challenger: Challenger, evaluation: Evaluation, profile: Profile) -> list[Verdict]:
    """Returns one verdict per gate on the stored evidence; the verdicts are stored before anybody can act on them.

    Raises:
        ConflictError: The stored evidence is not the one `evaluation` speaks of.
        ServiceError: MLflow does not answer.
    """
    registry = Registry(profile)
    folder = evidence_folder(evaluation.evidence)
    loaded = {name: registry.load_artifact(challenger.run_id, f"{folder}/{name}") for name in (_EVIDENCE, _HOLDOUT)}
    stored = {name: content for name, content in loaded.items() if content is not None}
    if len(stored) < len(loaded):
        verdicts = [gate.verdict(False, "the evidence is missing; evaluate again") for gate in pipeline.gates]
    elif _digest(stored) != evaluation.evidence:
        hint = "Run evaluate again"
        raise ConflictError(f"{pipeline.name}: evidence", "is not what evaluate stored", evaluation.evidence, hint)
    else:
        verdicts = judge_all(pipeline.gates, _from_files(stored))
    for verdict in verdicts:
        log.info("%s %s: %s", verdict.gate, verdict.status, verdict.reason)
    content = TypeAdapter(list[Verdict]).dump_json(verdicts, indent=1)
    registry.store_artifacts(challenger.run_id, {VERDICTS: content, f"{folder}/{VERDICTS}": content})
    return verdicts


def _servable(files: Path, digest: str, pipeline: str) -> Servable:
    try:
        return check_in_fresh_process(files, digest, pipeline)
    except ModelError as error:
        return Servable(requests=0, largest_difference=0.0, seconds=0.0, error=str(error))


def _load_champion(
    pipeline: Pipeline, champion: Entry | None, registry: Registry, folder: Path
) -> tuple[LoadedModel | None, str]:
    """Returns the champion and "", or None and what is wrong with its files."""
    if champion is None:
        return None, ""
    try:
        files = registry.download(champion.model_id, folder)
        return load_model(files, digest=champion.digest, pipeline=pipeline), ""
    except ModelError as error:
        return None, str(error)


def _evidence(
    pipeline: Pipeline,
    rows: pd.DataFrame,
    own: LoadedModel,
    champion: Entry | None,
    theirs: LoadedModel | None,
    error: str,
) -> Evidence:
    task, column = pipeline.label.task, rows[pipeline.label.column]
    classes = extend_classes(task, own.contract.classes, column)
    if theirs is not None and task == "multiclass":
        classes = (*classes, *(name for name in theirs.contract.classes if name not in classes))
    label = encode_label(task, classes, column)

    def scores(model: LoadedModel, version: str) -> Scores:
        prediction = align_classes(model.predict(rows), model.contract.classes, classes)
        return Scores(version, prediction, score_all(task, label, prediction))

    mine, other = scores(own, ""), None
    if theirs is not None and champion is not None:
        try:
            if task == "binary" and theirs.contract.classes != classes:
                raise ModelError(
                    f"version {champion.version}", f"must know the classes {classes}", theirs.contract.classes
                )
            other = scores(theirs, champion.version)
        except (DataError, ModelError, TrainError) as problem:
            error = str(problem)
    return Evidence(
        task=task,
        metric=pipeline.metric,
        label=label,
        block=rows[pipeline.time].astype("datetime64[us, UTC]").astype("int64").to_numpy() // _MICROSECONDS_A_DAY,
        challenger=mine,
        has_champion=champion is not None,
        champion=other,
        champion_error=error,
        classes=classes,
    )


def evidence_folder(digest: str) -> str:
    """Returns where the evidence with this SHA-256, and the verdicts on it, are among the run's artifacts."""
    return f"evidence/{digest[:12]}"


def _to_files(evidence: Evidence, servable: Servable) -> tuple[dict[str, bytes], str]:
    """Returns the evidence as files, and their digest."""
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
        "servable": asdict(servable),
        **{n: {"version": s.version, "metrics": s.metrics} if s else None for n, s in models.items()},
    }
    files = {_EVIDENCE: json.dumps(content, indent=1).encode(), _HOLDOUT: table.getvalue()}
    return files, _digest(files)


def _from_files(files: dict[str, bytes]) -> Evidence:
    content = json.loads(files[_EVIDENCE])
    table = pd.read_parquet(io.BytesIO(files[_HOLDOUT]))

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
        servable=Servable(**content["servable"]),
        classes=tuple(content["classes"]),
    )


def _digest(files: dict[str, bytes]) -> str:
    return hashlib.sha256(files[_EVIDENCE] + files[_HOLDOUT]).hexdigest()
