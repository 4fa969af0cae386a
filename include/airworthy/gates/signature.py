"""`signature: {inputs: {carrier: string}}`: the clients of serving can go on as they are."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Literal

from airworthy.evidence import Evidence
from airworthy.gates import Gate
from airworthy.verdict import Verdict

if TYPE_CHECKING:
    from airworthy.case import Case
    from airworthy.model_files import Contract

Type = Literal["integer", "number", "boolean", "timestamp", "string"]


class Signature(Gate):
    """Passes a challenger that takes what the champion takes and answers as the champion answers.

    It must not need an input that the champion does not need, nor one of another type, and must have the same
    task and the same classes in the same order. An input that serving looks up is not needed. Serving takes
    integers and numbers for each other, so they count as one type. Serving refuses a column that it does not know,
    so the challenger must take what clients send, unless the pipeline's file sets it aside.

    Attributes:
        inputs: By name their type: what clients send; the challenger may need no other.
        classes: What clients expect, in the order of the answers.
    """

    inputs: dict[str, Type] | None = None
    classes: tuple[str, ...] | None = None

    def gather(self, case: Case) -> Mapping[str, Any]:
        theirs = None if case.theirs is None else _facts(case.theirs.contract)
        return {
            "challenger": _facts(case.own.contract),
            "champion": theirs,
            "set_aside": sorted(case.pipeline.set_aside),
        }

    def judge(self, evidence: Evidence) -> Verdict:
        found = evidence.of(self)
        mine, theirs = found["challenger"], found["champion"]
        taken = {*mine["inputs"], *mine["looked_up"], *found.get("set_aside", ())}
        broken = []
        if self.inputs is not None:
            broken += _inputs(mine["inputs"], self.inputs, "the declared list", taken)
        if self.classes is not None and list(self.classes) != mine["classes"]:
            broken.append(f"classes are {mine['classes']}, declared are {list(self.classes)}")
        if evidence.has_champion and theirs is None:
            return self.verdict(False, f"the champion's contract could not be read: {evidence.champion_error}", **found)
        if theirs is not None:
            broken += _inputs(mine["inputs"], theirs["inputs"], "the champion", taken)
            broken += [
                f"{name} is {mine[name]}, the champion's is {theirs[name]}"
                for name in ("task", "classes")
                if mine[name] != theirs[name]
            ]
        against = "the champion's clients" if theirs is not None else "there is no champion yet"
        reason = "; ".join(broken) or f"{len(mine['inputs'])} inputs, as before: {against}"
        if not broken and theirs is None:
            reason = f"{len(mine['inputs'])} inputs; {against}"
        return self.verdict(not broken, reason, broken=broken, inputs=mine["inputs"])


def _facts(contract: Contract) -> dict[str, Any]:
    looked_up = {name for lookup in contract.lookups for name in lookup.columns}
    types = {column.name: column.type for column in contract.inputs}
    return {
        "task": contract.task,
        "classes": list(contract.classes),
        "inputs": {name: kind for name, kind in types.items() if name not in looked_up},
        "looked_up": {name: kind for name, kind in types.items() if name in looked_up},
    }


def _inputs(needed: Mapping[str, str], sent: Mapping[str, str], by: str, taken: Collection[str]) -> list[str]:
    """Returns what is wrong with the inputs a model needs and those that may be sent, given what clients send."""
    new = [f"input {name} is not in what {by} has" for name in needed if name not in sent]
    other = [
        f"input {name} is {kind}, {sent[name]} in what {by} has"
        for name, kind in needed.items()
        if name in sent and _family(kind) != _family(sent[name])
    ]
    gone = [f"input {name}, which {by} has, is not taken any more" for name in sent if name not in taken]
    return new + other + gone


def _family(kind: str) -> str:
    return "number" if kind == "integer" else kind
