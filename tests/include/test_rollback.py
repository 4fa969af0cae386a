"""An earlier champion answers again: through the real serving process, and by the command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from airworthy.config import Pipeline
from airworthy.errors import ConflictError, ModelError, Problems, ServiceError
from airworthy.ledger import Entry, Ledger
from airworthy.registry import Challenger, Registry
from airworthy.stages.deploy import deploy
from airworthy.stages.evaluate import evidence_folder
from airworthy.stages.evidence_files import digest
from airworthy.stages.reconcile import CHAMPION, reconcile, verify
from airworthy.stages.rollback import rollback
from serving_process import DEEPER, NOWHERE, Server, promote, recorded, serving, trained
from test_deploy import EVIDENCE, judged, profile_of
from test_reconcile import Answers
from toy_pipeline import Toy

WIDER = {"xgboost": {"params": {"max_depth": 2, "n_estimators": 30}}}


@pytest.fixture
def pipeline(toy: Toy) -> Pipeline:
    Ledger(toy.profile.ledger_url).create()
    pipeline = toy.pipeline()
    toy.fill(pipeline, toy.rows())
    return pipeline


@pytest.fixture
def three(toy: Toy, pipeline: Pipeline) -> list[Challenger]:
    """Three challengers that became champion one after the other."""
    made = [trained(toy, pipeline), trained(toy, toy.pipeline(model=DEEPER)), trained(toy, toy.pipeline(model=WIDER))]
    entry: Entry | None = None
    for challenger in made:
        entry = promote(toy, challenger, entry)
    reconcile(toy.name, toy.profile)
    toy.pipeline()
    return made


@pytest.fixture
def server(toy: Toy, three: list[Challenger]) -> Iterator[Server]:
    with serving(toy) as running:
        running.wait(lambda: running.model(toy.name).get("version") == "3")
        yield running


def answering(toy: Toy, server: Server, challenger: Challenger) -> str:
    answer = server.post({"instances": [dict.fromkeys(recorded(toy, challenger)["columns"])]})
    return str(answer.body["model_version"])


def airworthy(toy: Toy, *arguments: str, serving_url: str = NOWHERE) -> subprocess.CompletedProcess[str]:
    profile = toy.profile
    settings = {
        "AIRWORTHY_HOME": str(toy.folder / "home"),
        "AIRWORTHY_LEDGER_URL": profile.ledger_url,
        "AIRWORTHY_SERVING_URL": serving_url,
        "AIRWORTHY_AIRFLOW_URL": profile.airflow_url,
        "MLFLOW_TRACKING_URI": profile.mlflow_uri,
    }
    command = [sys.executable, "-m", "airworthy.cli", *arguments]
    return subprocess.run(command, env={**os.environ, **settings}, capture_output=True, text=True, check=False)


def test_the_champion_before_answers_again(
    toy: Toy, pipeline: Pipeline, three: list[Challenger], server: Server
) -> None:
    profile = profile_of(toy, server)
    done = rollback(pipeline, profile, "ann", reason="complaints")
    assert (done.version, done.replaced, done.run_id, done.sequence) == ("2", "3", three[1].run_id, 4)
    assert done.endpoint == f"{server.url}/invocations?pipeline={toy.name}"
    assert answering(toy, server, three[1]) == "2"
    last = verify(profile, toy.name)[toy.name][-1]
    assert (last.action, last.version, last.actor, last.reason) == ("rollback", "2", "ann", "complaints")
    again = rollback(pipeline, profile, "bob", to="2")
    assert (again.version, again.replaced, again.sequence) == ("2", None, 4)
    assert rollback(pipeline, profile, "ann", to="3").version == answering(toy, server, three[2]) == "3"
    assert rollback(pipeline, profile, "ann", to="1").version == answering(toy, server, three[0]) == "1"
    assert Registry(profile).alias(toy.name, CHAMPION) == "1"


def test_it_needs_no_mlflow_to_answer_again(
    toy: Toy, pipeline: Pipeline, three: list[Challenger], server: Server
) -> None:
    profile = profile_of(toy, server)
    rollback(pipeline, profile, "ann")
    lost = profile.model_copy(update={"mlflow_uri": NOWHERE})
    with pytest.raises(ServiceError, match=f"MLflow at {NOWHERE}"):
        rollback(pipeline, lost, "ann", to="3")
    assert answering(toy, server, three[2]) == "3"
    assert Registry(profile).alias(toy.name, CHAMPION) == "2"
    assert rollback(pipeline, profile, "ann", to="3").replaced is None
    verify(profile, toy.name)


def test_a_target_that_stays_silent_is_told_and_nothing_flaps(toy: Toy, three: list[Challenger]) -> None:
    pipeline = toy.pipeline(target={"serving": {"timeout": 0.1}})
    with pytest.raises(ServiceError) as silent:
        rollback(pipeline, toy.profile, "ann")
    told = str(silent.value)
    assert told.startswith(f"rollback {toy.name}: version 2 is champion on the ledger, but must also answer.")
    assert f"serving at {NOWHERE}" in told and "It stays champion" in told
    assert [entry.version for entry in verify(toy.profile, toy.name)[toy.name]] == ["1", "2", "3", "2"]
    lost = toy.profile.model_copy(update={"mlflow_uri": NOWHERE})
    with pytest.raises(Problems, match=f"version 1 is champion on the ledger(.|\n)*MLflow at {NOWHERE}"):
        rollback(pipeline, lost, "ann")


def test_a_run_rolls_back_once_however_often_it_runs(toy: Toy, pipeline: Pipeline, three: list[Challenger]) -> None:
    here = pipeline.model_copy(update={"target": Answers()})
    first = rollback(here, toy.profile, "run 1", once=True)
    assert rollback(here, toy.profile, "run 1", once=True) == first
    assert first.replaced == "3"
    assert rollback(here, toy.profile, "run 2", once=True).version == "1"
    with pytest.raises(ConflictError, match=r"run 1 has rolled back to version 2; entry 5 came after it"):
        rollback(here, toy.profile, "run 1", once=True)


def test_what_cannot_be_gone_back_to_is_refused(toy: Toy, pipeline: Pipeline) -> None:
    here = pipeline.model_copy(update={"target": Answers()})
    with pytest.raises(ModelError, match=r"rollback: needs a champion to roll back from"):
        rollback(here, toy.profile, "ann")
    promote(toy, trained(toy, pipeline))
    with pytest.raises(ModelError, match=r"needs a champion before version 1; it is the first"):
        rollback(here, toy.profile, "ann")
    with pytest.raises(ModelError, match=r"must go to a version that was champion \(1\)\. Got '9'"):
        rollback(here, toy.profile, "ann", to="9")
    assert len(Ledger(toy.profile.ledger_url).entries(toy.name)) == 1


def test_a_champion_that_never_answered_leaves_none_which_can_be_brought_back(toy: Toy, pipeline: Pipeline) -> None:
    challenger = trained(toy, pipeline)
    with pytest.raises(ModelError):
        deploy(
            toy.pipeline(target={"serving": {"timeout": 0.1}}), challenger, *judged(toy, challenger), toy.profile, "x"
        )
    last = verify(toy.profile, toy.name)[toy.name][-1]
    assert last.reason is not None and last.reason.startswith("It did not go live. serving at")
    with pytest.raises(ModelError, match="needs a champion to roll back from"):
        rollback(pipeline, toy.profile, "ann")
    here = pipeline.model_copy(update={"target": Answers()})
    done = rollback(here, toy.profile, "ann", to="1")
    assert (done.version, done.replaced, done.changed) == ("1", None, True)
    assert Registry(toy.profile).alias(toy.name, CHAMPION) == "1"


def test_the_commands(toy: Toy, three: list[Challenger], server: Server) -> None:
    done = airworthy(toy, "rollback", toy.name, "--to", "1", "--reason", "complaints", serving_url=server.url)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{toy.name}: version 1 is champion again instead of version 3, and answers at")
    assert answering(toy, server, three[0]) == "1"
    shown = airworthy(toy, "ledger", "show", toy.name).stdout.splitlines()
    assert [line.split()[3:5] for line in shown[1:]] == [
        ["promote", "1"],
        ["promote", "2"],
        ["promote", "3"],
        ["rollback", "1"],
    ]
    assert shown[-1].endswith("complaints")
    assert airworthy(toy, "ledger", "verify", toy.name).stdout == (
        f"{toy.name}: 4 entries, unchanged; version 1 is champion, in MLflow too\n"
    )
    Registry(toy.profile).set_alias(toy.name, CHAMPION, "2")
    broken = airworthy(toy, "ledger", "verify", toy.name)
    assert broken.returncode == 1 and f"MLflow alias {toy.name}@champion: must be on 1" in broken.stderr
    assert "is on version 1" in airworthy(toy, "ledger", "reconcile", toy.name).stdout
    assert airworthy(toy, "ledger", "verify", toy.name).returncode == 0
    unknown = airworthy(toy, "ledger", "show", "nothing")
    assert unknown.returncode == 1 and f"must know the pipeline ({toy.name}). Got 'nothing'" in unknown.stderr


def test_what_was_in_production_names_run_approval_and_verdicts(toy: Toy, pipeline: Pipeline) -> None:
    here = pipeline.model_copy(update={"target": Answers()})
    first, second = trained(toy, pipeline), trained(toy, toy.pipeline(model=DEEPER))
    deploy(here, first, *judged(toy, first), toy.profile, "run 1")
    ledger = Ledger(toy.profile.ledger_url)
    (entry,) = ledger.entries(toy.name)
    version = Registry(toy.profile).register(second)
    ledger.promote(
        **entry.model_dump(include={"pipeline", "evidence"}),
        **second.model_dump(include={"model_id", "run_id", "digest", "as_of"}),
        version=version,
        expected="1",
        actor="run 2",
        approved_by="ann, bob",
    )
    rollback(here, toy.profile, "cleo", reason="complaints")
    one, two, three = ledger.entries(toy.name)
    day = airworthy(toy, "ledger", "at", toy.name, f"{one.at:%Y-%m-%d}").stdout
    assert "no model\n" in day.splitlines(keepends=True)[0]
    spans = [line for line in day.splitlines() if ": version " in line]
    assert [line.rpartition(" ")[2] for line in spans] == ["1", "2", "1"]
    assert "approved by ann, bob" in day and "because: complaints" in day and second.run_id in day
    assert f"evidence {one.evidence}, in the run's artifacts under {evidence_folder(digest(EVIDENCE))}" in day
    assert "servable passed: it does" in day
    assert f"evidence {two.evidence}: MLflow does not have these verdicts" in day  # they are the first run's
    assert day.count("nobody was asked for approval when promoted, entry 1") == 2  # going back asks nobody
    then = airworthy(toy, "ledger", "at", toy.name, two.at.isoformat()).stdout
    assert ": version 2" in then and ": version 1" not in then
    assert airworthy(toy, "ledger", "at", toy.name, "2013-01-01").stdout == "No model\n"
    wrong = airworthy(toy, "ledger", "at", toy.name, "yesterday")
    assert wrong.returncode == 1 and "must be like 2013-06-01" in wrong.stderr
    assert json.loads(three.model_dump_json())["reason"] == "complaints"
