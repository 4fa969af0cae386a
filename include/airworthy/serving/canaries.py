"""Follows the ledger's canaries: loads each challenger beside its champion, and says which rows are whose."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from airworthy.canary import Canary, part_of
from airworthy.config import load_pipeline
from airworthy.errors import ModelError, ServiceError
from airworthy.ledger import Entry, Ledger
from airworthy.profile import Profile, pipelines_dir
from airworthy.serving.champion import Champion, Champions, Refusal, load
from airworthy.serving.counters import Counters
from airworthy.serving.lane import Lane

_TOGETHER = 10.0  # seconds that a start waits at most until all workers can follow the canaries of the last run

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Split:
    """A challenger beside a champion, as one step of its canary has it; never changed, only replaced.

    Attributes:
        entry: The ledger entry with the step.
        challenger: Loaded and proven as a champion is.
        lane: Where it scores.
    """

    entry: Entry
    challenger: Champion
    policy: Canary
    lane: Lane

    def chosen(self, columns: Mapping[str, Sequence[Any]], count: int) -> Sequence[int]:
        """Returns the rows that the challenger scores: in the shadow all, else those whose key is in its share.

        Whose a row is depends on its key alone, and not on the request it is in: else the same key would be answered
        by one version here and by the other there.

        Args:
            columns: As the champion is given them.
            count: How many rows they have.
        """
        step, key = self.entry.step, self.key
        if step.shadow:
            return range(count)
        if any(name not in columns for name in key):
            return ()
        salt = self.entry.salt
        keys = zip(*(columns[name] for name in key), strict=True)
        parts = (part_of(salt, values) for values in keys)
        return [number for number, part in enumerate(parts) if part is not None and part < step.share]

    @property
    def key(self) -> tuple[str, ...]:
        """The columns whose values say whose a row is."""
        return (self.policy.key,) if self.policy.key else self.challenger.pipeline.key


class Canaries:
    """The running canary of every pipeline, kept up to date by a thread of its own, which no champion waits for.

    Workers agree on a canary's step as they do on a champion, so the same key gets the same version from all.
    """

    def __init__(self, champions: Champions, profile: Profile, counters: Counters, poll: float) -> None:
        self._champions, self._counters, self._poll = champions, counters, poll
        self._files, self._agreement = champions.files, champions.agreement
        self._ledger = Ledger(profile.ledger_url)
        self._held: dict[str, dict[int, Split]] = {}  # by sequence: the step that holds, and the one to come
        self._refused: dict[str, Refusal] = {}
        self._trouble: dict[str, str] = {}  # told once
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="follow-canaries", daemon=True)

    def start(self) -> None:
        """Returns once the canaries of the last run are back; the champions must have started."""
        for entry in self._files.remembered_canaries():
            if self._files.folder(entry).exists():
                self._attempt(entry)
        deadline = time.monotonic() + _TOGETHER  # before that, a key might get the champion where it had the challenger
        while [name for name in self._held if not self._settle(name)] and time.monotonic() < deadline:
            time.sleep(0.05)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(timeout=5)

    def split(self, champion: Champion) -> Split | None:
        """Returns what of a champion's requests is a challenger's; None if no canary runs, or not beside this one."""
        found = self.running(champion.entry.pipeline)
        return found if found and found.entry.expected == champion.entry.version and not found.lane.alarm else None

    def running(self, pipeline: str) -> Split | None:
        """Returns the step that all workers agreed on; None if no canary runs."""
        held = self._held.get(pipeline)
        return held.get(self._agreement.agreed(_name(pipeline))) if held else None

    def refusal(self, pipeline: str) -> Refusal | None:
        return self._refused.get(pipeline)

    def _follow(self) -> None:
        while not self._stop.is_set():
            for pipeline in self._champions.pipelines():
                try:
                    self._look(pipeline)
                except ServiceError:  # who watches the ledger tells; the canary goes on as it is
                    break
                except Exception as error:  # whatever it is, the champions answer
                    if (told := f"{type(error).__name__}: {error}") != self._trouble.get(pipeline):
                        log.exception("%s: could not follow the canary", pipeline)
                    self._trouble[pipeline] = told
            self._stop.wait(self._poll)

    def _look(self, pipeline: str) -> None:
        entry = self._ledger.canary(pipeline)
        if entry is None:
            if not self._is_to_be_champion(pipeline):
                self._end(pipeline)
        elif (running := self.running(pipeline)) and running.entry.began != entry.began:
            self._end(pipeline)
        elif self._is_due(entry):
            self._attempt(entry)
        self._settle(pipeline)

    def _is_to_be_champion(self, pipeline: str) -> bool:
        """Whether the challenger was promoted and does not answer as champion yet; until then its keys stay its own."""
        running, live = self.running(pipeline), self._champions.champion(pipeline)
        if running is None or live is None or live.entry.version != running.entry.expected:
            return False
        crowned = self._ledger.champion(pipeline)
        return crowned is not None and crowned.version == running.entry.version

    def _is_due(self, entry: Entry) -> bool:
        refused = self._refused.get(entry.pipeline)
        if refused and refused.entry.sequence == entry.sequence:
            return refused.is_due(entry)
        live = self._champions.champion(entry.pipeline)
        return live is not None and entry.sequence not in self._held.get(entry.pipeline, {})

    def _attempt(self, entry: Entry) -> None:
        """Leaves the challenger ready to answer what the step says; on any failure the champion answers all."""
        before = self._refused.pop(entry.pipeline, None)
        try:
            split = self._made(entry)
        except Exception as error:  # whatever a model file or a user's function does
            refusal = Refusal.after(error, entry, before)
            self._refused[entry.pipeline] = refusal
            log.warning("%s: version %s is no challenger: %s", entry.pipeline, entry.version, refusal.reason)
            return
        running = self.running(entry.pipeline)
        held = {running.entry.sequence: running} if running else {}
        self._held[entry.pipeline] = {**held, entry.sequence: split}
        self._agreement.offer(_name(entry.pipeline), entry.sequence)

    def _made(self, entry: Entry) -> Split:
        running = self.running(entry.pipeline)
        if running and running.entry.model_id == entry.model_id and running.entry.began == entry.began:
            self._files.remember_canary(entry)
            return replace(running, entry=entry)
        pipeline = load_pipeline(pipelines_dir() / f"{entry.pipeline}.yaml")
        where = f"{entry.pipeline}: canary"
        if (policy := pipeline.canary) is None:
            raise ModelError(where, "must be declared in the pipeline's file while one runs")
        with self._files.changing(entry.pipeline):
            self._files.remember_canary(entry)
            challenger = load(entry, self._files.fetch(entry, pipeline), pipeline)
        lane = Lane(challenger, entry.expected or "", policy, entry.began, self._counters)
        split = Split(entry, challenger, policy, lane)
        try:
            self._require_comparable(split, where)
        except ModelError:
            lane.close()
            raise
        return split

    def _require_comparable(self, split: Split, where: str) -> None:
        live = self._champions.champion(split.entry.pipeline)
        inputs = [column.name for column in split.challenger.model.contract.inputs]
        if not split.entry.step.shadow and (missing := [name for name in split.key if name not in inputs]):
            raise ModelError(f"{where}: key", "must be among the columns that requests have", ", ".join(missing))
        if live and live.model.contract.classes != split.challenger.model.contract.classes:
            got = ", ".join(split.challenger.model.contract.classes)
            raise ModelError(where, f"must answer with the classes of version {live.entry.version}", got)

    def _settle(self, pipeline: str) -> bool:
        """Leaves the newest step in force once every worker can follow it, and lets go of the one before.

        Returns:
            Whether it is in force.
        """
        held = self._held.get(pipeline)
        if not held:
            return True
        newest = max(held)
        if not self._agreement.settle(_name(pipeline), lambda: None):
            return False
        if [*held] != [newest]:
            self._held[pipeline] = {newest: held[newest]}
            for split in held.values():
                if split.lane is not held[newest].lane:
                    split.lane.close()
        return True

    def _end(self, pipeline: str) -> None:
        self._refused.pop(pipeline, None)
        if not (held := self._held.get(pipeline)):
            return
        self._agreement.offer(_name(pipeline), 0)
        if self._agreement.settle(_name(pipeline), lambda: None):
            del self._held[pipeline]
            self._files.forget_canary(pipeline)
            for split in held.values():
                split.lane.close()
            log.info("%s: the canary is over", pipeline)


def _name(pipeline: str) -> str:
    return f"{pipeline}.canary"
