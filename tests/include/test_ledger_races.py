"""The ledger on PostgreSQL together with MLflow: promotions and rollbacks at once, and rows changed by its owner."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from threading import Barrier
from typing import Any

import pytest
import sqlalchemy as sa

from airworthy.config import Pipeline
from airworthy.errors import ConflictError
from airworthy.ledger import Entry, Ledger
from airworthy.profile import Profile
from airworthy.registry import Challenger, Registry
from airworthy.stages.deploy import deploy
from airworthy.stages.reconcile import reconcile, verify
from airworthy.stages.rollback import rollback
from serving_process import promote, trained
from test_deploy import judged
from test_reconcile import Answers, problems
from toy_pipeline import Toy

ROUNDS = 50
TREES = (5, 6, 7, 8)
ACTOR = "races"  # what somebody else took back would not be promoted again


@dataclass
class OnPostgres(Toy):
    ledger_url: str = ""

    @property
    def profile(self) -> Profile:
        return super().profile.model_copy(update={"ledger_url": self.ledger_url})


@pytest.fixture
def world(toy: Toy, postgres_url: str) -> OnPostgres:
    world = OnPostgres(toy.folder, toy.mlflow_uri, toy.name, postgres_url)
    Ledger(postgres_url).create()
    world.fill(world.pipeline(), world.rows())
    return world


def challengers(world: OnPostgres) -> list[Challenger]:
    models = [{"xgboost": {"params": {"max_depth": 3, "n_estimators": trees}}} for trees in TREES]
    return [trained(world, world.pipeline(model=model)) for model in models]


def meeting(monkeypatch: pytest.MonkeyPatch, start: Barrier, action: str) -> None:
    """Lets whoever appends to the ledger wait for the others right before."""
    append = getattr(Ledger, action)

    def meet(*args: Any, **kwargs: Any) -> Entry:
        start.wait(timeout=60)
        return append(*args, **kwargs)

    monkeypatch.setattr(Ledger, action, meet)


def test_promotions_and_rollbacks_at_once_have_one_order(world: OnPostgres, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = world.pipeline().model_copy(update={"target": Answers()})
    trained_ones, ledger = challengers(world), Ledger(world.ledger_url)
    won: Counter[str] = Counter()
    for _ in range(ROUNDS):
        while len(ledger.standing(world.name)) < 2:
            promoted(world, pipeline, others(world, trained_ones)[0])
        before = ledger.entries(world.name)
        works: list[Callable[[], object]] = [partial(rollback, pipeline, world.profile, ACTOR)]
        works += [
            partial(deploy, pipeline, one, *judgement(world, one), world.profile, ACTOR)
            for one in others(world, trained_ones)[:2]
        ]
        with monkeypatch.context() as patch, ThreadPoolExecutor(len(works)) as pool:
            start = Barrier(len(works))
            for action in ("promote", "rollback"):
                meeting(patch, start, action)
            errors = [done.exception() for done in [pool.submit(work) for work in works]]
        assert all(error is None or isinstance(error, ConflictError) for error in errors), errors
        entries = verify(world.profile, world.name)[world.name]  # the chain is whole, and MLflow agrees
        assert entries[: len(before)] == before
        assert [entry.sequence for entry in entries] == list(range(1, len(entries) + 1))
        assert [entry.expected for entry in entries[1:]] == [entry.version for entry in entries[:-1]]
        assert 1 <= len(entries) - len(before) <= errors.count(None)  # who finds done what they want appends nothing
        assert Registry(world.profile).alias(world.name, "champion") == entries[-1].version
        won.update(entry.action for entry in entries[len(before) :])
    print(dict(won))
    assert won.total() >= ROUNDS


def promoted(world: OnPostgres, pipeline: Pipeline, challenger: Challenger) -> None:
    release = deploy(pipeline, challenger, *judgement(world, challenger), world.profile, ACTOR)
    assert release.action == "promoted"


def judgement(world: OnPostgres, challenger: Challenger) -> tuple:
    entries = Ledger(world.ledger_url).entries(world.name)
    champion = entries[-1].version if entries else None
    return judged(world, challenger, champion, judged_at=len(entries))


def others(world: OnPostgres, trained_ones: list[Challenger]) -> list[Challenger]:
    """Returns all but the champion, each time beginning with another one."""
    champion = Ledger(world.ledger_url).champion(world.name)
    turn = champion.sequence % len(trained_ones) if champion else 0
    turned = trained_ones[turn:] + trained_ones[:turn]
    return [one for one in turned if champion is None or one.model_id != champion.model_id]


@contextmanager
def unguarded(url: str) -> Iterator[sa.Connection]:
    """What the database's owner can do."""
    with sa.create_engine(url).begin() as connection:
        connection.execute(sa.text("ALTER TABLE ledger DISABLE TRIGGER append_only"))
        yield connection
        connection.execute(sa.text("ALTER TABLE ledger ENABLE TRIGGER append_only"))


@pytest.fixture
def three(world: OnPostgres) -> list[Entry]:
    entries: list[Entry] = []
    for challenger in challengers(world)[:3]:
        entries.append(promote(world, challenger, entries[-1] if entries else None))
    reconcile(world.name, world.profile)
    assert len(verify(world.profile, world.name)[world.name]) == 3
    return entries


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("UPDATE ledger SET actor = 'nobody' WHERE pipeline = :name AND sequence = 2", 2),
        ("UPDATE ledger SET approved_by = 'the boss' WHERE pipeline = :name AND sequence = 1", 1),
        ("DELETE FROM ledger WHERE pipeline = :name AND sequence = 1", 1),
        ("DELETE FROM ledger WHERE pipeline = :name AND sequence = 2", 2),
        ("DELETE FROM ledger WHERE pipeline = :name AND sequence = 3", 3),
        ("DELETE FROM ledger WHERE pipeline = :name", 3),
        (
            "INSERT INTO ledger SELECT pipeline, 4, at, action, version, model_id, run_id, digest, as_of, expected, "
            "actor, evidence, previous_hash, hash FROM ledger WHERE pipeline = :name AND sequence = 3",
            4,
        ),
    ],
)
def test_what_the_databases_owner_changes_is_found(
    world: OnPostgres, three: list[Entry], change: str, named: int
) -> None:
    with unguarded(world.ledger_url) as connection:
        connection.execute(sa.text(change), {"name": world.name})
    assert problems(world)[0].startswith(f"ledger: {world.name}[{named}]: must")
    with unguarded(world.ledger_url) as connection:
        connection.execute(sa.text("DELETE FROM ledger WHERE pipeline = :name"), {"name": world.name})
