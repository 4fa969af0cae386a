from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from airworthy.encoding import Input
from airworthy.gates.signature import Signature
from airworthy.model_files import Lookup
from judged_case import case, holdout, verdict

INPUTS = {"carrier": "string", "distance": "integer", "temp": "number"}


def contract(inputs: dict[str, Any] = INPUTS, *, looked_up: tuple[str, ...] = (), **changes: Any) -> Any:
    columns = tuple(Input(name=name, type=kind) for name, kind in inputs.items())
    lookups = (Lookup(view="weather", key=("carrier",), columns=looked_up, max_age=None),) if looked_up else ()
    return SimpleNamespace(
        **{"task": "binary", "classes": ("0", "1"), "inputs": columns, "lookups": lookups, **changes}
    )


def judged(gate: Signature, mine: Any, theirs: Any = None, set_aside: tuple[str, ...] = ()):
    rows, block, rng = holdout(0, days=3, rows_a_day=20)
    answers = rng.random(len(rows))
    made = case(rows, block, rng.integers(0, 2, len(rows)), answers, None if theirs is None else answers)
    made.own = SimpleNamespace(contract=mine)
    made.pipeline.set_aside = frozenset(set_aside)
    made.theirs = None if theirs is None else SimpleNamespace(contract=theirs)
    return verdict(gate, made)


@pytest.mark.parametrize(
    ("mine", "words"),
    [
        (contract({**INPUTS, "gust": "number"}), "input gust is not in what the champion has"),
        (contract({"temp": "number", "carrier": "string"}), "input distance, which the champion has, is not taken any"),
        (contract({**INPUTS, "temp": "string"}), "input temp is string, number in what the champion has"),
        (contract(classes=("late", "on time")), "classes is ['late', 'on time'], the champion's is ['0', '1']"),
        (contract(classes=("1", "0")), "classes is ['1', '0'], the champion's is ['0', '1']"),
        (contract(task="regression", classes=()), "task is regression, the champion's is binary"),
    ],
)
def test_what_a_client_would_have_to_change_is_named(mine: Any, words: str) -> None:
    found = judged(Signature(), mine, contract())
    assert found.status == "failed" and found.blocks
    assert words in found.reason


@pytest.mark.parametrize(
    "mine",
    [
        contract(),
        contract({"temp": "number", "distance": "integer", "carrier": "string"}),
        contract({**INPUTS, "distance": "number", "temp": "integer"}),
        contract({**INPUTS, "gust": "number"}, looked_up=("gust",)),
    ],
    ids=["the same", "in another order", "integers and numbers", "a new one that serving looks up"],
)
def test_what_a_client_need_not_know_passes(mine: Any) -> None:
    assert judged(Signature(), mine, contract()).passed


def test_an_input_that_serving_no_longer_looks_up_is_newly_required() -> None:
    looked_up = contract({**INPUTS, "gust": "number"}, looked_up=("gust",))
    found = judged(Signature(), contract({**INPUTS, "gust": "number"}), looked_up)
    assert "input gust is not in what the champion has" in found.reason


def test_an_input_that_is_set_aside_may_still_be_sent() -> None:
    fewer = contract({"temp": "number", "carrier": "string"})
    assert judged(Signature(), fewer, contract(), ("distance",)).passed
    assert judged(Signature(inputs=INPUTS), fewer, None, ("distance",)).passed
    assert "input distance, which the declared list has, is not taken" in judged(Signature(inputs=INPUTS), fewer).reason


def test_a_first_challenger_passes_unless_a_list_is_declared() -> None:
    assert judged(Signature(), contract()).passed
    assert judged(Signature(inputs=INPUTS, classes=("0", "1")), contract()).passed
    found = judged(Signature(inputs={"carrier": "string", "temp": "string"}, classes=("no", "yes")), contract())
    assert found.status == "failed"
    assert "input distance is not in what the declared list has" in found.reason
    assert "input temp is number, string in what the declared list has" in found.reason
    assert "classes are ['0', '1'], declared are ['no', 'yes']" in found.reason


def test_a_champion_whose_contract_cannot_be_read_is_not_passed() -> None:
    rows, block, rng = holdout(0, days=3, rows_a_day=20)
    made = case(rows, block, rng.integers(0, 2, len(rows)), np.full(len(rows), 0.5))
    made.evidence = replace(made.evidence, has_champion=True, champion_error="its file is damaged")
    made.own, made.theirs = SimpleNamespace(contract=contract()), None
    found = verdict(Signature(), made)
    assert found.status == "failed" and "its file is damaged" in found.reason
