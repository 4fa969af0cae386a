from __future__ import annotations

import numpy as np
import pytest
from fairlearn import metrics as fairlearn
from pydantic import ValidationError

from airworthy.gates.fairness import Fairness
from judged_case import case, holdout, probability, verdict


def loans(seed: int = 0, *, against: float = 0.0, task="binary", small: int = 0):
    """Applicants of three origins, all alike; the model holds `against` those of JFK."""
    rows, block, rng = holdout(seed)
    if small:
        rows.loc[rng.permutation(len(rows))[:small], "origin"] = "SWF"
    truth = rng.normal(0, 1, len(rows)) + 0.3 * rng.normal(0, 1, 30)[block]
    signal = truth + rng.normal(0, 0.7, len(rows)) - against * (rows["origin"] == "JFK").to_numpy()
    if task == "regression":
        return case(rows, block, truth, signal, task=task)
    return case(rows, block, (truth > 0).astype(int), probability(signal))


@pytest.mark.parametrize(
    ("gate", "quantity"),
    [
        (Fairness(columns=("origin",), criterion="demographic_parity", difference=0.1), "selection_rate"),
        (Fairness(columns=("origin",), criterion="demographic_parity", ratio=0.8), "selection_rate"),
        (Fairness(columns=("origin",), difference=0.1), "true_positive_rate"),
        (Fairness(columns=("origin",), ratio=0.8), "true_positive_rate"),
        (Fairness(columns=("origin",), criterion="metric", metric="accuracy", difference=0.05), "accuracy"),
    ],
    ids=str,
)
def test_an_unfair_model_is_stopped_by_name_and_a_fair_one_passes(gate: Fairness, quantity: str) -> None:
    found = verdict(gate, loans(against=1.5))
    assert found.status == "failed" and found.blocks
    assert quantity in found.reason and "origin=JFK" in found.reason and "surely" in found.reason
    assert verdict(gate, loans()).passed


def test_a_number_is_judged_by_a_metric() -> None:
    gate = Fairness(columns=("origin",), criterion="metric", difference=0.3)
    assert "rmse" in verdict(gate, loans(against=1.5, task="regression")).reason
    assert verdict(gate, loans(task="regression")).passed
    by_rate = verdict(Fairness(columns=("origin",), difference=0.3), loans(task="regression"))
    assert by_rate.status == "error" and "criterion: metric" in by_rate.reason


def test_values_are_those_of_fairlearn() -> None:
    made = loans(against=0.5)
    chosen, label = made.evidence.challenger.prediction >= 0.5, made.evidence.label
    groups = {"sensitive_features": made.rows["origin"]}
    parity = verdict(Fairness(columns=("origin",), criterion="demographic_parity", difference=1), made)
    widest = parity.evidence["widest"]
    assert widest["difference"] == pytest.approx(fairlearn.demographic_parity_difference(label, chosen, **groups))
    assert widest["ratio"] == pytest.approx(fairlearn.demographic_parity_ratio(label, chosen, **groups))
    odds = verdict(Fairness(columns=("origin",), difference=1), made).evidence["widest"]
    assert odds["difference"] == pytest.approx(fairlearn.equalized_odds_difference(label, chosen, **groups))


def test_a_difference_that_may_be_luck_is_no_proof() -> None:
    gate = Fairness(columns=("origin",), criterion="demographic_parity", difference=0.0)
    found = verdict(gate, loans())
    assert found.passed and found.evidence["widest"]["difference"] > 0


def test_false_alarms_are_no_more_than_declared() -> None:
    """A model at the very limit (no difference at all, and none allowed) may be stopped once in twenty times."""
    gates = [Fairness(columns=("origin", "carrier"), criterion="demographic_parity", difference=0.0)]
    gates.append(Fairness(columns=("origin",), ratio=1.0))
    for gate in gates:
        stopped = sum(not verdict(gate, loans(seed)).passed for seed in range(60))
        assert stopped <= 8  # the 99th percentile of a binomial of 60 and 0.05


def test_a_group_of_few_rows_is_named_and_not_judged() -> None:
    found = verdict(Fairness(columns=("origin",), difference=0.1), loans(small=60))
    assert found.passed
    assert "too few rows or days to judge origin=SWF" in found.reason


def test_a_group_whose_positives_are_all_on_few_days_is_named() -> None:
    made = loans(against=1.5)
    jfk = (made.rows["origin"] == "JFK").to_numpy()
    label = np.where(jfk, 0, made.evidence.label)
    label[np.flatnonzero(jfk & (made.evidence.block < 3))] = 1
    made = case(made.rows, made.evidence.block, label, made.evidence.challenger.prediction)
    found = verdict(Fairness(columns=("origin",), difference=0.1), made)
    assert found.passed and "too few rows or days to judge origin=JFK" in found.reason
    parity = verdict(Fairness(columns=("origin",), criterion="demographic_parity", difference=0.1), made)
    assert parity.status == "failed" and "origin=JFK" in parity.reason
    absent = case(made.rows, made.evidence.block, np.where(jfk, 0, label), made.evidence.challenger.prediction)
    assert "judge origin=JFK" in verdict(Fairness(columns=("origin",), difference=0.1), absent).reason


def test_groups_that_cannot_be_compared_are_not_passed() -> None:
    missing = verdict(Fairness(columns=("sex",), difference=0.1), loans())
    assert missing.status == "error" and missing.blocks
    assert "sex" in missing.reason and "train.exclude" in missing.reason
    few = verdict(Fairness(columns=("origin",), difference=0.1, rows=5000), loans())
    assert few.status == "failed" and "does not have two groups" in few.reason


def test_numbers_are_compared_by_range_and_what_is_missing_is_a_group() -> None:
    made = loans()
    made.rows.loc[np.arange(len(made.rows)) % 5 == 0, "wind"] = np.nan
    found = verdict(Fairness(columns=("wind",), criterion="demographic_parity", difference=0.2), made)
    groups = list(found.evidence["columns"]["wind"])
    assert len(groups) == 5 and groups[-1] == "wind missing" and ".." in groups[0]


def test_a_limit_must_be_declared() -> None:
    with pytest.raises(ValidationError, match="must have a limit"):
        Fairness(columns=("origin",))
