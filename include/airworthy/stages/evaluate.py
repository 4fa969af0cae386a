"""evaluate: what challenger and champion do on the same later rows; and what the gates make of it."""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import TypeAdapter

from airworthy.budget import Budget, KeptBudget
from airworthy.case import Case
from airworthy.config import Pipeline, Strict
from airworthy.encoding import align_classes, encode_label, extend_classes
from airworthy.errors import AirworthyError, ConflictError, DataError, ModelError
from airworthy.evidence import Evidence, Measured, Metric, Scores
from airworthy.gates import gather_all, judge_all
from airworthy.ledger import Entry
from airworthy.metrics import score_all
from airworthy.model_files import LoadedModel, load_model
from airworthy.profile import Profile
from airworthy.registry import Challenger, Registry
from airworthy.serving.check import check_in_fresh_process, require_own_code
from airworthy.stages.evidence_files import EVIDENCE, HOLDOUT, digest, from_files, to_files
from airworthy.stages.train import refit
from airworthy.stages.training_data import read_labelled
from airworthy.store import Store
from airworthy.verdict import Verdict

log = logging.getLogger(__name__)

EVALUATION = "evaluation.json"
VERDICTS = "verdicts.json"
_MICROSECONDS_A_DAY = 86_400_000_000


class Evaluation(Strict):
    """What `evaluate` found, without the rows.

    Attributes:
        run_id: The challenger's run, which keeps the evidence.
        champion: The champion's version, or None if there was none.
        champion_metrics: None if there is no champion, or it could not be scored.
        evidence: SHA-256 of the evidence; its files are artifacts of the run under `evidence/<first 12 digits>/`.
        judged_at: The ledger's last entry then. After a rollback from this challenger it must be evaluated again.
    """

    run_id: str
    champion: str | None
    challenger_metrics: dict[Metric, float]
    champion_metrics: dict[Metric, float] | None
    measured: Measured
    evidence: str
    judged_at: int = 0


def evaluate(
    pipeline: Pipeline,
    challenger: Challenger,
    champion: Entry | None,
    profile: Profile,
    *,
    budget: Budget | None = None,
) -> Evaluation:
    """Returns the scores of challenger and champion on the challenger's holdout; the evidence is stored with its run.

    Meanwhile a fresh process loads the challenger's files and answers its recorded requests.

    Args:
        pipeline: Whose gates will judge.
        challenger: What `train` returned.
        champion: Whom the challenger is judged against (`Ledger.champion_at`); None if there is no champion.
        profile: Where the tables and MLflow are.
        budget: As for `open_case`.

    Raises:
        ModelError: The challenger's files are not the ones that were trained, or its answers are not finite.
        DataError: The holdout does not have the columns the challenger needs.
        ServiceError: MLflow does not answer.
    """
    with open_case(pipeline, challenger, champion, profile, budget=budget) as case:
        evidence = gather_all(pipeline.gates, case)
        measured = case.measured()
    stored, digest_of_it = to_files(evidence)
    evaluation = Evaluation(
        run_id=challenger.run_id,
        champion=champion.version if champion else None,
        challenger_metrics=evidence.challenger.metrics,
        champion_metrics=evidence.champion.metrics if evidence.champion else None,
        measured=measured,
        evidence=digest_of_it,
    )
    # The evidence of an earlier judgement stays, as a promotion may rest on it; the copy on top is the latest.
    files_of_run = {f"{evidence_folder(digest_of_it)}/{name}": content for name, content in stored.items()}
    latest = {EVALUATION: evaluation.model_dump_json(indent=1).encode()}
    Registry(profile).store_artifacts(challenger.run_id, files_of_run | latest)
    return evaluation


@contextmanager
def open_case(
    pipeline: Pipeline,
    challenger: Challenger,
    champion: Entry | None,
    profile: Profile,
    *,
    budget: Budget | None = None,
) -> Iterator[Case]:
    """Yields what gates may look at; the models' files are gone afterwards.

    Args:
        pipeline: Whose gates will judge.
        challenger: What `train` returned.
        champion: Whom the challenger is judged against; None if there is no champion.
        profile: Where the tables and MLflow are.
        budget: The error budget that is drawn from: a `ReplayBudget` for a judgement that cannot promote; None is
            the one kept in the ledger's database.

    Raises:
        ModelError: The challenger's files are not the ones that were trained, or its answers are not finite.
        DataError: The holdout does not have the columns the challenger needs.
        ServiceError: MLflow does not answer.
    """
    registry = Registry(profile)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(max_workers=1) as pool:
        files = registry.download(challenger.model_id, Path(folder, "challenger"))
        checked = pool.submit(_measured, pipeline, files, challenger.digest)
        own = load_model(files, digest=challenger.digest, pipeline=pipeline)
        theirs, error = _load_champion(pipeline, champion, registry, Path(folder, "champion"))
        yield make_case(
            pipeline,
            challenger,
            own,
            champion,
            theirs,
            error,
            profile,
            measured=checked.result,
            measured_champion=cache(
                lambda: _measured(pipeline, theirs.folder, champion.digest) if theirs and champion else None
            ),
            budget=budget or KeptBudget(profile.ledger_url),
        )


def make_case(
    pipeline: Pipeline,
    challenger: Challenger,
    own: LoadedModel,
    champion: Entry | None,
    theirs: LoadedModel | None,
    error: str,
    profile: Profile,
    *,
    measured: Callable[[], Measured],
    measured_champion: Callable[[], Measured | None],
    budget: Budget,
) -> Case:
    """Returns what gates may look at; `error` says why there is no model of the champion."""
    labelled = partial(read_labelled, pipeline, Store(profile.store_uri, pipeline.name))
    version = challenger.features.version
    rows = labelled(challenger.holdout, version)
    evidence = _scored(pipeline, rows, own, champion, theirs, error)
    window = cache(lambda: labelled(own.contract.window, version))

    def again(seed: int) -> np.ndarray:
        if not pipeline.model.seeded(own.contract.params):  # it could only become the same model
            return evidence.challenger.prediction
        answers = refit(pipeline, own.contract, window(), rows, seed)
        return align_classes(answers, own.contract.classes, evidence.classes)

    return Case(
        pipeline=pipeline,
        challenger=challenger,
        champion=champion,
        own=own,
        theirs=theirs,
        rows=rows,
        evidence=evidence,
        profile=profile,
        window=window,
        refit=cache(again),
        measured=measured,
        measured_champion=measured_champion,
        budget=budget,
    )


def judge(pipeline: Pipeline, challenger: Challenger, evaluation: Evaluation, profile: Profile) -> list[Verdict]:
    """Returns one verdict per gate on the stored evidence; the verdicts are stored before anybody can act on them.

    Raises:
        ConflictError: The stored evidence is not the one `evaluation` speaks of.
        ServiceError: MLflow does not answer.
    """
    registry = Registry(profile)
    evidence = stored_evidence(pipeline, challenger, evaluation, registry)
    if evidence is None:
        lost = "the evidence is missing; evaluate again"
        verdicts = [
            Verdict(gate=gate.kind(), status="error", reason=lost, on_fail=gate.on_fail) for gate in pipeline.gates
        ]
    else:
        verdicts = judge_all(pipeline.gates, evidence)
    for verdict in verdicts:
        log.info("%s %s: %s", verdict.gate, verdict.status, verdict.reason)
    content = TypeAdapter(list[Verdict]).dump_json(verdicts, indent=1)
    folder = evidence_folder(evaluation.evidence)
    # A promotion may rest on earlier verdicts on the same evidence, by gates that were declared otherwise.
    own = verdicts_file(hashlib.sha256(content).hexdigest())
    files_of_run = {VERDICTS: content, f"{folder}/{VERDICTS}": content, f"{folder}/{own}": content}
    registry.store_artifacts(challenger.run_id, files_of_run)
    return verdicts


def stored_evidence(
    pipeline: Pipeline, challenger: Challenger, evaluation: Evaluation, registry: Registry
) -> Evidence | None:
    """Returns the evidence an evaluation speaks of; None if a part of it is missing.

    Raises:
        ConflictError: What is stored is something else.
    """
    stored = evidence_on_record(challenger.run_id, evaluation.evidence, registry)
    if stored is None:
        return None
    if digest(stored) != evaluation.evidence:
        hint = "Run evaluate again"
        raise ConflictError(f"{pipeline.name}: evidence", "is not what evaluate stored", evaluation.evidence, hint)
    return from_files(stored)


def evidence_on_record(run_id: str, evidence: str, registry: Registry) -> dict[str, bytes] | None:
    """Returns the files that are stored under the evidence with this SHA-256; None if one is missing."""
    folder = evidence_folder(evidence)
    loaded = {name: registry.load_artifact(run_id, f"{folder}/{name}") for name in (EVIDENCE, HOLDOUT)}
    stored = {name: content for name, content in loaded.items() if content is not None}
    return stored if len(stored) == len(loaded) else None


def _measured(pipeline: Pipeline, files: Path, digest: str) -> Measured:
    timed = any(gate.timed for gate in pipeline.gates)
    try:
        return check_in_fresh_process(files, digest, pipeline.name, timed=timed)
    except ModelError as error:
        return Measured(requests=0, largest_difference=0.0, seconds=0.0, error=str(error))


def _load_champion(
    pipeline: Pipeline, champion: Entry | None, registry: Registry, folder: Path
) -> tuple[LoadedModel | None, str]:
    """Returns the champion and "", or None and what is wrong with its files or its code."""
    if champion is None:
        return None, ""
    try:
        files = registry.download(champion.model_id, folder)
        return require_own_code(pipeline, load_model(files, digest=champion.digest, pipeline=pipeline)), ""
    except (DataError, ModelError) as error:
        return None, str(error)


def _scored(
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
        prediction = _answers(model, rows, classes, f"version {version}" if version else "the challenger")
        return Scores(version, prediction, score_all(task, label, prediction))

    mine, other = scores(own, ""), None
    if theirs is not None and champion is not None:
        try:
            if task == "binary" and theirs.contract.classes != classes:
                raise ModelError(
                    f"version {champion.version}", f"must know the classes {classes}", theirs.contract.classes
                )
            other = scores(theirs, champion.version)
        except Exception as problem:  # whatever a model of another time raises, the challenger is still to be judged
            log.exception("Version %s could not be scored", champion.version)
            error = str(problem) if isinstance(problem, AirworthyError) else f"{type(problem).__name__}: {problem}"
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


def _answers(model: LoadedModel, rows: pd.DataFrame, classes: tuple[str, ...], name: str) -> np.ndarray:
    prediction = align_classes(model.predict(rows), model.contract.classes, classes)
    if not np.isfinite(prediction).all():  # of NaN the likeliest class is the first, which may well be right
        raise ModelError(name, "must answer finite numbers")
    return prediction


def verdicts_file(digest: str) -> str:
    """Returns where the verdicts with this SHA-256 stay, whatever is judged later."""
    return f"verdicts-{digest[:12]}.json"


def evidence_folder(digest: str) -> str:
    """Returns where the evidence with this SHA-256, and the verdicts on it, are among the run's artifacts."""
    return f"evidence/{digest[:12]}"
