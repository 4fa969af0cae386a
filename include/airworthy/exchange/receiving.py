"""Import: an archive becomes a finished run and a version here, once; nobody but this side's gates promotes it."""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from airworthy.config import Pipeline, Strict
from airworthy.errors import ModelError, Problems
from airworthy.exchange import record
from airworthy.exchange.archive import MANIFEST, MOST_BYTES, Manifest, read, sha256
from airworthy.exchange.record import Point, Record
from airworthy.explain import explain
from airworthy.lineage import Lineage
from airworthy.locks import locked
from airworthy.model_files import load_model
from airworthy.profile import Profile, home
from airworthy.registry import (
    DECLARATION,
    ENVIRONMENT,
    IMPORTED,
    Challenger,
    Registry,
)
from airworthy.training_tags import TRIALS, interval_tag

if TYPE_CHECKING:
    from mlflow.entities import Run

log = logging.getLogger(__name__)

_BATCH = 100  # what MLflow takes in one request
T = TypeVar("T")
Model = TypeVar("Model", bound=BaseModel)


class Import(Strict):
    """What came of an import.

    Attributes:
        version: Which holds the model here.
        run_id: Its run here.
        known: True if it was here already, so that nothing was written.
        trained_here: True if this registry is where it comes from.
    """

    version: str
    run_id: str
    known: bool
    trained_here: bool
    manifest: Manifest


class _Content:
    """An archive that was checked whole: its manifest, the model, and what its run recorded."""

    def __init__(self, pipeline: Pipeline, file: Path, folder: Path, most_bytes: int, trust: bool) -> None:
        self.folder = folder
        self.manifest = read(file, folder, most_bytes=most_bytes)
        self.sha256 = sha256(file)
        where = str(file)
        if self.manifest.pipeline != pipeline.name:
            raise ModelError(where, f"must hold a model of {pipeline.name}", self.manifest.pipeline)
        self.record = _parse(where, folder, record.RECORD, Record)
        self.challenger = _parse(where, folder, record.CHALLENGER, Challenger)
        _parse(where, folder, record.LINEAGE, Lineage)
        _held(where, folder, record.LEDGER)
        self.model = load_model(
            folder / record.MODEL, digest=self.manifest.digest, pipeline=pipeline, foreign=not trust
        )
        self._require_consistent(where, pipeline)

    def _require_consistent(self, where: str, pipeline: Pipeline) -> None:
        contract, told = self.model.contract, self.challenger
        said = {
            "pipeline": (told.pipeline, contract.pipeline),
            "digest": (told.digest, self.manifest.digest),
            "as_of": (told.as_of, contract.as_of),
            "holdout": (told.holdout, contract.holdout),
        }
        for name, (one, other) in said.items():
            if one != other:
                raise ModelError(f"{where}: {name}", f"must be the model's own, {other}", one, "Do not trust it")
        if contract.task != pipeline.label.task:
            raise ModelError(where, f"must hold a {pipeline.label.task} model, as the pipeline declares", contract.task)

    def without_model(self) -> Path:
        """Returns the folder of all that was recorded elsewhere; the model is logged as one."""
        (self.folder / MANIFEST).write_text(self.manifest.model_dump_json(indent=1), encoding="utf-8")
        shutil.rmtree(self.folder / record.MODEL)
        return self.folder

    @property
    def key(self) -> str:
        """What this import is known by here; no training here has it, so that none takes over what was imported."""
        return hashlib.sha256(f"imported {self.manifest.training_key} {self.manifest.digest}".encode()).hexdigest()


def import_version(
    pipeline: Pipeline, file: Path, profile: Profile, *, most_bytes: int = MOST_BYTES, trust: bool = False
) -> Import:
    """Returns the version and the finished run that hold an archive's model here.

    What is here already, by an earlier import or because it was trained here, is returned as it is. Everything in
    the archive is checked before the first thing is written; an import that was ended in the middle is begun anew.

    Args:
        pipeline: Whose model it must be.
        file: What `export_version` left.
        profile: Where MLflow is.
        most_bytes: How large the archive's files may be together.
        trust: Whether a user's class may read files of its own format from the archive.

    Raises:
        ModelError: The archive is damaged, is of another pipeline, or its model cannot be loaded.
        Problems: What it says of its model has not the form it must have.
        ServiceError: MLflow does not answer.
    """
    registry = Registry(profile)
    with tempfile.TemporaryDirectory() as scratch, locked(home() / "imports" / pipeline.name):
        content = _Content(pipeline, file, Path(scratch, "archive"), most_bytes, trust)
        manifest = content.manifest
        own = _finished(registry, pipeline.name, manifest.training_key, manifest.digest)
        here = own or _finished(registry, pipeline.name, content.key, manifest.digest)
        if here is None:
            _discard_unfinished(registry, pipeline.name, content.key)
            made = _log(registry, content, Path(scratch, "model"))
            here = _finished(registry, pipeline.name, content.key, manifest.digest) or made
            if here != made:  # another machine was faster
                _discard(registry, made)
            known = False
        else:
            known = True
        version = _register(registry, here, trained_here=own is not None)
    return Import(version=version, run_id=here, known=known, trained_here=own is not None, manifest=manifest)


def _register(registry: Registry, run_id: str, *, trained_here: bool) -> str:
    """Returns the version that holds a run's model; one that was imported says from where in its tags."""
    challenger = registry.challenger(run_id) if trained_here else registry.imported(run_id)
    assert challenger is not None
    version = registry.register(challenger)
    with registry.answering():
        client = registry.client
        told = {k: v for k, v in client.get_run(run_id).data.tags.items() if k.startswith(f"{record.SOURCE}.")}
        known = client.get_model_version(challenger.pipeline, version).tags
        for name, value in told.items():
            if known.get(name) != value:
                client.set_model_version_tag(challenger.pipeline, version, name, value)
    return version


def _runs(registry: Registry, pipeline: str, key: str, condition: str) -> list[Run]:
    with registry.answering():
        experiment = registry.client.get_experiment_by_name(pipeline)
        if experiment is None:
            return []
        query = f"tags.training_key = '{key}' and {condition}"
        return list(
            registry.client.search_runs([experiment.experiment_id], query, order_by=["attributes.end_time ASC"])
        )


def _finished(registry: Registry, pipeline: str, key: str, digest: str) -> str | None:
    """Returns the run that holds a model under a key, or None; of two that were imported at once, the first to end."""
    condition = f"tags.digest = '{digest}' and attributes.status = 'FINISHED'"
    found = _runs(registry, pipeline, key, condition)
    return found[0].info.run_id if found else None


def _discard_unfinished(registry: Registry, pipeline: str, key: str) -> None:
    """Deletes what an import that was ended left; one of another machine may still be at work."""
    condition = f"attributes.status != 'FINISHED' and tags.`source.imported_on` = '{platform.node()}'"
    for run in _runs(registry, pipeline, key, condition):
        log.info("Run %s is of an import that was ended; it begins anew", run.info.run_id)
        _discard(registry, run.info.run_id)


def _discard(registry: Registry, run_id: str) -> None:
    with registry.answering():
        client = registry.client
        experiment = client.get_run(run_id).info.experiment_id
        for model in client.search_logged_models([experiment], filter_string=f"source_run_id = '{run_id}'"):
            client.delete_logged_model(model.model_id)
        client.delete_run(run_id)


def _log(registry: Registry, content: _Content, folder: Path) -> str:
    """Returns the run that has the model on record; it finishes last."""
    from mlflow.entities import LoggedModelOutput

    content.model.save(folder)
    contract, manifest = content.model.contract, content.manifest
    name = f"version {manifest.version} from elsewhere, as of {contract.as_of:%Y-%m-%d}"
    with registry.answering():
        client = registry.client
        run = client.create_run(registry.experiment(contract.pipeline), run_name=name, tags=_tags(content))
        run_id = run.info.run_id
        model = client.create_logged_model(
            run.info.experiment_id,
            name=contract.pipeline,
            source_run_id=run_id,
            tags={"digest": manifest.digest, "training_key": content.key},
            params=content.record.params,
            model_type=contract.kind,
        )
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
        client.log_model_artifacts(model.model_id, str(folder))
        client.finalize_logged_model(model.model_id, "READY")
        _log_numbers(client, run_id, content.record)
        client.log_artifacts(run_id, str(content.without_model()), record.SOURCE)
        for artifact in (TRIALS, ENVIRONMENT, DECLARATION):
            if (file := content.folder / record.ARTIFACTS / artifact).exists():
                client.log_artifact(run_id, str(file))
        update = {"run_id": run_id, "model_id": model.model_id, "training_key": content.key, "reused": True}
        client.log_text(run_id, content.challenger.model_copy(update=update).model_dump_json(indent=1), IMPORTED)
        client.set_terminated(run_id, "FINISHED")
    return str(run_id)


def _log_numbers(client: Any, run_id: str, said: Record) -> None:
    from mlflow.entities import Metric, Param

    for params in _batches([Param(name, value) for name, value in said.params.items()]):
        client.log_batch(run_id, params=params)
    metrics = [Metric(name, *_values(point)) for name, points in said.metrics.items() for point in points]
    for batch in _batches(metrics):
        client.log_batch(run_id, metrics=batch)


def _values(point: Point) -> tuple[float, int, int]:
    return point.value, point.timestamp, point.step


def _batches(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), _BATCH):
        yield items[start : start + _BATCH]


def _tags(content: _Content) -> dict[str, str]:
    contract, manifest, said = content.model.contract, content.manifest, content.record.tags
    code = said.get("code", "")
    return {
        "pipeline": contract.pipeline,
        "training_key": content.key,
        "digest": manifest.digest,
        "as_of": contract.as_of.isoformat(),
        "window": interval_tag(contract.window),
        "holdout": interval_tag(contract.holdout),
        "features.function": contract.features_function or "",
        "features.function_digest": contract.features_digest,
        "code": code,
        "mlflow.source.name": "airworthy",
        "mlflow.source.type": "JOB",
        "mlflow.source.git.commit": code.removesuffix("-dirty"),
        "mlflow.loggedArtifacts": json.dumps([{"path": TRIALS, "type": "table"}]),
        f"{record.SOURCE}.registry": manifest.registry,
        f"{record.SOURCE}.version": manifest.version,
        f"{record.SOURCE}.run_id": manifest.run_id,
        f"{record.SOURCE}.training_key": manifest.training_key,
        f"{record.SOURCE}.archive": content.sha256,
        f"{record.SOURCE}.imported_on": platform.node(),
    }


def _parse(where: str, folder: Path, name: str, kind: type[Model]) -> Model:
    try:
        return kind.model_validate_json(_held(where, folder, name))
    except ValidationError as error:
        raise Problems(f"{where}: {name}", explain(f"{where}: {name}", error)) from None


def _held(where: str, folder: Path, name: str) -> bytes:
    file = folder / name
    if not file.is_file():
        raise ModelError(where, f"must hold {name}", hint="It is not what `airworthy export` writes")
    return file.read_bytes()
