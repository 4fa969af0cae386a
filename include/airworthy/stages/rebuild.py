"""Rebuild: a model trained once more from what its run has on record, and how the result differs.

What must come out bit by bit are the files that serving and monitoring read (`model_files.files_of`). MLflow's own
files beside them name the run and the moment, so they never do.
"""

from __future__ import annotations

import json
import logging
import random
import tempfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from hashlib import file_digest
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import ValidationError

from airworthy.config import Pipeline, Strict, load_pipeline
from airworthy.content import digest
from airworthy.errors import AirworthyError, DataError, ModelError, Problems, ServiceError
from airworthy.explain import explain
from airworthy.features import features_digest
from airworthy.ledger import Ledger
from airworthy.lineage import FEATURES, RAW, Lineage, lineages, of_version
from airworthy.lineage.tables import name
from airworthy.model_files import CONTRACT, LoadedModel, files_of, load_model
from airworthy.profile import Profile, load_profile, pipelines_dir
from airworthy.provenance import code_version, environment
from airworthy.registry import DECLARATION, Challenger, Registry
from airworthy.searches import begun_with
from airworthy.stages.study import Study
from airworthy.stages.train import make, training_key
from airworthy.stages.training_data import TrainingData, read_training_data
from airworthy.store import Store, Write
from airworthy.training_runs import TrainingRuns

log = logging.getLogger(__name__)

TAG = "rebuild"
_UNEXPLAINED = "nothing that is on record: training this model does not give the same files twice"
_REMOVED = "Files of old versions were removed or changed, e.g. by VACUUM; restore them from a backup"


class Rebuild(Strict):
    """What came of building a model again.

    Attributes:
        folder: Where its files are.
        digest: Of the files.
        recorded: What the training run recorded.
        files: Each file, and whether it is identical to the recorded one; none if those are lost.
        differences: What is not as it was, e.g. a library's version; they may or may not matter to the model.
        notes: What changed since, but was not used.
        requests: How many recorded requests the rebuilt model answered.
        largest_difference: Between its answers and the recorded ones; None if the recorded files are lost.
    """

    run_id: str
    folder: Path
    rows: int
    digest: str
    recorded: str
    files: dict[str, bool]
    differences: tuple[str, ...]
    notes: tuple[str, ...]
    requests: int
    largest_difference: float | None

    @property
    def identical(self) -> bool:
        return self.digest == self.recorded


def rebuild(pipeline: Pipeline, lineage: Lineage, profile: Profile, folder: Path) -> Rebuild:
    """Returns how a model, trained again into `folder`, differs from the one on record; nothing is registered.

    It reads the features table as it was, with the declaration as it was. The code is the present one.

    Args:
        pipeline: As its file declares it now.
        lineage: Which model.
        profile: Where the tables and MLflow are.
        folder: Must not exist yet.

    Raises:
        Problems: The features table does not hold any more what was read; every partition is named.
        DataError: Neither does `raw`.
        ModelError: The run's records cannot be read, or the folder exists.
        TrainError: The model cannot be trained.
        ServiceError: MLflow does not answer.
    """
    if folder.exists():
        raise ModelError(str(folder), "must not exist yet, because the model's files go there")
    if source := lineage.run.source:
        hint = f"It is {source}: rebuild it there, where the rows are that it was trained on"
        raise ModelError(f"run {lineage.run.run_id}", "must have been trained here", "an imported model", hint)
    registry, store = Registry(profile), Store(profile.store_uri, pipeline.name)
    challenger = registry.challenger(lineage.run.run_id)
    declared, notes = _declared(pipeline, registry, lineage.run.run_id)
    data = _data(declared, lineage, challenger, store)
    with tempfile.TemporaryDirectory() as downloads:
        recorded, lost = _recorded(declared, challenger, registry, Path(downloads))
        params = recorded.contract.params if recorded else None
        try:
            study = Study(warm=begun_with(lineage.run.tags))
            made = make(declared, challenger.as_of, data, store, folder, params=params, study=study)
        except (OSError, pa.ArrowException, DataError) as error:
            if isinstance(error, DataError) and error.where != RAW:
                raise
            raise DataError(RAW, "must still hold what the features were made from", str(error), _REMOVED) from None
        again = load_model(folder, digest=made.digest, pipeline=declared)
        differences = [*lost, *_differences(declared, lineage, challenger, data, registry)]
        files = _compared(recorded, again) if recorded else {}
        if recorded and not all(files.values()):
            differences = [*(differences or [_UNEXPLAINED]), *_contract_differences(recorded, again)]
        answers = again.replay(recorded.folder) if recorded else None
    return Rebuild(
        run_id=challenger.run_id,
        folder=folder,
        rows=data.features.rows,
        digest=made.digest,
        recorded=challenger.digest,
        files=files,
        differences=tuple(differences),
        notes=tuple(notes),
        requests=answers.requests if answers else 0,
        largest_difference=answers.largest_difference if answers else None,
    )


def _declared(pipeline: Pipeline, registry: Registry, run_id: str) -> tuple[Pipeline, list[str]]:
    """Returns the pipeline as it was declared for a run, and what of it is declared otherwise now."""
    recorded = registry.load_json(run_id, DECLARATION)
    if recorded is None:
        return pipeline, [f"run {run_id} has no {DECLARATION}: it is trained as declared now"]
    try:
        declared = Pipeline.model_validate(recorded)
    except ValidationError as error:
        where = f"run {run_id}: {DECLARATION}"
        raise Problems(where, explain(where, error)) from None
    then, now = (one.model_dump(mode="json") for one in (declared, pipeline))
    return declared, [f"{name} is declared otherwise now" for name in now if then.get(name) != now[name]]


def _data(pipeline: Pipeline, lineage: Lineage, challenger: Challenger, store: Store) -> TrainingData:
    """Returns the rows that the run read.

    Raises:
        Problems: They are not there any more.
    """
    try:
        data = read_training_data(pipeline, challenger.as_of, store, version=challenger.features.version)
    except (OSError, pa.ArrowException, AirworthyError) as error:
        _require_whole(lineage, challenger, store)
        raise DataError(f"{FEATURES}, version {challenger.features.version}", "must be readable", str(error)) from None
    if data.features.digest != challenger.features.digest:
        _require_whole(lineage, challenger, store)
    return data


def _require_whole(lineage: Lineage, challenger: Challenger, store: Store) -> None:
    """Raises Problems if partitions are not at the recorded version what their writes left."""
    version = challenger.features.version
    writes = [read.features for read in lineage.reads if read.features and read.features.rows]
    problems = [problem for write in writes for problem in _damage(write, version, store)]
    if problems:
        raise Problems(f"{FEATURES}, version {version}", problems)


def _damage(write: Write, version: int, store: Store) -> Iterator[DataError]:
    where = f"{FEATURES}[{write.partition}], version {version}"
    try:
        found = digest(store.scan(FEATURES, partitions=[write.partition], version=version), write.rows)
    except (OSError, pa.ArrowException, DataError) as error:
        yield DataError(where, "must still be there", str(error), _REMOVED)
        return
    if found != write.digest:
        told = "other rows" if found is None else found[:12]
        yield DataError(where, f"must have the recorded digest {write.digest[:12]}…", told, _REMOVED)


def _recorded(
    pipeline: Pipeline, challenger: Challenger, registry: Registry, folder: Path
) -> tuple[LoadedModel | None, list[str]]:
    """Returns the model on record, or None and why there is none: then its parameters are searched for again."""
    try:
        files = registry.download(challenger.model_id, folder)
        return load_model(files, digest=challenger.digest, pipeline=pipeline), []
    except ModelError as error:
        return None, [f"the recorded files cannot be compared: {error}"]


def _differences(
    pipeline: Pipeline, lineage: Lineage, challenger: Challenger, data: TrainingData, registry: Registry
) -> Iterator[str]:
    """Yields what of the rows, the code and the libraries is not as it was."""
    if data.features.digest != challenger.features.digest:
        yield f"rows: digest {data.features.digest[:12]}, recorded {challenger.features.digest[:12]}"
    tags = lineage.run.tags
    then, now = tags["features.function_digest"], features_digest(pipeline)
    if then != now:
        yield f"the module of {pipeline.features}: SHA-256 {now[:12]}, recorded {then[:12]}"
    elif tags.get("model.code", "") != (now := pipeline.model.code()):
        yield f"the module of the model's class: SHA-256 {now[:12]}, recorded {tags.get('model.code', '')[:12]}"
    elif training_key(pipeline, challenger.as_of, challenger.features.digest) != challenger.training_key:
        yield f"{DECLARATION}: not the declaration that the run was trained by"
    if tags.get("code", "") != (code := code_version()):
        yield f"code: {code or 'unknown'}, recorded {tags.get('code') or 'unknown'}"
    recorded: Mapping[str, str] = registry.load_json(challenger.run_id, "environment.json") or {}
    installed = environment()
    for library in sorted({*recorded, *installed}):
        then, now = (known.get(library, "not installed") for known in (recorded, installed))
        if then != now:
            yield f"{library}: {now}, recorded {then}"


def _compared(recorded: LoadedModel, again: LoadedModel) -> dict[str, bool]:
    """Returns each file of the rebuilt model, and whether the recorded one is the same bit by bit."""
    files = sorted({*files_of(recorded.folder), *files_of(again.folder)})
    return {name: _sha256(recorded.folder / name) == _sha256(again.folder / name) for name in files}


def _contract_differences(recorded: LoadedModel, again: LoadedModel) -> Iterator[str]:
    then, now = (one.contract.model_dump(mode="json") for one in (recorded, again))
    for field in now:
        if then.get(field) != now[field]:
            yield f"{CONTRACT}: {field} is {_short(now[field])}, recorded {_short(then.get(field))}"


def _sha256(file: Path) -> str:
    if not file.exists():
        return ""
    with file.open("rb") as opened:
        return file_digest(opened, "sha256").hexdigest()


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:79]}…"


def past_champion(pipeline: Pipeline, profile: Profile, moment: datetime, version: str | None = None) -> Lineage | None:
    """Returns the version that is named, or a random one that had been champion at a moment; None if none had.

    The moment is the seed, so that asking again, whatever was promoted meanwhile, gives the same version.

    Raises:
        ModelError: There is no such version.
        ServiceError: MLflow or the ledger does not answer.
    """
    found = lineages(pipeline, profile)
    if version is not None:
        return of_version(found, version)
    own = {name for lineage in found if not lineage.run.source for name in lineage.run.versions}
    entries = Ledger(profile.ledger_url).entries(pipeline.name)
    known = sorted({entry.version for entry in entries if entry.promotes and entry.at <= moment} & own, key=int)
    if not known:
        return None
    chosen = random.Random(moment.isoformat()).choice(known)
    log.info("Of the champions %s, version %s is built again", ", ".join(known), chosen)
    return of_version(found, chosen)


def require_identical(pipeline: Pipeline, lineage: Lineage, profile: Profile) -> Rebuild:
    """Returns the rebuild once run and version have it on record as their tag `rebuild`.

    Raises:
        ModelError: The files are not identical; what differs is the hint.
        AirworthyError: The model cannot be built again.
    """
    where = f"{pipeline.name}: {name(lineage)}"

    def on_record(outcome: str) -> None:
        TrainingRuns(profile).mark(pipeline.name, lineage.run, TAG, f"{outcome} {datetime.now(UTC):%Y-%m-%d}")

    try:
        with tempfile.TemporaryDirectory() as folder:
            found = rebuild(pipeline, lineage, profile, Path(folder, "model"))
    except ServiceError:
        raise  # it says nothing about the model, and may answer the next time
    except AirworthyError as error:
        on_record(f"impossible: {str(error).splitlines()[0]}")
        raise
    for line in told(found):
        log.info("%s", line)
    if not found.identical:
        differ = ", ".join(file for file, same in found.files.items() if not same)
        on_record(f"not identical ({differ or 'the recorded files are lost'})")
        hint = f"Other files: {differ or 'not known'}. Not as it was: {'; '.join(found.differences)}"
        raise ModelError(where, f"must be built again as it was, {found.recorded[:12]}…", f"{found.digest[:12]}…", hint)
    on_record("identical")
    return found


def told(found: Rebuild) -> Iterator[str]:
    """Yields what there is to say of a rebuild, line by line."""
    yield f"{'identical' if found.identical else 'not identical'}: {found.digest}, recorded {found.recorded}"
    for file, same in found.files.items():
        yield f"  {file}: {'identical' if same else 'not the recorded content'}"
    if found.largest_difference is not None:
        yield f"{found.requests} recorded requests: largest difference {found.largest_difference:g}"
    for heading, lines in (("not as it was", found.differences), ("not used", found.notes)):
        yield from (f"{heading}: {line}" for line in lines)


def run(pipeline: str, environment: Mapping[str, str], version: str, folder: Path | None) -> bool:
    """Prints how the rebuilt model differs; returns whether it is identical.

    Args:
        pipeline: The pipeline's name.
        environment: Where the services are.
        version: Of the model.
        folder: Gets the files, and must not exist yet; None keeps none.
    """
    profile = load_profile(environment)
    declared = load_pipeline(pipelines_dir() / f"{pipeline}.yaml")
    lineage = of_version(lineages(declared, profile), version)
    with tempfile.TemporaryDirectory() as scratch:
        found = rebuild(declared, lineage, profile, folder or Path(scratch, "model"))
    print(f"{pipeline} {name(lineage)}, as of {lineage.run.as_of:%Y-%m-%d}")
    kept = f", into {folder}" if folder else ""
    print(f"trained on {found.rows} rows of {FEATURES} at version {lineage.run.features_version}{kept}")
    print("\n".join(told(found)))
    return found.identical
