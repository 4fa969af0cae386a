"""The model files that a serving process keeps on its own machine, proven, so that a restart needs nobody else."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from airworthy.config import Pipeline
from airworthy.ledger import Entry
from airworthy.locks import locked
from airworthy.model_files import digest_of
from airworthy.pages import write_whole
from airworthy.registry import Registry
from airworthy.serving.check import check_in_fresh_process, require_same_answers

_MEMORY, _CANARY = "champion.json", "canary.json"

Kept = TypeVar("Kept", bound=BaseModel)

log = logging.getLogger(__name__)


class Remembered(BaseModel):
    """What a restart needs when neither the ledger nor MLflow answers: one file per pipeline."""

    model_config = ConfigDict(frozen=True)

    champion: Entry
    previous: str | None


class KeptFiles:
    """The folders `<pipeline>/<digest>/` with model files, and what is remembered of each pipeline.

    A folder gets that name only after its files were proven in a fresh process, so what is there may be loaded.
    """

    def __init__(self, folder: Path, registry: Registry) -> None:
        self._folder = folder
        self._registry = registry

    def changing(self, pipeline: str, *, wait: bool = True) -> AbstractContextManager[None]:
        """Keeps other processes from fetching or removing the files of a pipeline meanwhile; see `locked`."""
        return locked(self._folder / pipeline, wait=wait)

    def folder(self, entry: Entry) -> Path:
        return self._folder / entry.pipeline / entry.digest

    def fetch(self, entry: Entry, pipeline: Pipeline) -> Path:
        """Returns the folder with the entry's files, proven in a fresh process.

        Raises:
            ModelError: They are not what the ledger says, or do not answer as recorded.
            ServiceError: MLflow does not answer.
        """
        folder = self.folder(entry)
        if folder.exists() and digest_of(folder) == entry.digest:
            return folder
        shutil.rmtree(folder, ignore_errors=True)  # damaged since it was proven
        with tempfile.TemporaryDirectory(prefix=".incoming-", dir=folder.parent) as incoming:
            files = self._registry.download(entry.model_id, Path(incoming) / "model")
            found = check_in_fresh_process(files, entry.digest, pipeline.name, background=True)
            require_same_answers(pipeline, found.largest_difference)
            files.rename(folder)
        return folder

    def remember(self, entry: Entry, previous: str | None) -> None:
        remembered = Remembered(champion=entry, previous=previous)
        write_whole(self._folder / entry.pipeline / _MEMORY, remembered.model_dump_json(indent=1))

    def forget(self, pipeline: str) -> None:
        (self._folder / pipeline / _MEMORY).unlink(missing_ok=True)

    def remembered(self) -> Iterator[Remembered]:
        """Returns what the last run remembered of each pipeline; what cannot be read is told and left out."""
        return self._read(_MEMORY, Remembered)

    def remember_canary(self, entry: Entry) -> None:
        """Leaves on record which challenger answers beside the champion; its files are kept from here on."""
        write_whole(self._folder / entry.pipeline / _CANARY, entry.model_dump_json(indent=1))

    def forget_canary(self, pipeline: str) -> None:
        (self._folder / pipeline / _CANARY).unlink(missing_ok=True)

    def remembered_canaries(self) -> Iterator[Entry]:
        """Returns the last step of each canary that ran in the last run; what cannot be read is told and left out."""
        return self._read(_CANARY, Entry)

    def prune(self, pipeline: str, digests: Collection[str | None]) -> None:
        """Removes the files of a pipeline's other versions; a challenger's are kept as long as its canary runs."""
        tried = {entry.digest for entry in self.remembered_canaries() if entry.pipeline == pipeline}
        for path in (self._folder / pipeline).iterdir():
            if path.name not in {_MEMORY, _CANARY, *tried, *digests}:
                shutil.rmtree(path, ignore_errors=True)

    def _read(self, name: str, kind: type[Kept]) -> Iterator[Kept]:
        for file in sorted(self._folder.glob(f"*/{name}")):
            try:
                yield kind.model_validate_json(file.read_text())
            except (OSError, ValidationError) as error:
                log.warning("%s cannot be read and is ignored: %s", file, error)
