"""The copy of a pipeline: what faults are put into, and what becomes of it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import sqlalchemy as sa

from airworthy.alerts import Alert
from airworthy.alerts.incidents import Incidents
from airworthy.config import Pipeline, load_pipeline
from airworthy.database import Database
from airworthy.errors import ConfigError
from airworthy.gameday import Signal
from airworthy.gameday.declaration import folder_of, name_of, places, read, write
from airworthy.ledger import Entry, Ledger
from airworthy.partitions import Partition, parse_key
from airworthy.profile import Profile
from airworthy.registry import Challenger, Registry
from airworthy.stages.alarms import tell
from airworthy.stages.evaluate import Evaluation, evaluate, judge
from airworthy.stages.ingest import ingest
from airworthy.stages.process import FEATURES, process
from airworthy.stages.reconcile import reconcile
from airworthy.stages.train import train
from airworthy.stages.validate import validate
from airworthy.store import Store, TableRef
from airworthy.verdict import Verdict

STATE = "copy.json"
ACTOR = "game day"


@dataclass(frozen=True)
class Copy:
    """A pipeline's copy, with a champion and partitions that came after its training.

    Attributes:
        pipeline: As the copy's own file declares it.
        profile: Where the copy's tables, pages and ledger are.
        folder: Holds all its files.
        as_of: What its champion knows.
        coming: The keys of the partitions after that, which faults are put into.
        lent: What it has that the pipeline does not declare, and what was left out.
    """

    pipeline: Pipeline
    profile: Profile
    folder: Path
    as_of: pd.Timestamp
    coming: tuple[str, ...]
    lent: tuple[str, ...]

    @classmethod
    def of(cls, pipeline: str, profile: Profile) -> Copy:
        """Returns the copy that was made of a pipeline.

        Raises:
            ConfigError: There is none.
        """
        name, folder = name_of(pipeline), folder_of(pipeline)
        if not (folder / STATE).exists():
            raise ConfigError(f"copy {name}", "must be there", hint="It was removed; begin the game day anew")
        state = json.loads((folder / STATE).read_text())
        return cls(
            load_pipeline(folder / "config" / "pipelines" / f"{name}.yaml"),
            places(name, folder, profile),
            folder,
            pd.Timestamp(state["as_of"]),
            tuple(state["coming"]),
            tuple(state["lent"]),
        )

    @property
    def name(self) -> str:
        return self.pipeline.name

    @property
    def store(self) -> Store:
        return Store(self.profile.store_uri, self.name)

    @property
    def partition(self) -> Partition:
        """The first of the coming partitions."""
        return self.partitions[0]

    @property
    def partitions(self) -> list[Partition]:
        return [parse_key(self.pipeline.partition, key) for key in self.coming]

    @property
    def champion(self) -> Entry | None:
        return Ledger(self.profile.ledger_url).champion(self.name)

    @contextmanager
    def here(self) -> Iterator[None]:
        """Lets this process, and those that it starts meanwhile, find the copy's files in place of the real ones."""
        code = str(self.folder / "code")
        changed = {
            "AIRWORTHY_CONFIG": str(self.folder / "config"),
            "AIRWORTHY_HOME": str(self.folder),
            "PYTHONPATH": os.pathsep.join(filter(None, [code, os.environ.get("PYTHONPATH")])),
        }
        before = {name: os.environ.get(name) for name in changed}
        os.environ |= changed
        sys.path.insert(0, code)
        try:
            yield
        finally:
            sys.path.remove(code)
            for name, value in before.items():
                os.environ.pop(name)
                os.environ |= {} if value is None else {name: value}

    @contextmanager
    def declared(self, **changes: Any) -> Iterator[Pipeline]:
        """Yields the copy's pipeline with some keys declared otherwise, which its file says as long."""
        before = read(self.folder, self.name)
        try:
            yield write(self.folder, self.name, {**before, **changes})
        finally:
            write(self.folder, self.name, before)

    def rows(self, partition: Partition) -> pd.DataFrame:
        """Returns the raw rows of a coming partition, as they really came."""
        return pd.read_parquet(self.folder / "kept" / f"{partition.key}.parquet")

    def publish(self, partition: Partition, rows: pd.DataFrame) -> TableRef:
        """Returns the partition of features, once its source gives these rows and they went through every stage.

        Raises:
            AirworthyError: A stage blocks them.
        """
        file = self.folder / "source" / f"{partition.key}.parquet"
        file.parent.mkdir(exist_ok=True)
        rows.to_parquet(file, index=False)
        raw = ingest(self.pipeline, partition, self.store, reports_dir=self.profile.reports_dir)
        found = validate(self.pipeline, partition, raw, self.store, self.profile.reports_dir)
        return process(self.pipeline, partition, found, self.store, run=ACTOR)

    def inputs(self, rows: pd.DataFrame) -> list[str]:
        """Returns the raw columns that a model may learn from, those first that are features as they are."""
        pipeline = self.pipeline
        withheld = {*pipeline.identity, *pipeline.pii, pipeline.label.column}
        features = self.store.scan(FEATURES).schema.names
        return sorted((str(name) for name in rows if name not in withheld), key=lambda name: name not in features)

    def challenger(self, pipeline: Pipeline, seed: int) -> tuple[Challenger, Evaluation, list[Verdict]]:
        """Returns a challenger that is not the champion, with what its gates say."""
        pipeline = _sown(pipeline, seed)
        challenger = train(pipeline, self.as_of.to_pydatetime(), self.profile)
        evaluation = evaluate(pipeline, challenger, self.champion, self.profile)
        judged_at = len(Ledger(self.profile.ledger_url).entries(self.name))
        evaluation = evaluation.model_copy(update={"judged_at": judged_at})
        return challenger, evaluation, judge(pipeline, challenger, evaluation, self.profile)

    def tell(self, *alerts: Alert) -> None:
        """Leaves alerts on the copy's record as a task would, but for telling people."""
        for alert in alerts:
            tell(self.pipeline, alert, self.profile, {"log": lambda _: "on record only: it is a game day"})

    def alert(self, kind: str, about: str = "") -> Signal:
        """Returns whether an alert of a kind, about something, is on record, and its response was carried out.

        Args:
            kind: Of the alert.
            about: What its incident has to name.
        """
        rows = Incidents(self.profile.ledger_url).told(self.name)
        found = [row for row in rows if row.kind == kind and about in row.incident]
        told = "; ".join(dict.fromkeys(row.subject for row in found)) or f"no alert of kind `{kind}` is on record"
        alerts = self.pipeline.alerts
        if alerts and kind not in alerts.on:
            told += f", because `alerts.on` does not name {kind}"
        told += "".join(f"; response: {row.told}" for row in found if row.channel == "response")
        return Signal(
            alarm=f"alert {kind}", fired=bool(found) and all(row.status == "done" for row in found), told=told
        )

    def forget_alerts(self) -> None:
        """Leaves no alert on the copy's record, so that one of an earlier fault is not taken for one of the next."""
        with Database("copy's record of alerts", self.profile.ledger_url).transaction() as connection:
            if sa.inspect(connection).has_table("alerts"):
                connection.execute(sa.text("DELETE FROM alerts"))

    def restore(self, champion: Entry) -> None:
        """Leaves a version champion, as it was before a fault."""
        ledger = Ledger(self.profile.ledger_url)
        now = ledger.champion(self.name)
        if now is None or now.version != champion.version:
            ledger.rollback(self.name, now.version if now else None, ACTOR, to=champion.version)
            reconcile(self.name, self.profile)


def promote(copy: Copy, seed: int = 0) -> Entry:
    """Returns the entry that makes a model of the copy's own rows its champion, which no gate judges."""
    challenger = train(_sown(copy.pipeline, seed), copy.as_of.to_pydatetime(), copy.profile)
    ledger, before = Ledger(copy.profile.ledger_url), copy.champion
    expected = before.version if before else None
    made = partial(ledger.promote, pipeline=copy.name, expected=expected, actor=ACTOR, evidence="")
    entry = made(
        version=Registry(copy.profile).register(challenger),
        model_id=challenger.model_id,
        run_id=challenger.run_id,
        digest=challenger.digest,
        as_of=challenger.as_of,
    )
    reconcile(copy.name, copy.profile)
    return entry


def _sown(pipeline: Pipeline, seed: int) -> Pipeline:
    """Returns the pipeline with another seed, so that another model is trained."""
    sown = pipeline.train.model_copy(update={"seed": pipeline.train.seed + seed})
    return pipeline.model_copy(update={"train": sown})
