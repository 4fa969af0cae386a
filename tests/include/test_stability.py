"""`stability` on what it gathers, and on real trainings that learn by heart or depend on their seed."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn.tree import DecisionTreeClassifier

from airworthy.evidence import Evidence, Scores
from airworthy.gates import gather_all, judge_all
from airworthy.gates.stability import Stability
from airworthy.metrics import score_all


def case(depth: int | None, rows: int = 400, trained_on: int = 400) -> SimpleNamespace:
    """Returns a case of a tree of that depth, on a label that one of five numbers tells three times of four.

    Fewer rows to learn from make it depend on its seed, which chooses them.
    """
    rng = np.random.default_rng(7)

    def frame(size: int) -> pd.DataFrame:
        made = pd.DataFrame(rng.normal(size=(size, 5)), columns=list("abcde"))
        return made.assign(late=(rng.random(size) < np.where(made["a"] > 0, 0.75, 0.25)).astype(int))

    window, holdout = frame(rows), frame(4000)

    def fitted(seed: int) -> DecisionTreeClassifier:
        chosen = window.sample(trained_on, random_state=seed)
        tree = DecisionTreeClassifier(max_depth=depth, random_state=seed, splitter="random")
        return tree.fit(chosen[list("abcde")], chosen["late"])

    def answers(seed: int, seen: pd.DataFrame) -> np.ndarray:
        return np.asarray(fitted(seed).predict_proba(seen[list("abcde")])[:, 1])

    label, prediction = holdout["late"].to_numpy(), answers(1, holdout)
    scores = Scores("", prediction, score_all("binary", label, prediction))
    return SimpleNamespace(
        pipeline=SimpleNamespace(label=SimpleNamespace(column="late")),
        imported=False,
        own=SimpleNamespace(
            contract=SimpleNamespace(task="binary", classes=("0", "1"), seed=1),
            predict=lambda seen: answers(1, seen),
        ),
        evidence=Evidence("binary", "roc_auc", label, np.arange(len(label)) // 100, scores, False),
        window=lambda: window,
        refit=lambda seed: answers(seed, holdout),
    )


def verdict(gate: Stability, of: SimpleNamespace):
    return judge_all([gate], gather_all([gate], of))[0]


def test_a_model_that_learnt_what_is_there_passes() -> None:
    found = verdict(Stability(spread=0.2), case(depth=3, rows=20_000, trained_on=20_000))
    assert found.passed
    assert abs(found.evidence["gap"]) < 0.05
    assert found.evidence["seeds"] == 3


def test_a_model_that_learnt_its_rows_by_heart_is_stopped_by_name() -> None:
    found = verdict(Stability(spread=1.0), case(depth=None))
    assert (found.gate, found.status) == ("stability", "failed")
    assert found.evidence["window"] == 1.0
    assert "worse than on the training rows" in found.reason and "where 30.0% worse is allowed" in found.reason


def test_a_model_that_depends_on_its_seed_is_stopped() -> None:
    found = verdict(Stability(gap=1.0, spread=0.02, seeds=4), case(depth=3, trained_on=25))
    assert found.status == "failed"
    assert found.evidence["seeds"] == 5
    assert "apart over 5 seeds, where 2.00% apart is allowed" in found.reason


def test_without_seeds_nothing_is_trained_again() -> None:
    made = case(depth=3)
    made.refit = None
    found = verdict(Stability(seeds=0), made)
    assert found.evidence["seeds"] == 1
    assert "seeds" not in found.reason


def test_lower_is_better_where_it_is() -> None:
    found = verdict(Stability(metric="log_loss", seeds=0), case(depth=None))
    assert found.status == "failed"
    assert found.evidence["gap"] == pytest.approx(1.0, abs=1e-3)


def test_a_training_that_fails_is_an_error() -> None:
    made = case(depth=3)
    made.refit = lambda seed: 1 / 0
    assert verdict(Stability(), made).status == "error"
