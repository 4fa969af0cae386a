"""The question that people are asked about a challenger."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from airworthy.config import Pipeline
from airworthy.errors import ConflictError
from airworthy.gates.approval import Approval, approval_of
from airworthy.ledger import Ledger
from airworthy.markdown import safe, table
from airworthy.partitions import write_duration
from airworthy.people import APPROVE, REJECT
from airworthy.profile import Profile
from airworthy.registry import Challenger, Registry
from airworthy.stages.approvals import Answer, Question, question, version
from airworthy.stages.deploy import own_verdicts, reason_to_keep
from airworthy.stages.evaluate import Evaluation, stored_evidence
from airworthy.verdict import Verdict


def reason_not_to_ask(
    pipeline: Pipeline, challenger: Challenger, verdicts: Sequence[Verdict], profile: Profile
) -> str | None:
    """Returns why no person's word changes what becomes of a challenger; None if people are to be asked.

    Raises:
        ServiceError: The ledger does not answer.
    """
    champion = Ledger(profile.ledger_url).champion(pipeline.name)
    if kept := reason_to_keep(challenger, verdicts, champion):
        return kept[1]
    if champion and champion.model_id == challenger.model_id:
        return f"version {champion.version} is champion already"
    return None if any(verdict.asks for verdict in verdicts) else "no gate asks"


def open_question(
    pipeline: Pipeline,
    challenger: Challenger,
    evaluation: Evaluation,
    verdicts: Sequence[Verdict],
    profile: Profile,
    run: str,
) -> Question:
    """Returns what there is to approve of now, in one Airflow run.

    Raises:
        ConflictError: The verdicts are not those on this challenger, or the champion is not the one it was
            judged against.
        ServiceError: MLflow or the ledger does not answer.
    """
    champion = Ledger(profile.ledger_url).champion(pipeline.name)
    judged = own_verdicts(challenger, evaluation, verdicts, Registry(profile))
    return question(pipeline, challenger, evaluation, judged, champion, run)


def describe(
    pipeline: Pipeline,
    challenger: Challenger,
    evaluation: Evaluation,
    verdicts: Sequence[Verdict],
    registry: Registry,
    *,
    told: Sequence[Answer] = (),
    requester: str = "",
    pages: Mapping[str, str] | None = None,
) -> str:
    """Returns the question in Markdown: both models' scores, every verdict, what each answer does, and the hash.

    Args:
        pipeline: Says who must approve, and by when.
        challenger: Whom it is about.
        evaluation: Names the evidence.
        verdicts: What the gates say of it.
        registry: Has the evidence.
        told: What others have answered.
        requester: Who had triggered the run.
        pages: Where to read more, by name.

    Raises:
        ConflictError: The evidence is not the one that was judged.
    """
    linked = " · ".join(f"[{name}]({address})" for name, address in (pages or {}).items())
    judged = [(one.gate, one.status if one.passed else f"{one.status}: {one.on_fail}", one.reason) for one in verdicts]
    becomes = f"replace version {evaluation.champion}" if evaluation.champion else "be the first champion"
    asked_for = f" {safe(requester)} asked for it." if requester else ""
    return "\n".join(
        [
            f"A challenger trained as of {challenger.as_of:%Y-%m-%d %H:%M} would {becomes}.{asked_for} {linked}\n",
            _scores(pipeline, challenger, evaluation, registry),
            table(["gate", "verdict", "why"], judged),
            *(f"- {safe(str(one))}" for one in told),
            *_meanings(pipeline),
            f"\nAn answer holds for the evidence with this SHA-256 only:\n\n`{evaluation.evidence}`",
        ]
    )


def _scores(pipeline: Pipeline, challenger: Challenger, evaluation: Evaluation, registry: Registry) -> str:
    evidence = stored_evidence(pipeline, challenger, evaluation, registry)
    if evidence is None:
        raise ConflictError(f"{pipeline.name}: approval", "there must be evidence to show", hint="Evaluate again")
    start, end = challenger.holdout
    theirs = evidence.champion.metrics if evidence.champion else {}
    rows = [
        (name, f"{value:.4f}", f"{theirs[name]:.4f}" if name in theirs else "-")
        for name, value in evidence.challenger.metrics.items()
    ]
    head = ["", "challenger", version(evaluation.champion)]
    return f"On {len(evidence.label)} rows of {start:%Y-%m-%d} to {end:%Y-%m-%d}:\n\n{table(head, rows)}"


def _meanings(pipeline: Pipeline) -> Iterator[str]:
    approval = approval_of(pipeline.gates) or Approval()
    people = "one person has" if approval.people == 1 else f"{approval.people} different people have"
    yield f"- **{APPROVE}**: it becomes champion once {people} approved."
    yield f"- **{REJECT}**: the champion stays, whatever others say."
    yield f"- No answer within {write_duration(approval.answer_within)}: the champion stays."
