from __future__ import annotations

import hashlib
import json
import re
from typing import Any

import pytest
import sqlalchemy as sa
from mlflow import MlflowClient
from pydantic import TypeAdapter

from airworthy import kinds
from airworthy.config import Pipeline
from airworthy.errors import ConflictError, ModelError, ServiceError
from airworthy.evidence import Measured
from airworthy.ledger import Entry, Ledger
from airworthy.profile import Profile
from airworthy.registry import Challenger, Registry
from airworthy.stages.deploy import Release, deploy
from airworthy.stages.evaluate import Evaluation, evaluate, evidence_folder, judge
from airworthy.stages.evidence_files import digest
from airworthy.stages.reconcile import reconcile
from airworthy.stages.rollback import rollback
from airworthy.targets import Target
from airworthy.verdict import Verdict
from serving_process import APRIL, DEEPER, MARCH, Server, corrupt, promote, recorded, serving, trained
from toy_pipeline import Toy

GATES = ("beats_champion", "servable")
PASSED = [Verdict(gate=gate, status="passed", reason="it does") for gate in GATES]
GATHERED = {kinds.parse("gates", gate).declaration: {} for gate in GATES}
EVIDENCE = {"evidence.json": json.dumps({"gathered": GATHERED}).encode(), "holdout.parquet": b"rows"}
DOWN = {"serving": {"timeout": 0.1}}


@pytest.fixture
def pipeline(toy: Toy) -> Pipeline:
    Ledger(toy.profile.ledger_url).create()
    pipeline = toy.pipeline()
    toy.fill(pipeline, toy.rows())
    return pipeline


def judged(
    toy: Toy,
    challenger: Challenger,
    champion: str | None = None,
    verdicts: list[Verdict] = PASSED,
    judged_at: int = 0,
) -> tuple[Evaluation, list[Verdict]]:
    """Returns an evaluation of the challenger, and verdicts that are stored as its own."""
    evaluation = Evaluation(
        run_id=challenger.run_id,
        champion=champion,
        challenger_metrics={},
        champion_metrics=None,
        measured=Measured(requests=50, largest_difference=0.0, seconds=0.1),
        evidence=digest(EVIDENCE),
        judged_at=judged_at,
    )
    files = EVIDENCE | {"verdicts.json": TypeAdapter(list[Verdict]).dump_json(verdicts, indent=1)}
    folder = evidence_folder(evaluation.evidence)
    stored = {f"{folder}/{name}": content for name, content in files.items()}
    Registry(toy.profile).store_artifacts(challenger.run_id, stored)
    return evaluation, verdicts


def profile_of(toy: Toy, server: Server) -> Profile:
    return toy.profile.model_copy(update={"serving_url": server.url})


def versions(toy: Toy) -> list[str]:
    found = MlflowClient(toy.mlflow_uri).search_model_versions(f"name = '{toy.name}'")
    return sorted(version.version for version in found)


def test_a_challenger_that_passed_is_promoted_live_and_on_record_once(toy: Toy, pipeline: Pipeline) -> None:
    challenger = trained(toy, pipeline)
    evaluation = evaluate(pipeline, challenger, None, toy.profile)
    # Airflow hands them over through a database that does not keep the order of keys.
    verdicts = [
        verdict.model_copy(update={"evidence": dict(reversed(verdict.evidence.items()))})
        for verdict in judge(pipeline, challenger, evaluation, toy.profile)
    ]
    ledger, registry = Ledger(toy.profile.ledger_url), Registry(toy.profile)
    with serving(toy) as server:
        profile = profile_of(toy, server)
        release = deploy(pipeline, challenger, evaluation, verdicts, profile, "run 1")
        answer = server.post({"instances": [dict.fromkeys(recorded(toy, challenger)["columns"])]})
        again = deploy(pipeline, challenger, evaluation, verdicts, profile, "run 2")
    endpoint = f"{server.url}/invocations?pipeline={toy.name}"
    expected = Release(pipeline=toy.name, version="1", action="promoted", reason=release.reason, endpoint=endpoint)
    assert release == again == expected
    assert Release.model_validate(release.model_dump(mode="json")) == release
    assert (answer.status, answer.body["model_version"]) == (200, "1")
    (entry,) = ledger.entries(toy.name)
    assert (entry.actor, entry.as_of, entry.digest) == ("run 1", challenger.as_of, challenger.digest)
    stored = registry.load_artifact(challenger.run_id, "verdicts.json")
    assert stored is not None and entry.evidence == hashlib.sha256(stored).hexdigest()
    assert registry.alias(toy.name, "champion") == "1"
    assert versions(toy) == ["1"]


@pytest.mark.parametrize(
    ("verdicts", "reason"),
    [
        ([], "no gate has judged the challenger"),
        ([*PASSED, Verdict(gate="metric_floor", status="failed", reason="0.6 < 0.7")], "metric_floor: 0.6 < 0.7"),
        ([Verdict(gate="servable", status="error", reason="crashed", on_fail="warn")], "servable: crashed"),
    ],
)
def test_what_did_not_pass_is_not_even_registered(
    toy: Toy, pipeline: Pipeline, verdicts: list[Verdict], reason: str
) -> None:
    challenger = trained(toy, pipeline)
    release = deploy(pipeline, challenger, *judged(toy, challenger, verdicts=verdicts), toy.profile, "test")
    assert (release.action, release.version, release.reason) == ("refused", "", reason)
    assert versions(toy) == Ledger(toy.profile.ledger_url).entries(toy.name) == []


def test_a_failed_gate_that_only_warns_does_not_block(toy: Toy, pipeline: Pipeline) -> None:
    warned = [*PASSED, Verdict(gate="metric_floor", status="failed", reason="0.6 < 0.7", on_fail="warn")]
    with serving(toy) as server:
        challenger = trained(toy, pipeline)
        verdicts = judged(toy, challenger, verdicts=warned)
        release = deploy(pipeline, challenger, *verdicts, profile_of(toy, server), "test")
    assert release.action == "promoted"


def test_a_challenger_older_than_the_champion_does_not_replace_it(toy: Toy, pipeline: Pipeline) -> None:
    champion = promote(toy, trained(toy, pipeline, APRIL))
    challenger = trained(toy, pipeline, MARCH)
    release = deploy(pipeline, challenger, *judged(toy, challenger, champion.version), toy.profile, "test")
    assert (release.action, release.version) == ("kept", champion.version)
    assert release.reason == (
        "version 1 was trained as of 2013-04-08 00:00, later than the challenger's 2013-04-01 00:00"
    )
    assert Ledger(toy.profile.ledger_url).entries(toy.name) == [champion]


def test_judging_the_champion_again_changes_nothing(toy: Toy, pipeline: Pipeline) -> None:
    challenger = trained(toy, pipeline)
    champion = promote(toy, challenger)
    blocked = [Verdict(gate="beats_champion", status="failed", reason="gains 0.000")]
    release = deploy(pipeline, challenger, *judged(toy, challenger, champion.version, blocked), toy.profile, "test")
    assert (release.action, release.reason) == ("kept", "version 1 is champion already")


def test_a_challenger_judged_against_another_champion_is_not_promoted(toy: Toy, pipeline: Pipeline) -> None:
    champion = promote(toy, trained(toy, pipeline))
    challenger = trained(toy, toy.pipeline(model=DEEPER))
    with pytest.raises(ConflictError, match=r"expected the champion to be none\. Got '1'"):
        deploy(pipeline, challenger, *judged(toy, challenger), toy.profile, "test")
    assert Ledger(toy.profile.ledger_url).entries(toy.name) == [champion]


def test_verdicts_on_another_challenger_promote_nothing(toy: Toy, pipeline: Pipeline) -> None:
    judged_one, other = trained(toy, pipeline), trained(toy, toy.pipeline(model=DEEPER))
    evaluation, verdicts = judged(toy, judged_one)
    with pytest.raises(ConflictError, match=rf"must be those stored with run {other.run_id}"):
        deploy(pipeline, other, evaluation, verdicts, toy.profile, "test")
    own, _ = judged(toy, other)
    forged = [Verdict(gate="metric_floor", status="passed", reason="because I say so")]
    with pytest.raises(ConflictError, match=rf"must be those stored with run {other.run_id}"):
        deploy(pipeline, other, own, forged, toy.profile, "test")
    assert Ledger(toy.profile.ledger_url).entries(toy.name) == []


class Broken(Target):
    def wait_until_live(self, entry: Entry, profile: Profile) -> str:
        raise KeyError("url")


def test_whatever_a_target_raises_the_version_before_is_champion_again(toy: Toy, pipeline: Pipeline) -> None:
    challenger = trained(toy, pipeline)
    broken = pipeline.model_copy(update={"target": Broken()})
    with pytest.raises(ModelError, match=r"must go live; there is no champion, as before\. KeyError: 'url'"):
        deploy(broken, challenger, *judged(toy, challenger), toy.profile, "test")
    assert Ledger(toy.profile.ledger_url).champion(toy.name) is None


def test_damaged_files_are_rolled_back_with_the_servers_reason(toy: Toy, pipeline: Pipeline) -> None:
    first, second = trained(toy, pipeline), trained(toy, toy.pipeline(model=DEEPER))
    corrupt(toy, second)
    ledger, registry = Ledger(toy.profile.ledger_url), Registry(toy.profile)
    with serving(toy) as server:
        profile = profile_of(toy, server)
        deploy(pipeline, first, *judged(toy, first), profile, "test")
        with pytest.raises(ModelError) as failed:
            deploy(pipeline, second, *judged(toy, second, "1"), profile, "test")
        answer = server.post({"instances": [dict.fromkeys(recorded(toy, first)["columns"])]})
    message = str(failed.value)
    assert message.startswith(f"deploy {toy.name}: version 2 must go live; version 1 is champion again.")
    assert "must have the recorded SHA-256" in message
    assert (answer.status, answer.body["model_version"]) == (200, "1")
    assert [(entry.action, entry.version) for entry in ledger.entries(toy.name)] == [
        ("promote", "1"),
        ("promote", "2"),
        ("rollback", "1"),
    ]
    assert registry.alias(toy.name, "champion") == "1"


def test_without_a_server_the_first_promotion_is_taken_back(toy: Toy, pipeline: Pipeline) -> None:
    pipeline = toy.pipeline(target=DOWN)
    challenger = trained(toy, pipeline)
    with pytest.raises(ModelError, match=re.escape("there is no champion, as before.")):
        deploy(pipeline, challenger, *judged(toy, challenger), toy.profile, "test")
    assert Ledger(toy.profile.ledger_url).champion(toy.name) is None
    assert Registry(toy.profile).alias(toy.name, "champion") is None


def test_a_deploy_that_crashed_after_the_promotion_is_finished_by_the_next(toy: Toy, pipeline: Pipeline) -> None:
    challenger = trained(toy, pipeline)
    entry = promote(toy, challenger)  # and then the process died
    with serving(toy) as server:
        release = deploy(pipeline, challenger, *judged(toy, challenger), profile_of(toy, server), "test")
    assert (release.action, release.version) == ("promoted", entry.version)
    assert Ledger(toy.profile.ledger_url).entries(toy.name) == [entry]
    assert Registry(toy.profile).alias(toy.name, "champion") == entry.version


def test_a_server_that_is_down_does_not_cost_a_finished_release(toy: Toy, pipeline: Pipeline) -> None:
    challenger = trained(toy, pipeline)
    entry = promote(toy, challenger)
    Registry(toy.profile).set_alias(toy.name, "champion", entry.version)
    with pytest.raises(ServiceError, match=r"^serving at http://127\.0\.0\.1:1: "):
        deploy(toy.pipeline(target=DOWN), challenger, *judged(toy, challenger), toy.profile, "test")
    assert Ledger(toy.profile.ledger_url).entries(toy.name) == [entry]


def test_a_model_that_was_rolled_back_from_must_be_judged_again(toy: Toy, pipeline: Pipeline) -> None:
    first, second = trained(toy, pipeline), trained(toy, toy.pipeline(model=DEEPER))
    ledger = Ledger(toy.profile.ledger_url)
    with serving(toy) as server:
        profile = profile_of(toy, server)
        deploy(pipeline, first, *judged(toy, first), profile, "run 1")
        old = judged(toy, second, "1", judged_at=1)
        deploy(pipeline, second, *old, profile, "run 2")
        rollback(pipeline, profile, "ann", reason="complaints")
        with pytest.raises(ConflictError, match=r"version 2 must be judged again, since ann rolled back .*complaints"):
            deploy(pipeline, second, *old, profile, "run 2")
        assert [entry.version for entry in ledger.entries(toy.name)] == ["1", "2", "1"]
        kept = deploy(pipeline, first, *judged(toy, first, judged_at=3), profile, "run 1")
        with pytest.raises(ConflictError, match="version 2 must be brought back or approved by a person"):
            deploy(pipeline, second, *judged(toy, second, "1", judged_at=3), profile, "run 2")
        assert rollback(pipeline, profile, "ann", to="2").version == "2"
    assert (kept.action, kept.reason) == ("kept", "version 1 is champion already")
    assert versions(toy) == ["1", "2"]


def test_evidence_that_was_changed_promotes_nothing(toy: Toy, pipeline: Pipeline) -> None:
    challenger = trained(toy, pipeline)
    evaluation, verdicts = judged(toy, challenger)
    folder = evidence_folder(evaluation.evidence)
    Registry(toy.profile).store_artifacts(challenger.run_id, {f"{folder}/holdout.parquet": b"better rows"})
    with pytest.raises(ConflictError, match=f"must still have the SHA-256 {evaluation.evidence}"):
        deploy(pipeline, challenger, evaluation, verdicts, toy.profile, "run 1")
    assert Ledger(toy.profile.ledger_url).entries(toy.name) == []


@pytest.mark.parametrize(
    ("gates", "missing"),
    [
        (["beats_champion", "servable", "leakage"], "leakage"),
        (["beats_champion", {"servable": {"tolerance": 1e-9}}], "servable"),
        ([{"beats_champion": {"on_fail": "ask"}}, "servable"], "beats_champion"),
        (["servable", "beats_champion"], "beats_champion"),
    ],
)
def test_a_gate_that_was_declared_after_the_others_had_judged_must_judge_first(
    toy: Toy, pipeline: Pipeline, gates: list[Any], missing: str
) -> None:
    challenger = trained(toy, pipeline)
    with pytest.raises(ConflictError, match=rf'must have judged the challenger: {{"{missing}": .*They were'):
        deploy(toy.pipeline(gates=gates), challenger, *judged(toy, challenger), toy.profile, "run 1")
    assert Ledger(toy.profile.ledger_url).entries(toy.name) == []


def test_nothing_is_promoted_on_a_ledger_that_was_cut(toy: Toy, pipeline: Pipeline) -> None:
    first, second = trained(toy, pipeline), trained(toy, toy.pipeline(model=DEEPER))
    promote(toy, second, promote(toy, first))
    reconcile(toy.name, toy.profile)
    with sa.create_engine(toy.profile.ledger_url).begin() as connection:
        connection.execute(sa.text("DELETE FROM ledger WHERE sequence = 2"))
    with pytest.raises(ModelError, match=rf"ledger: {toy.name}\[2\]: must be the entry that MLflow remembers"):
        deploy(pipeline, second, *judged(toy, second, "1"), toy.profile, "test")
    assert len(Ledger(toy.profile.ledger_url).entries(toy.name)) == 1
