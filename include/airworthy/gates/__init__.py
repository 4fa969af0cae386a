"""Gates: judgements of a challenger on gathered evidence. One file per kind; a gate never imports another."""

from __future__ import annotations

import json
import logging
import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from airworthy.errors import ModelError, ServiceError
from airworthy.evidence import Evidence
from airworthy.kinds import Kind
from airworthy.verdict import OnFail, Verdict

if TYPE_CHECKING:
    from airworthy.case import Case

log = logging.getLogger(__name__)


class Gate(Kind):
    """A declared judgement. Its fields are its keys in a pipeline file.

    Attributes:
        compares: Whether `gather` looks at the champion; what it gathers is kept for other champions if not.
        over_days: Whether it judges by how days differ, so that a holdout of one day tells it nothing.
        timed: Whether it looks at how long answers take, which takes a second or more to measure.
        on_fail: `block` the promotion, `warn` only, or `ask` people to approve of it.
    """

    compares: ClassVar[bool] = True
    over_days: ClassVar[bool] = False
    timed: ClassVar[bool] = False

    on_fail: OnFail = "block"

    @property
    def declaration(self) -> str:
        """What the pipeline file says of this gate, in one way of writing it."""
        return json.dumps({self.kind(): self.model_dump(mode="json", exclude={"on_fail"})}, sort_keys=True)

    def gather(self, case: Case) -> Mapping[str, Any]:
        """Returns the evidence this gate needs beside both models' answers on the holdout, as JSON has it.

        Runs once, when the challenger is evaluated. If it raises, the gate's verdict is an ERROR.
        """
        return {}

    @abstractmethod
    def judge(self, evidence: Evidence) -> Verdict:
        """Returns the verdict. Pure: the same evidence gives the same verdict; nothing is read or written."""

    def verdict(self, passed: bool, reason: str, **numbers: Any) -> Verdict:
        """Returns this gate's verdict with the numbers it rests on."""
        return Verdict(
            gate=self.kind(),
            status="passed" if passed else "failed",
            reason=reason,
            on_fail=self.on_fail,
            evidence=numbers,
        )


def gather_all(gates: Sequence[Gate], case: Case, known: Mapping[str, Mapping[str, Any]] | None = None) -> Evidence:
    """Returns the case's evidence with what every gate gathered, or why it could not.

    Args:
        gates: Who will judge.
        case: What they may look at.
        known: By declaration: what need not be gathered again.

    Raises:
        ServiceError: MLflow or a database does not answer; trying again may help.
    """
    gathered: dict[str, Mapping[str, Any]] = dict(known or {})
    missing: dict[str, str] = {}
    for gate in gates:
        if gate.declaration in gathered:
            continue
        started = time.perf_counter()
        try:
            found = gate.gather(case)
            gathered[gate.declaration] = json.loads(json.dumps(found))  # judged as it will be read back
        except ServiceError:
            raise
        except Exception as error:  # one gate's crash must not keep the others from being judged
            log.exception("%s could not gather its evidence", gate.kind())
            missing[gate.declaration] = f"{type(error).__name__}: {error}"
        log.info("%s: evidence in %.2f s", gate.kind(), time.perf_counter() - started)
    return replace(case.evidence, gathered=gathered, missing=missing)


def judge_all(gates: Sequence[Gate], evidence: Evidence) -> list[Verdict]:
    """Returns one verdict per gate, in order; a gate that crashes gives an ERROR verdict, never a pass."""
    verdicts = []
    for gate in gates:
        try:
            evidence.of(gate)
            verdicts.append(gate.judge(evidence))
        except Exception as error:
            reason = str(error) if isinstance(error, ModelError) else f"{type(error).__name__}: {error}"
            verdicts.append(Verdict(gate=gate.kind(), status="error", reason=reason, on_fail=gate.on_fail))
    return verdicts
