"""The record of what people say about a challenger, kept with the evidence it is about."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import TypeAdapter

from airworthy.config import Moment, Pipeline, Strict
from airworthy.errors import ConflictError
from airworthy.gates.approval import Approval, approval_of
from airworthy.ledger import Entry
from airworthy.registry import Challenger, Registry
from airworthy.stages.evaluate import Evaluation, evidence_folder

APPROVALS = "approvals.json"


class Question(Strict):
    """What people are asked to approve of. An answer holds for exactly this.

    Attributes:
        run_id: The challenger's run, which keeps the evidence.
        evidence: SHA-256 of the evidence.
        verdicts: SHA-256 of the verdicts on it.
        expected: The champion's version that the challenger would replace; None if there is none.
        run: The Airflow run that asks; another one asks anew, also about the same.
        judged_at: The ledger's last entry when the challenger was judged: after a rollback, another question.
    """

    run_id: str
    evidence: str
    verdicts: str
    expected: str | None
    run: str
    judged_at: int = 0

    def __str__(self) -> str:
        return (
            f"evidence {self.evidence[:12]}, verdicts {self.verdicts[:12]} and {version(self.expected)} in {self.run}"
        )


class Answer(Strict):
    """What one person said.

    Attributes:
        user: The id under which Airflow knows the person.
        name: The person's name there.
        reason: In the person's own words.
        requester: Who had triggered that run; "" if nobody did.
    """

    question: Question
    approved: bool
    user: str
    name: str
    at: Moment
    reason: str = ""
    requester: str = ""

    def __str__(self) -> str:
        said = f"{self.name} {'approved' if self.approved else 'rejected'} at {self.at:%Y-%m-%d %H:%M} UTC"
        return f"{said}: {self.reason}" if self.reason else said


_ANSWERS = TypeAdapter(list[Answer])


def question(
    pipeline: Pipeline, challenger: Challenger, evaluation: Evaluation, verdicts: str, champion: Entry | None, run: str
) -> Question:
    """Returns what there is to approve of.

    Args:
        pipeline: Whose challenger.
        challenger: Whom it is about.
        evaluation: Names the evidence, and the champion it was judged against.
        verdicts: SHA-256 of the verdicts on it (`deploy.own_verdicts`).
        champion: The present one.
        run: The Airflow run that asks.

    Raises:
        ConflictError: The champion is not the one the challenger was judged against.
    """
    found = champion.version if champion else None
    if found != evaluation.champion:
        rule = f"the challenger was judged against {version(evaluation.champion)}, which is not champion any more"
        raise ConflictError(f"{pipeline.name}: approval", rule, version(found), _again(pipeline))
    return Question(
        run_id=challenger.run_id,
        evidence=evaluation.evidence,
        verdicts=verdicts,
        expected=evaluation.champion,
        run=run,
        judged_at=evaluation.judged_at,
    )


def answers(asked: Question, registry: Registry) -> list[Answer]:
    """Returns what people have answered about exactly this, oldest first."""
    return [one for one in on_record(asked, registry) if one.question == asked]


def record(pipeline: Pipeline, answer: Answer, now: Question, registry: Registry) -> list[Answer]:
    """Returns all answers to the same question, once this one is stored with the evidence it is about.

    Args:
        pipeline: Says who may answer.
        answer: What a person said.
        now: What there is to approve of when the answer comes.
        registry: Where it is kept.

    Raises:
        ConflictError: The answer is void: it is about something else, or of somebody who does not count.
    """
    where = f"{pipeline.name}: approval"
    if answer.question != now:
        raise _void(pipeline, answer.question, now)
    before = answers(now, registry)
    if answer.user in {one.user for one in before if one.approved} and answer.approved:
        rule = f"the answer is void: {answer.name} has approved already, and another person must"
        raise ConflictError(where, rule, hint="Clear this task to ask again")
    approval = approval_of(pipeline.gates) or Approval()
    if approval.assigned_users and answer.user not in approval.assigned_users:
        rule = f"the answer is void: it must come from one of {', '.join(approval.assigned_users)}"
        raise ConflictError(where, rule, answer.user, "Clear this task to ask again")
    content = _ANSWERS.dump_json([*on_record(now, registry), answer], indent=1)
    registry.store_artifacts(now.run_id, {APPROVALS: content, _file(now): content})
    return [*before, answer]


def refusal(pipeline: Pipeline, told: Sequence[Answer]) -> str | None:
    """Returns why these answers to one question do not approve; None if they do.

    One rejection refuses. Each person counts once, so that whoever asked for the training is never the only one
    where two must approve.
    """
    approval = approval_of(pipeline.gates) or Approval()
    if rejected := [one for one in told if not one.approved]:
        return f"approval: {rejected[0]}"
    approvers = {one.user: one for one in told if not approval.assigned_users or one.user in approval.assigned_users}
    if len(approvers) >= approval.people:
        return None
    names = ", ".join(one.name for one in approvers.values()) or "nobody"
    return f"approval: {approval.people} must approve, and {names} did"


def approved(
    pipeline: Pipeline, asked: Question, given: Sequence[Answer], registry: Registry
) -> tuple[str, str | None]:
    """Returns who has approved, and why that does not do, or None if it does.

    Args:
        pipeline: Says who must approve.
        asked: What there is to approve of now.
        given: The answers as they were handed on; they count only if they are those on record.
        registry: Where these are.

    Raises:
        ConflictError: An answer is about something else, or is not on record, or one on record is not among them.
    """
    if void := [one for one in given if one.question != asked]:
        raise _void(pipeline, void[0].question, asked)
    stored = answers(asked, registry)
    if {one.model_dump_json() for one in given} != {one.model_dump_json() for one in stored}:
        rule = f"the answers must be those stored with run {asked.run_id}"
        names = ", ".join(one.name for one in given) or "none"
        raise ConflictError(f"{pipeline.name}: approval", rule, names, _again(pipeline))
    return ", ".join(one.name for one in stored if one.approved), refusal(pipeline, stored)


def _void(pipeline: Pipeline, asked: Question, now: Question) -> ConflictError:
    rule = f"the answer is void: it is about {asked}, and by now there is {now}"
    return ConflictError(f"{pipeline.name}: approval", rule, hint=_again(pipeline))


def _again(pipeline: Pipeline) -> str:
    return f"Trigger {pipeline.name}.train again to ask again"


def on_record(asked: Question | Evaluation, registry: Registry) -> list[Answer]:
    """Returns every answer that is stored with this evidence, oldest first."""
    stored = registry.load_artifact(asked.run_id, _file(asked))
    return [] if stored is None else _ANSWERS.validate_json(stored)


def _file(asked: Question | Evaluation) -> str:
    return f"{evidence_folder(asked.evidence)}/{APPROVALS}"


def version(champion: str | None) -> str:
    """Returns what to call a champion's version in a sentence."""
    return f"version {champion}" if champion else "no champion"
