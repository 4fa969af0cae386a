"""Follows the ledger: fetches each pipeline's champion, proves it, and swaps it in by reference."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np

from airworthy.config import Pipeline, load_pipeline
from airworthy.errors import AirworthyError, ConfigError, Problems, ServiceError
from airworthy.ledger import Entry, Ledger
from airworthy.model_files import LoadedModel, largest_difference, load_model
from airworthy.profile import Profile, pipelines_dir
from airworthy.registry import Registry
from airworthy.serving.agreement import Agreement
from airworthy.serving.check import TooSlow, require_same_answers
from airworthy.serving.feature_code import with_own_feature_code
from airworthy.serving.inputs import typed
from airworthy.serving.kept_files import KeptFiles
from airworthy.serving.lookup import Lookups
from airworthy.serving.rows import by_column
from airworthy.serving.trouble import Watched, keep_asking

_LONGEST_PAUSE = 30.0
_ASK_LESS = 10  # the registry is needed for a new champion only
_AT_ONCE = 4  # models that are fetched and proven, each in a process of its own

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Champion:
    """A loaded model and the ledger entry that made it champion, or a canary; never changed, only replaced.

    Attributes:
        pipeline: As its file was when the model was loaded.
        lookups: What fills in the columns of views.
        optional: The key columns a request may leave out, because no prediction depends on them.
    """

    entry: Entry
    pipeline: Pipeline
    model: LoadedModel
    lookups: Lookups
    optional: frozenset[str]
    since: datetime

    @property
    def may_lack(self) -> frozenset[str]:
        """The columns that a request may leave out, because nothing depends on them or they are looked up."""
        return self.optional.union(*(lookup.columns for lookup in self.model.contract.lookups))


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

    @classmethod
    def after(cls, error: Exception, entry: Entry, before: Refusal | None) -> Self:
        """Returns why an entry's model does not answer: services, disks and files may be mended, all else is final.

        Args:
            error: What was raised when it was to be loaded.
            entry: The entry.
            before: What the last attempt at one of the pipeline came to; None if it went well.
        """
        attempts = before.attempts + 1 if before and before.entry.sequence == entry.sequence else 1
        if isinstance(error, ServiceError | OSError | ConfigError | Problems | TooSlow):
            pause = min(_LONGEST_PAUSE, 2.0 ** (attempts - 1))
            return cls(entry, str(error), False, attempts, time.monotonic() + pause)
        if isinstance(error, AirworthyError):
            return cls(entry, str(error), True, attempts)
        log.error("%s: version %s", entry.pipeline, entry.version, exc_info=error)
        return cls(entry, f"{type(error).__name__}: {error}", True, attempts)

    def is_due(self, entry: Entry) -> bool:
        """Whether an entry of the pipeline is to be tried now: another one than this, or this one again."""
        return self.entry.sequence != entry.sequence or (not self.final and time.monotonic() >= self.retry_at)


class Champions:
    """The champion of every pipeline, kept up to date by one thread, which has each new one made by another.

    Readers take a `Champion` once per request; replacing it is one assignment, so a request is answered by one
    version from start to end and none is lost. A new champion is announced, by this worker and all others, before
    any of them answers by it.

    Args:
        folder: Holds `<pipeline>/<digest>/` with model files, and what is remembered of the last run.
        agreement: What the workers of this service decide together.
        poll: Seconds between two looks at the ledger.

    Attributes:
        files: Of all models that this machine answers by.
    """

    def __init__(self, profile: Profile, folder: Path, agreement: Agreement, poll: float) -> None:
        self._ledger = Ledger(profile.ledger_url)
        self._registry = Registry(profile)
        self.files = KeptFiles(folder, self._registry)
        self.agreement = agreement
        self._poll = poll
        self._held: dict[str, dict[int, Champion]] = {}  # by sequence: what answers, or may come to
        self._newest: dict[str, int] = {}
        self._refused: dict[str, Refusal] = {}
        self._previous: dict[str, str | None] = {}
        self._pruned: dict[str, int] = {}
        self._names = _declared()
        self._making: dict[str, threading.Thread] = {}  # what is theirs nobody else changes meanwhile
        self._slots = threading.Semaphore(_AT_ONCE)
        self._stop, self._made_one = threading.Event(), threading.Event()
        self._threads: list[threading.Thread] = []
        self.ready = False
        self.ledger, self.registry = Watched("ledger"), Watched("registry")

    def start(self) -> None:
        """Returns once the champions of the last run answer; the ledger is followed from here on."""
        self.agreement.join()
        self._restore()
        follow = threading.Thread(target=self._follow, name="follow-ledger", daemon=True)
        follow.start()
        ask = partial(self._registry.require_answer, timeout=3)
        self._threads = [follow, keep_asking(self.registry, ask, _ASK_LESS * self._poll, self._stop)]

    def stop(self) -> None:
        self._stop.set()
        self._made_one.set()
        deadline = time.monotonic() + 5
        for thread in [*self._threads, *self._making.values()]:
            thread.join(timeout=max(0.0, deadline - time.monotonic()))

    def champion(self, pipeline: str) -> Champion | None:
        """Returns the champion that all workers agreed to answer by; None if there is none."""
        while sequence := self.agreement.agreed(pipeline):
            if found := self._held.get(pipeline, {}).get(sequence):
                return found
            if self.agreement.agreed(pipeline) == sequence:
                break
        return None

    def announced(self, pipeline: str) -> Champion | None:
        """Returns the champion that is to answer next, as soon as every worker can answer by it."""
        newest = self._newest.get(pipeline, 0)
        if newest == self.agreement.agreed(pipeline):
            return None
        return self._held.get(pipeline, {}).get(newest)

    def refusal(self, pipeline: str) -> Refusal | None:
        return self._refused.get(pipeline)

    def pipelines(self) -> list[str]:
        """Returns the declared pipelines and those that still answer, sorted, as of the last look."""
        return self._names

    def _follow(self) -> None:
        first: set[str] | None = None  # what the first look has to wait for
        while not self._stop.is_set():
            trouble, waiting = "", {*self._making}
            try:
                self._look()
                if first is None:
                    first = waiting = {*self._making}
            except ServiceError as error:
                trouble = str(error)
            except Exception as error:  # whatever happened, the champions go on answering and the ledger is read again
                trouble = f"{type(error).__name__}: {error}"
                if trouble != self.ledger.trouble:
                    log.exception("Could not follow the ledger")
            self.ledger.saw(trouble)
            self.ready = self.ready or not waiting & (first or set())
            self._made_one.wait(self._poll)
            self._made_one.clear()

    def _look(self) -> None:
        self._names = sorted({*_declared(), *self._held})
        for pipeline in self._names:
            if pipeline in self._making:
                continue
            entry = self._ledger.champion(pipeline)
            if entry is None:
                self._withdraw(pipeline)
            elif self._is_due(entry):
                self._begin(entry)
                continue
            self._settle(pipeline)

    def _begin(self, entry: Entry) -> None:
        thread = threading.Thread(target=self._make, args=[entry], daemon=True)
        self._making[entry.pipeline] = thread
        try:
            thread.start()
        except RuntimeError:  # this machine has no room for another one now
            del self._making[entry.pipeline]
            raise

    def _make(self, entry: Entry) -> None:
        with self._slots:  # one that is slow to load must not hold up the others
            try:
                self._attempt(entry)
            finally:
                del self._making[entry.pipeline]
        self._made_one.set()

    def _is_due(self, entry: Entry) -> bool:
        refused = self._refused.get(entry.pipeline)
        if self._newest.get(entry.pipeline) == entry.sequence and refused is None:
            return False
        return refused is None or refused.is_due(entry)

    def _attempt(self, entry: Entry) -> None:
        """Leaves the entry's model ready to answer; on any failure the one that answers keeps answering."""
        try:
            self._hold(self._made(entry))
        except Exception as error:  # whatever a model file or a user's function does, the old version must go on
            refusal = Refusal.after(error, entry, self._refused.get(entry.pipeline))
            self._refused[entry.pipeline] = refusal
            log.warning("%s: version %s is not live: %s", entry.pipeline, entry.version, refusal.reason)
        else:
            self._refused.pop(entry.pipeline, None)

    def _made(self, entry: Entry) -> Champion:
        live = self.champion(entry.pipeline)
        if live and live.entry.digest == entry.digest:
            return replace(live, entry=entry)
        pipeline = load_pipeline(pipelines_dir() / f"{entry.pipeline}.yaml")
        with self.files.changing(entry.pipeline):
            champion = load(entry, self.files.fetch(entry, pipeline), pipeline)
        if live:
            self._previous[entry.pipeline] = live.entry.digest
        return champion

    def _hold(self, champion: Champion) -> None:
        """Announces a champion; from here on the other workers may count on its being answered by."""
        entry = champion.entry
        self._held[entry.pipeline] = {**self._held.get(entry.pipeline, {}), entry.sequence: champion}
        self._newest[entry.pipeline] = entry.sequence
        self.agreement.offer(entry.pipeline, entry.sequence)

    def _settle(self, pipeline: str) -> None:
        """Leaves the newest champion answering once every worker can; those before it are forgotten then."""
        newest, held = self._newest.get(pipeline, 0), self._held.get(pipeline, {})
        if not self.agreement.settle(pipeline, partial(self._record, pipeline, newest)):
            return
        if held and [*held] != [newest]:
            self._held[pipeline] = {newest: held[newest]} if newest else {}
        if newest and self._pruned.get(pipeline) != newest:
            with suppress(BlockingIOError), self.files.changing(pipeline, wait=False):  # later, if others work there
                self.files.prune(pipeline, {held[newest].entry.digest, self._previous.get(pipeline)})
                self._pruned[pipeline] = newest
                log.info("%s: version %s is live", pipeline, held[newest].entry.version)

    def _record(self, pipeline: str, newest: int) -> None:
        if newest:
            self.files.remember(self._held[pipeline][newest].entry, self._previous.get(pipeline))
        else:
            self.files.forget(pipeline)

    def _withdraw(self, pipeline: str) -> None:
        self._refused.pop(pipeline, None)
        if self._newest.get(pipeline):
            log.warning("%s: the ledger has no champion any more; it answers no requests", pipeline)
        self._newest[pipeline] = 0
        self.agreement.offer(pipeline, 0)

    def _restore(self) -> None:
        """Leaves the champions of the last run live, so that this one answers without ledger and MLflow."""
        for remembered in self.files.remembered():
            entry = remembered.champion
            self._previous[entry.pipeline] = remembered.previous
            try:
                pipeline = load_pipeline(pipelines_dir() / f"{entry.pipeline}.yaml")
                self._hold(load(entry, self.files.folder(entry), pipeline))
                self._settle(entry.pipeline)
            except Exception as error:  # the ledger's champion is fetched anew in the next moment
                log.warning("%s: version %s could not be restored: %s", entry.pipeline, entry.version, error)
            else:
                log.info("%s: version %s is live, restored from its files", entry.pipeline, entry.version)


def _declared() -> list[str]:
    return sorted(file.stem for file in pipelines_dir().glob("*.yaml"))


def load(entry: Entry, folder: Path, pipeline: Pipeline) -> Champion:
    """Returns the model of proven files, loaded, asked its recorded requests and so warmed.

    They are answered as any request is: without a frame where the model allows it, so that those that come meanwhile
    have to wait for little.

    Raises:
        ModelError: The files are not the ones of the entry, or do not answer as recorded.
        Problems: The recorded requests do not fit the model's contract.
    """
    model = load_model(folder, digest=entry.digest, pipeline=with_own_feature_code(pipeline))
    recorded = model.recorded()
    rows = by_column(recorded["columns"], recorded["data"])
    columns = typed(model.contract.inputs, rows)
    answers = model.predict_columns(columns, rows.count)
    require_same_answers(pipeline, largest_difference(answers, np.asarray(recorded["expected"], dtype="float64")))
    optional = frozenset(name for name in pipeline.key if _is_optional(model, columns, name, answers))
    return Champion(entry, pipeline, model, Lookups(pipeline, model.contract), optional, datetime.now(UTC))


def _is_optional(model: LoadedModel, columns: dict[str, list[Any]], name: str, answers: np.ndarray) -> bool:
    """Returns whether the recorded requests are answered the same without a value in this column."""
    without = columns | {name: [None] * len(answers)}
    try:
        return bool((model.predict_columns(without, len(answers)) == answers).all())
    except AirworthyError:
        return False
