"""Follows the ledger: fetches each pipeline's champion, proves it, and swaps it in by reference."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
from pydantic import BaseModel, ConfigDict, ValidationError

from airworthy.config import Pipeline, load_pipeline
from airworthy.errors import AirworthyError, ServiceError
from airworthy.ledger import Entry, Ledger
from airworthy.model_files import REQUESTS, LoadedModel, digest_of, load_model
from airworthy.pages import write_whole
from airworthy.profile import Profile, pipelines_dir
from airworthy.registry import Registry
from airworthy.serving.check import check_in_fresh_process, require_same_answers
from airworthy.serving.feature_code import with_own_feature_code
from airworthy.serving.lookup import Lookups

LONGEST_PAUSE = 30.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Champion:
    """A loaded model and the ledger entry that made it champion; never changed, only replaced.

    Attributes:
        lookups: What fills in the columns of views.
        optional: The key columns a request may leave out, because no prediction depends on them.
    """

    entry: Entry
    model: LoadedModel
    lookups: Lookups
    optional: frozenset[str]
    since: datetime


@dataclass(frozen=True)
class Refusal:
    """Why an entry's model does not answer.

    Attributes:
        final: True if trying again cannot help; a later ledger entry is needed.
        retry_at: On the monotonic clock.
    """

    entry: Entry
    reason: str
    final: bool
    attempts: int = 1
    retry_at: float = 0.0


class Remembered(BaseModel):
    """What a restart needs when neither the ledger nor MLflow answers: one file per pipeline."""

    model_config = ConfigDict(frozen=True)

    champion: Entry
    previous: str | None


class Champions:
    """The champion of every pipeline, kept up to date by one thread.

    Readers take a `Champion` once per request; replacing it is one assignment, so a request is answered by one
    version from start to end and none is lost.

    Args:
        folder: Holds `<pipeline>/<digest>/` with model files. A folder gets that name only after its files were
            proven in a fresh process, so what is there may be loaded.
        poll: Seconds between two looks at the ledger.
    """

    def __init__(self, profile: Profile, folder: Path, poll: float) -> None:
        self._ledger = Ledger(profile.ledger_url)
        self._registry = Registry(profile)
        self._folder = folder
        self._poll = poll
        self._live: dict[str, Champion] = {}
        self._refused: dict[str, Refusal] = {}
        self._previous: dict[str, str | None] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="follow-ledger", daemon=True)
        self.ready = False
        self.ledger_trouble = ""

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(timeout=5)

    def champion(self, pipeline: str) -> Champion | None:
        return self._live.get(pipeline)

    def refusal(self, pipeline: str) -> Refusal | None:
        return self._refused.get(pipeline)

    def pipelines(self) -> list[str]:
        """Returns the declared pipelines and those that still answer, sorted."""
        return sorted({file.stem for file in pipelines_dir().glob("*.yaml")} | set(self._live))

    def _follow(self) -> None:
        self._restore()
        while not self._stop.is_set():
            trouble = ""
            try:
                self._look()
            except ServiceError as error:
                trouble = str(error)
            except Exception as error:  # whatever happened, the champions go on answering and the ledger is read again
                trouble = f"{type(error).__name__}: {error}"
                if trouble != self.ledger_trouble:
                    log.exception("Could not follow the ledger")
            if trouble != self.ledger_trouble:
                log.warning("ledger: %s", trouble or "answers again")
                self.ledger_trouble = trouble
            self.ready = True
            self._stop.wait(self._poll)

    def _look(self) -> None:
        for pipeline in self.pipelines():
            entry = self._ledger.champion(pipeline)
            if entry is None:
                self._withdraw(pipeline)
            elif self._is_due(entry):
                self._attempt(entry)

    def _is_due(self, entry: Entry) -> bool:
        live, refused = self._live.get(entry.pipeline), self._refused.get(entry.pipeline)
        if live and live.entry.sequence == entry.sequence and refused is None:
            return False
        if refused and refused.entry.sequence == entry.sequence:
            return not refused.final and time.monotonic() >= refused.retry_at
        return True

    def _attempt(self, entry: Entry) -> None:
        """Leaves the entry's model live; on any failure the one that answers keeps answering."""
        before = self._refused.get(entry.pipeline)
        attempts = before.attempts + 1 if before and before.entry.sequence == entry.sequence else 1
        try:
            self._go_live(entry)
        except (ServiceError, OSError) as error:
            pause = min(LONGEST_PAUSE, 2.0 ** (attempts - 1))
            refusal = Refusal(entry, str(error), False, attempts, time.monotonic() + pause)
        except AirworthyError as error:
            refusal = Refusal(entry, str(error), True, attempts)
        except Exception as error:  # whatever a model file or a user's function does, the old version must go on
            log.exception("%s: version %s", entry.pipeline, entry.version)
            refusal = Refusal(entry, f"{type(error).__name__}: {error}", True, attempts)
        else:
            return
        self._refused[entry.pipeline] = refusal
        log.warning("%s: version %s is not live: %s", entry.pipeline, entry.version, refusal.reason)

    def _go_live(self, entry: Entry) -> None:
        live = self._live.get(entry.pipeline)
        if live and live.entry.digest == entry.digest:
            champion = replace(live, entry=entry)
        else:
            pipeline = load_pipeline(pipelines_dir() / f"{entry.pipeline}.yaml")
            champion = _load(entry, self._fetch(entry, pipeline), pipeline)
            if live:
                self._previous[entry.pipeline] = live.entry.digest
        self._refused.pop(entry.pipeline, None)
        self._live[entry.pipeline] = champion
        log.info("%s: version %s is live", entry.pipeline, entry.version)
        self._remember(entry)
        self._prune(entry)

    def _fetch(self, entry: Entry, pipeline: Pipeline) -> Path:
        """Returns the folder with the entry's files, proven in a fresh process."""
        folder = self._folder / entry.pipeline / entry.digest
        if folder.exists() and digest_of(folder) == entry.digest:
            return folder
        shutil.rmtree(folder, ignore_errors=True)  # damaged since it was proven
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".incoming-", dir=folder.parent) as incoming:
            files = self._registry.download(entry.model_id, Path(incoming) / "model")
            require_same_answers(pipeline, check_in_fresh_process(files, entry.digest, pipeline.name))
            files.rename(folder)
        return folder

    def _withdraw(self, pipeline: str) -> None:
        self._refused.pop(pipeline, None)
        if self._live.pop(pipeline, None):
            self._memory(pipeline).unlink(missing_ok=True)
            log.warning("%s: the ledger has no champion any more; it answers no requests", pipeline)

    def _memory(self, pipeline: str) -> Path:
        return self._folder / pipeline / "champion.json"

    def _remember(self, entry: Entry) -> None:
        remembered = Remembered(champion=entry, previous=self._previous.get(entry.pipeline))
        write_whole(self._memory(entry.pipeline), remembered.model_dump_json(indent=1))

    def _remembered(self) -> Iterator[Remembered]:
        for file in sorted(self._folder.glob("*/champion.json")):
            try:
                yield Remembered.model_validate_json(file.read_text())
            except (OSError, ValidationError) as error:
                log.warning("%s cannot be read and is ignored: %s", file, error)

    def _restore(self) -> None:
        """Leaves the champions of the last run live, so that this one answers without ledger and MLflow."""
        for remembered in self._remembered():
            entry = remembered.champion
            self._previous[entry.pipeline] = remembered.previous
            folder = self._folder / entry.pipeline / entry.digest
            try:
                pipeline = load_pipeline(pipelines_dir() / f"{entry.pipeline}.yaml")
                self._live[entry.pipeline] = _load(entry, folder, pipeline)
            except Exception as error:  # the ledger's champion is fetched anew in the next moment
                log.warning("%s: version %s could not be restored: %s", entry.pipeline, entry.version, error)
            else:
                log.info("%s: version %s is live, restored from its files", entry.pipeline, entry.version)

    def _prune(self, entry: Entry) -> None:
        keep = {entry.digest, self._previous.get(entry.pipeline), "champion.json"}
        for path in (self._folder / entry.pipeline).iterdir():
            if path.name not in keep:
                shutil.rmtree(path, ignore_errors=True)


def _load(entry: Entry, folder: Path, pipeline: Pipeline) -> Champion:
    model = load_model(folder, digest=entry.digest, pipeline=with_own_feature_code(pipeline))
    require_same_answers(pipeline, model.replay())  # also warms what the first request would wait for
    optional = frozenset(column for column in pipeline.key if _is_optional(model, column))
    return Champion(entry, model, Lookups(pipeline, model.contract), optional, datetime.now(UTC))


def _is_optional(model: LoadedModel, column: str) -> bool:
    """Returns whether the recorded requests are answered the same without a value in this column."""
    recorded = json.loads((model.folder / REQUESTS).read_text(encoding="utf-8"))
    requests = pd.DataFrame(recorded["data"], columns=recorded["columns"])
    try:
        return bool((model.predict_raw(requests.assign(**{column: None})) == model.predict_raw(requests)).all())
    except AirworthyError:
        return False
