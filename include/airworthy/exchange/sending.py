"""Export: a model version with its files, run, evidence, verdicts, lineage and ledger entries, in one file."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from string import punctuation
from typing import Any
from urllib.parse import quote, urlsplit

from pydantic import TypeAdapter

from airworthy.config import Pipeline
from airworthy.errors import ModelError
from airworthy.exchange import record
from airworthy.exchange.archive import Manifest, write
from airworthy.exchange.record import Point, Record
from airworthy.ledger import Entry, Ledger
from airworthy.lineage import lineages, of_version
from airworthy.model_files import files_of, load_model
from airworthy.profile import Profile
from airworthy.registry import Challenger, Registry


def export_version(pipeline: Pipeline, version: str, profile: Profile, file: Path) -> Manifest:
    """Returns the manifest of the archive it leaves in `file`; nothing in the registry or the ledger is changed.

    A version that was itself imported keeps its origin: what it was trained on, and under which key.

    Raises:
        ModelError: There is no such version, its files are not the recorded ones, or `file` exists.
        ServiceError: MLflow or the ledger does not answer.
    """
    if file.exists() or not file.parent.is_dir():
        raise ModelError(str(file), "must be a new file in a folder that is there")
    registry = Registry(profile)
    lineage = of_version(lineages(pipeline, profile), version)
    run_id = lineage.run.run_id
    brought = registry.imported(run_id)
    challenger = brought or registry.challenger(run_id)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "archive")
        _collect_model(pipeline, challenger, registry, Path(scratch), folder / record.MODEL)
        _collect_artifacts(registry, run_id, Path(scratch), folder / record.ARTIFACTS)
        entries = [one for one in Ledger(profile.ledger_url).entries(pipeline.name) if one.version == version]
        told = {
            record.RECORD: _record(registry, run_id).model_dump_json(indent=1),
            record.CHALLENGER: challenger.model_dump_json(indent=1),
            record.LINEAGE: _origin(folder) or lineage.model_dump_json(indent=1),
            record.LEDGER: TypeAdapter(list[Entry]).dump_json(entries, indent=1).decode(),
        }
        for name, content in told.items():
            (folder / name).write_text(content, encoding="utf-8")
        manifest = Manifest(
            pipeline=pipeline.name,
            registry=_address(registry.uri),
            version=version,
            run_id=run_id,
            training_key=lineage.run.tags.get("source.training_key", challenger.training_key),
            digest=challenger.digest,
            files={},
        )
        return write(file, manifest, folder)


def _collect_model(pipeline: Pipeline, challenger: Challenger, registry: Registry, scratch: Path, folder: Path) -> None:
    files = registry.download(challenger.model_id, scratch / "model")
    load_model(files, digest=challenger.digest, pipeline=pipeline)
    folder.mkdir(parents=True)
    for name in files_of(files):
        shutil.copyfile(files / name, folder / name)


def _collect_artifacts(registry: Registry, run_id: str, scratch: Path, folder: Path) -> None:
    with registry.answering():
        found = registry.client.download_artifacts(run_id, "", str(_made(scratch / "artifacts")))
    shutil.copytree(found, folder)


def _record(registry: Registry, run_id: str) -> Record:
    with registry.answering():
        data = registry.client.get_run(run_id)
        history = {name: registry.client.get_metric_history(run_id, name) for name in sorted(data.data.metrics)}
    points: dict[str, Any] = {
        name: sorted(
            (Point(value=one.value, timestamp=one.timestamp, step=one.step) for one in found),
            key=lambda point: (point.step, point.timestamp),
        )
        for name, found in history.items()
    }
    by_name = (dict(sorted(found.items())) for found in (data.data.params, data.data.tags))
    params, tags = by_name
    return Record(name=data.info.run_name or "", params=params, metrics=points, tags=tags)


def _origin(folder: Path) -> str:
    """Returns the lineage that an imported version was imported with; "" for one that was trained here."""
    file = folder / record.ARTIFACTS / record.SOURCE / record.LINEAGE
    return file.read_text(encoding="utf-8") if file.exists() else ""


def _address(uri: str) -> str:
    """Returns an address without the credentials that may stand in it, in printable ASCII."""
    found = urlsplit(uri)
    return quote(found._replace(netloc=found.netloc.rpartition("@")[2]).geturl(), safe=punctuation)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
