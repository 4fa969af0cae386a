"""People approve of a challenger: who counts, for what an answer holds, and what a forged one is worth."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from pydantic import TypeAdapter

from airworthy.config import Pipeline
from airworthy.errors import ConflictError, Problems
from airworthy.evidence import Evidence
from airworthy.gates.approval import Approval, approval_of
from airworthy.gates.metric_floor import MetricFloor
from airworthy.gates.servable import Servable
from airworthy.ledger import Entry, Ledger
from airworthy.profile import Profile
from airworthy.registry import Challenger, Registry
from airworthy.stages.approval_question import describe, open_question, reason_not_to_ask
from airworthy.stages.approvals import Answer, answers, record
from airworthy.stages.deploy import Release, deploy
from airworthy.stages.evaluate import Evaluation, evaluate, judge
from airworthy.targets import Target
from airworthy.verdict import Verdict
from serving_process import APRIL, MARCH, promote, trained
from toy_pipeline import Toy

ALICE, BOB, CAROL = "alice", "bob", "carol"
RUN = "manual__1"


def test_the_verdict_of_an_approval_gate_always_asks() -> None:
    evidence = cast(Evidence, None)  # it looks at nothing
    verdict = Approval(assigned_users=(ALICE, BOB), people=2).judge(evidence)
    assert (verdict.status, verdict.asks, verdict.blocks) == ("failed", True, False)
    assert verdict.reason == "2 people of alice, bob must approve"
    assert Approval().judge(evidence).reason == "1 person must approve"
    assert Approval(always=False).judge(evidence).passed


def test_who_is_asked_is_declared_once_and_by_default_anybody() -> None:
    asking, silent = MetricFloor(metric="roc_auc", floor=0.7, on_fail="ask"), Servable()
    assert approval_of([silent]) is None
    assert approval_of([silent, asking]) == Approval()
    declared = Approval(assigned_users=(ALICE,), always=False)
    assert approval_of([asking, declared]) == declared


@pytest.mark.parametrize(
    ("declared", "told"),
    [
        ({"on_fail": "warn"}, r"gates\[0\]\.approval\.on_fail"),
        ({"people": 0}, "people must be at least 1. Got 0"),
        ({"people": 2, "assigned_users": [ALICE]}, "people must be at most 1, the number of assigned_users. Got 2"),
        ({"assigned_users": [ALICE, BOB, ALICE]}, "must name each user once, and names 'alice' again"),
        ({"answer_within": "0 days"}, "must be longer than nothing"),
    ],
)
def test_a_declaration_that_cannot_work_is_refused(toy: Toy, declared: dict[str, Any], told: str) -> None:
    with pytest.raises(Problems, match=told):
        toy.pipeline(gates=[{"approval": declared}])


def test_two_approval_gates_are_one_too_many(toy: Toy) -> None:
    with pytest.raises(Problems, match=r"gates\[2\]\.approval must be declared once"):
        toy.pipeline(gates=["approval", "servable", {"approval": {"people": 2}}])


class Instant(Target):
    """A target that answers at once."""

    def wait_until_live(self, entry: Entry, profile: Profile) -> str:
        return "http://answers.test"


@dataclass
class Asked:
    """A challenger of which people must approve."""

    toy: Toy
    pipeline: Pipeline
    challenger: Challenger
    evaluation: Evaluation
    verdicts: list[Verdict]

    def answer(self, user: str, *, approved: bool = True, **changes: Any) -> Answer:
        question = open_question(*self.judged, self.toy.profile, RUN)
        at = datetime(2026, 1, 2, 3, tzinfo=UTC)
        given = Answer(question=question, approved=approved, user=user, name=user.title(), at=at, requester=ALICE)
        return given.model_copy(update=changes)

    def record(self, given: Answer) -> list[Answer]:
        return record(
            self.pipeline, given, open_question(*self.judged, self.toy.profile, RUN), Registry(self.toy.profile)
        )

    def deploy(self, *given: Answer, run: str = RUN) -> Release:
        return deploy(*self.judged, self.toy.profile, run, approvals=given)

    @property
    def judged(self) -> tuple[Pipeline, Challenger, Evaluation, list[Verdict]]:
        return self.pipeline, self.challenger, self.evaluation, self.verdicts

    @property
    def promoted(self) -> list[str]:
        return [entry.version for entry in Ledger(self.toy.profile.ledger_url).entries(self.pipeline.name)]


@pytest.fixture
def filled(toy: Toy) -> Toy:
    Ledger(toy.profile.ledger_url).create()
    toy.fill(toy.pipeline(), toy.rows())
    return toy


def asked(toy: Toy, as_of: datetime = MARCH, floor: float = 0.1, **declared: Any) -> Asked:
    gates = [{"metric_floor": {"metric": "roc_auc", "floor": floor}}, {"approval": declared}]
    pipeline = toy.pipeline(gates=gates).model_copy(update={"target": Instant()})
    challenger = trained(toy, pipeline, as_of)
    champion = Ledger(toy.profile.ledger_url).champion(pipeline.name)
    evaluation = evaluate(pipeline, challenger, champion, toy.profile)
    return Asked(toy, pipeline, challenger, evaluation, judge(pipeline, challenger, evaluation, toy.profile))


def test_one_approval_promotes_and_is_kept_with_the_evidence(filled: Toy) -> None:
    one = asked(filled)
    given = one.answer(BOB, reason="looks good")
    assert one.record(given) == [given]
    release = one.deploy(given)
    assert (release.action, one.promoted) == ("promoted", ["1"])
    registry, folder = Registry(filled.profile), f"evidence/{one.evaluation.evidence[:12]}"
    (stored,) = registry.load_json(one.challenger.run_id, f"{folder}/approvals.json")
    assert (stored["user"], stored["approved"], stored["reason"]) == (BOB, True, "looks good")
    assert stored["question"]["evidence"] == one.evaluation.evidence and stored["question"]["expected"] is None
    assert registry.load_json(one.challenger.run_id, "approvals.json") == [stored]
    again = one.deploy(given)
    assert (again.action, one.promoted) == ("promoted", ["1"])


def test_without_an_answer_nothing_is_promoted(filled: Toy) -> None:
    one = asked(filled)
    release = one.deploy()
    assert (release.action, release.reason) == ("refused", "approval: 1 must approve, and nobody did")
    assert one.promoted == []


def test_one_rejection_outweighs_any_approval(filled: Toy) -> None:
    one = asked(filled, people=2)
    given = [one.answer(ALICE), one.answer(BOB), one.answer(CAROL, approved=False, reason="too risky")]
    for each in given:
        one.record(each)
    release = one.deploy(*given)
    assert release.action == "refused"
    assert release.reason == "approval: Carol rejected at 2026-01-02 03:00 UTC: too risky"
    assert one.promoted == []


def test_two_people_are_two_people(filled: Toy) -> None:
    one = asked(filled, people=2)
    requester = one.answer(ALICE)
    assert requester.requester == ALICE
    one.record(requester)
    assert one.deploy(requester).reason == "approval: 2 must approve, and Alice did"
    twice = one.answer(ALICE, name="Somebody else", at=datetime(2026, 1, 3, tzinfo=UTC))
    with pytest.raises(ConflictError, match="Somebody else has approved already, and another person must"):
        one.record(twice)
    with pytest.raises(ConflictError, match="must be those stored"):
        one.deploy(requester, twice)
    assert one.promoted == []
    second = one.answer(BOB)
    assert one.record(second) == [requester, second]
    assert one.deploy(requester, second).action == "promoted"
    (entry,) = Ledger(filled.profile.ledger_url).entries(one.pipeline.name)
    assert (entry.approved_by, entry.actor) == ("Alice, Bob", RUN)


def test_the_same_person_counts_once_even_where_both_answers_are_on_record(filled: Toy) -> None:
    one = asked(filled, people=2)
    given = [one.answer(ALICE), one.answer(ALICE, name="A.", at=datetime(2026, 1, 3, tzinfo=UTC))]
    store(one, given)
    release = one.deploy(*given)
    assert (release.action, one.promoted) == ("refused", [])


def test_only_assigned_users_count(filled: Toy) -> None:
    one = asked(filled, assigned_users=[ALICE, BOB])
    with pytest.raises(ConflictError, match=r"must come from one of alice, bob\. Got 'carol'"):
        one.record(one.answer(CAROL))
    store(one, [one.answer(CAROL)])
    assert one.deploy(one.answer(CAROL)).reason == "approval: 1 must approve, and nobody did"


def test_a_forged_answer_counts_nothing(filled: Toy) -> None:
    one = asked(filled)
    with pytest.raises(ConflictError, match=r"the answers must be those stored with run \w+\. Got 'Bob'"):
        one.deploy(one.answer(BOB))
    rejected = one.answer(BOB, approved=False)
    one.record(rejected)
    for forged in ([one.answer(BOB)], []):
        with pytest.raises(ConflictError, match="the answers must be those stored"):
            one.deploy(*forged)
    assert one.promoted == []


def test_an_answer_is_void_once_the_evidence_has_changed(filled: Toy) -> None:
    one = asked(filled)
    given = one.answer(BOB)
    one.record(given)
    again = asked(filled, floor=0.2)  # judged by other gates, on other evidence
    assert again.challenger.run_id == one.challenger.run_id
    assert again.evaluation.evidence != one.evaluation.evidence
    before, now = one.evaluation.evidence[:12], again.evaluation.evidence[:12]
    told = rf"the answer is void: it is about evidence {before}.* by now there is evidence {now}.*Trigger"
    with pytest.raises(ConflictError, match=told):
        again.deploy(given)
    with pytest.raises(ConflictError, match=told):
        again.record(given)
    assert answers(again.answer(BOB).question, Registry(filled.profile)) == [] and one.promoted == []


def test_another_run_asks_anew_about_the_same_evidence(filled: Toy) -> None:
    one = asked(filled)
    given = one.answer(BOB, approved=False)
    one.record(given)
    with pytest.raises(ConflictError, match=r"the answer is void: .* in manual__1, and by now .* in manual__2"):
        one.deploy(given, run="manual__2")
    question = open_question(*one.judged, filled.profile, "manual__2")
    assert answers(question, Registry(filled.profile)) == []
    anew = one.answer(BOB, question=question)
    record(one.pipeline, anew, question, Registry(filled.profile))
    assert one.deploy(anew, run="manual__2").action == "promoted"


def test_an_answer_is_void_once_the_verdicts_have_changed(filled: Toy) -> None:
    one = asked(filled)
    given = one.answer(BOB)
    one.record(given)
    one.verdicts = [*one.verdicts, Verdict(gate="latency", status="failed", reason="slow", on_fail="warn")]
    content = TypeAdapter(list[Verdict]).dump_json(one.verdicts, indent=1)
    folder = f"evidence/{one.evaluation.evidence[:12]}"
    Registry(filled.profile).store_artifacts(one.challenger.run_id, {f"{folder}/verdicts.json": content})
    with pytest.raises(ConflictError, match="the answer is void"):
        one.deploy(given)
    assert one.promoted == []


def test_an_answer_is_void_once_the_champion_has_changed(filled: Toy) -> None:
    one = asked(filled, APRIL)
    given = one.answer(BOB)
    one.record(given)
    champion = promote(filled, trained(filled, filled.pipeline(), MARCH))
    told = r"the challenger was judged against no champion, which is not champion any more\. Got 'version 1'\. Trigger"
    with pytest.raises(ConflictError, match=told):
        one.deploy(given)
    with pytest.raises(ConflictError, match=told):
        open_question(*one.judged, filled.profile, RUN)
    assert one.promoted == [champion.version]


def test_nobody_is_asked_where_nobody_can_change_anything(filled: Toy) -> None:
    one = asked(filled)
    blocked = Verdict(gate="metric_floor", status="failed", reason="0.6 < 0.7")
    passed = Verdict(gate="metric_floor", status="passed", reason="0.8")
    reason = [
        reason_not_to_ask(one.pipeline, one.challenger, verdicts, filled.profile)
        for verdicts in (one.verdicts, [*one.verdicts, blocked], [passed], [])
    ]
    assert reason == [None, "metric_floor: 0.6 < 0.7", "no gate asks", "no gate has judged the challenger"]
    promote(filled, one.challenger)
    told = reason_not_to_ask(one.pipeline, one.challenger, one.verdicts, filled.profile)
    assert told == "version 1 is champion already"
    older = trained(filled, filled.pipeline(), datetime(2013, 3, 1, tzinfo=UTC))
    told = reason_not_to_ask(one.pipeline, older, one.verdicts, filled.profile)
    assert told is not None and "later than the challenger's" in told


def test_a_gate_that_fails_asks_only_if_it_says_so(filled: Toy) -> None:
    pipeline = filled.pipeline(gates=[{"metric_floor": {"metric": "roc_auc", "floor": 1.0, "on_fail": "ask"}}])
    challenger = trained(filled, pipeline)
    evaluation = evaluate(pipeline, challenger, None, filled.profile)
    verdicts = judge(pipeline, challenger, evaluation, filled.profile)
    one = Asked(filled, pipeline.model_copy(update={"target": Instant()}), challenger, evaluation, verdicts)
    assert reason_not_to_ask(pipeline, challenger, verdicts, filled.profile) is None
    assert one.deploy().action == "refused"
    given = one.answer(CAROL)
    one.record(given)
    assert one.deploy(given).action == "promoted"


def test_the_question_shows_what_is_known_and_renders_nothing_else(filled: Toy) -> None:
    champion = promote(filled, trained(filled, filled.pipeline(), MARCH))
    one = asked(filled, APRIL, people=2, answer_within="3 days")
    told = one.answer(ALICE, reason="![x](http://tracker.test/a.png)")
    shown = describe(
        *one.judged, Registry(filled.profile), told=[told], requester="<b>alice</b>", pages={"Model card": "http://m/c"}
    )
    metric = one.evaluation.challenger_metrics["roc_auc"]
    for part in (
        f"would replace version {champion.version}",
        f"| roc_auc | {metric:.4f} |",
        "| approval | failed: ask | 2 people must approve |",
        "[Model card](http://m/c)",
        "No answer within 3 days: the champion stays",
        f"`{one.evaluation.evidence}`",
    ):
        assert part in shown
    assert "<b>" not in shown and "![x]" not in shown and "http://tracker" not in shown


def test_the_question_is_not_asked_about_evidence_that_was_tampered_with(filled: Toy) -> None:
    one = asked(filled)
    file = f"evidence/{one.evaluation.evidence[:12]}/evidence.json"
    registry = Registry(filled.profile)
    better = registry.load_json(one.challenger.run_id, file)
    better["challenger"]["metrics"]["roc_auc"] = 0.99
    registry.store_artifacts(one.challenger.run_id, {file: json.dumps(better, indent=1).encode()})
    with pytest.raises(ConflictError, match="is not what evaluate stored"):
        describe(*one.judged, registry)


def store(one: Asked, given: list[Answer]) -> None:
    """Leaves answers on record as `record` would not."""
    file = f"evidence/{one.evaluation.evidence[:12]}/approvals.json"
    content = TypeAdapter(list[Answer]).dump_json(given, indent=1)
    Registry(one.toy.profile).store_artifacts(one.challenger.run_id, {file: content})
