"""MLflow says what the ledger says: after a crash anywhere, after others moved the alias, and when rows are gone."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import requests
import sqlalchemy as sa
from mlflow import MlflowClient

from airworthy.config import Pipeline
from airworthy.errors import ModelError, Problems
from airworthy.ledger import Entry, Ledger
from airworthy.profile import Profile
from airworthy.registry import Challenger, Registry
from airworthy.stages.deploy import deploy
from airworthy.stages.reconcile import CHAMPION, WITNESS, reconcile, verify
from airworthy.stages.rollback import rollback
from airworthy.targets import Target
from serving_process import DEEPER, promote, trained
from test_deploy import judged, versions
from toy_pipeline import Toy

STEPS = 20  # more than a deployment has


class Answers(Target):
    """A target that answers with whatever it is told."""

    def wait_until_live(self, entry: Entry, profile: Profile) -> str:
        return "here"


@pytest.fixture
def pipeline(toy: Toy) -> Pipeline:
    return prepared(toy)


def prepared(toy: Toy) -> Pipeline:
    Ledger(toy.profile.ledger_url).create()
    pipeline = toy.pipeline()
    toy.fill(pipeline, toy.rows())
    return pipeline.model_copy(update={"target": Answers()})


def alias(toy: Toy) -> str | None:
    return Registry(toy.profile).alias(toy.name, CHAMPION)


def history(toy: Toy) -> list[tuple[str, str]]:
    return [(entry.action, entry.version) for entry in verify(toy.profile, toy.name)[toy.name]]


def problems(toy: Toy) -> list[str]:
    """Returns what is wrong with the toy's ledger, out of all that MLflow and the ledger know."""
    try:
        verify(toy.profile)
    except Problems as found:  # also of other tests, whose ledgers are elsewhere
        return [str(one) for one in found.problems if toy.name in one.where]
    return []


def killed_after(step: int, work: Callable[[], object]) -> bool:
    """Runs `work` in a process that dies, as by `kill -9`, once it changed something outside for the nth time.

    Returns:
        Whether it died; if not, `work` has fewer steps.
    """

    def child() -> None:
        left = iter(range(step - 1, -1, -1))

        def counted(changes: Callable[..., Any]) -> Callable[..., Any]:
            def call(self: Any, *args: Any, **kwargs: Any) -> Any:
                result = changes(self, *args, **kwargs)
                reads = changes.__name__ == "request" and args[0].upper() == "GET"
                if not reads and next(left) == 0:
                    os._exit(9)
                return result

            return call

        for owner, name in (
            (requests.Session, "request"),
            (Ledger, "promote"),
            (Ledger, "rollback"),
            (Answers, "wait_until_live"),
        ):
            setattr(owner, name, counted(getattr(owner, name)))
        work()
        os._exit(0)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(timeout=60)
    assert process.exitcode in (0, 9)
    return process.exitcode == 9


def pair(toy: Toy, pipeline: Pipeline) -> tuple[Challenger, Challenger]:
    """Returns two challengers, the first of which is champion."""
    first = trained(toy, pipeline)
    second = trained(toy, toy.pipeline(model=DEEPER))
    deploy(pipeline, first, *judged(toy, first), toy.profile, "run 1")
    return first, second


def test_a_deployment_killed_after_any_step_is_finished_by_the_next(toy: Toy) -> None:
    for step in range(1, STEPS):
        one = replace(toy, name=f"{toy.name}_{step}")
        pipeline = prepared(one)
        _, second = pair(one, pipeline)
        arguments = (pipeline, second, *judged(one, second, "1", judged_at=1), one.profile, "run 2")
        died = killed_after(step, lambda arguments=arguments: deploy(*arguments))
        release = deploy(*arguments)
        assert (release.action, release.version) == ("promoted", "2")
        assert versions(one) == ["1", "2"]
        assert history(one) == [("promote", "1"), ("promote", "2")]
        assert alias(one) == "2"
        if not died:
            break
    assert 5 < step < STEPS - 1


def test_a_rollback_killed_after_any_step_is_finished_by_the_next(toy: Toy) -> None:
    for step in range(1, STEPS):
        one = replace(toy, name=f"{toy.name}_{step}")
        pipeline = prepared(one)
        _, second = pair(one, pipeline)
        deploy(pipeline, second, *judged(one, second, "1", judged_at=1), one.profile, "run 2")
        work = lambda pipeline=pipeline, one=one: rollback(pipeline, one.profile, "run 3", once=True)  # noqa: E731
        died = killed_after(step, work)
        assert (work().version, work().replaced) == ("1", "2")
        assert history(one) == [("promote", "1"), ("promote", "2"), ("rollback", "1")]
        assert alias(one) == "1"
        if not died:
            break
    assert 3 < step < STEPS - 1


def test_of_two_that_move_the_alias_the_ledgers_last_entry_decides(
    toy: Toy, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = trained(toy, pipeline), trained(toy, toy.pipeline(model=DEEPER))
    entry = promote(toy, first)
    move = Registry.set_alias

    def late(self: Registry, *arguments: Any) -> None:
        monkeypatch.setattr(Registry, "set_alias", move)
        promote(toy, second, entry)  # somebody else promotes and is done, just before the first one moves the alias
        reconcile(toy.name, toy.profile)
        move(self, *arguments)

    monkeypatch.setattr(Registry, "set_alias", late)
    last = reconcile(toy.name, toy.profile)
    assert last is not None and (last.version, alias(toy)) == ("2", "2")
    verify(toy.profile, toy.name)


def test_without_a_champion_there_is_no_alias(toy: Toy, pipeline: Pipeline) -> None:
    assert reconcile(toy.name, toy.profile) is None
    entry = promote(toy, trained(toy, pipeline))
    reconcile(toy.name, toy.profile)
    assert alias(toy) == "1"
    Ledger(toy.profile.ledger_url).rollback(toy.name, entry.version, "test")
    reconcile(toy.name, toy.profile)
    assert alias(toy) is None
    verify(toy.profile, toy.name)


def test_what_mlflow_says_otherwise_is_told_and_mended(toy: Toy, pipeline: Pipeline) -> None:
    first = promote(toy, trained(toy, pipeline))
    reconcile(toy.name, toy.profile)
    promote(toy, trained(toy, toy.pipeline(model=DEEPER)), first)  # and then the process died
    entry, moved = problems(toy)
    assert entry.startswith(f"ledger: {toy.name}[2]: must be the last entry that MLflow remembers, 1")
    assert moved.startswith(f"MLflow alias {toy.name}@champion: must be on 2, as the ledger says. Got '1'")
    assert f"`airworthy ledger reconcile {toy.name}` mends" in entry and "mends" in moved
    reconcile(toy.name, toy.profile)
    assert problems(toy) == []


@pytest.mark.parametrize(
    ("statement", "broken"),
    [
        ("DELETE FROM ledger WHERE sequence = 2", 2),
        ("DELETE FROM ledger", 2),
        ("UPDATE ledger SET version = '1', hash = 'made up' WHERE sequence = 2", 2),
    ],
)
def test_an_end_that_was_cut_off_is_found_and_not_covered_up(
    toy: Toy, pipeline: Pipeline, statement: str, broken: int
) -> None:
    promote(toy, trained(toy, toy.pipeline(model=DEEPER)), promote(toy, trained(toy, pipeline)))
    reconcile(toy.name, toy.profile)
    remembered = MlflowClient(toy.mlflow_uri).get_registered_model(toy.name).tags[WITNESS]
    with sa.create_engine(toy.profile.ledger_url).begin() as connection:
        connection.execute(sa.text(statement))
    for _ in range(2):
        (told,) = problems(toy)
        assert told.startswith(f"ledger: {toy.name}[{broken}]: must")
        with pytest.raises(ModelError, match=rf"{toy.name}\[{broken}\]: must be the entry that MLflow remembers"):
            reconcile(toy.name, toy.profile)
    assert MlflowClient(toy.mlflow_uri).get_registered_model(toy.name).tags[WITNESS] == remembered


def test_a_history_that_was_written_anew_is_found(toy: Toy, pipeline: Pipeline) -> None:
    """Whoever may write to the table can make a chain that is whole."""
    entry = promote(toy, trained(toy, pipeline))
    reconcile(toy.name, toy.profile)
    forged = entry.model_copy(update={"actor": "somebody else"}).sealed()
    with sa.create_engine(toy.profile.ledger_url).begin() as connection:
        values = {"actor": forged.actor, "hash": forged.hash}
        connection.execute(sa.text("UPDATE ledger SET actor = :actor, hash = :hash"), values)
    Ledger(toy.profile.ledger_url).verify(toy.name)
    with pytest.raises(Problems, match=rf"ledger: {toy.name}\[1\]: must be the entry that MLflow remembers"):
        verify(toy.profile, toy.name)
