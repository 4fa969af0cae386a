"""The error budget: no period draws more than it has, whatever the order of looks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from dateutil.relativedelta import relativedelta

from airworthy.budget import Budget, KeptBudget, Look, ReplayBudget, Spending, run, show
from airworthy.errors import ConfigError, ServiceError
from airworthy.gates import gather_all, judge_all
from airworthy.gates.beats_champion import BeatsChampion
from test_gates import flights

START = datetime(2013, 1, 1, tzinfo=UTC)
YEAR = Spending(budget=0.1, period=relativedelta(months=12), share=0.05)


def look(number: int, as_of: datetime = START, champion: str = "1", gate: str = "{}", pipeline: str = "p") -> Look:
    return Look(pipeline=pipeline, as_of=as_of, run_id=f"run-{number}", champion=champion, gate=gate)


@pytest.fixture(params=["kept", "replay"])
def budget(request: pytest.FixtureRequest, tmp_path: Path) -> Budget:
    return KeptBudget(f"sqlite:///{tmp_path}/ledger.db") if request.param == "kept" else ReplayBudget()


def test_each_look_draws_its_share_of_what_is_left(budget: Budget) -> None:
    drawn = [budget.draw(look(number), YEAR) for number in range(3)]
    assert [draw.sequence for draw in drawn] == [1, 2, 3]
    assert [draw.alpha for draw in drawn] == pytest.approx([0.005, 0.00475, 0.0045125])
    assert [draw.left for draw in drawn] == pytest.approx([0.095, 0.09025, 0.0857375])
    assert budget.draws("p") == drawn


def test_judged_again_nothing_new_is_drawn(budget: Budget) -> None:
    first = budget.draw(look(1), YEAR)
    budget.draw(look(2), YEAR)
    assert budget.draw(look(1), YEAR) == first
    assert len(budget.draws("p")) == 2


@pytest.mark.parametrize("changes", [{"champion": "2"}, {"gate": '{"metric": "log_loss"}'}, {"number": 2}])
def test_another_comparison_draws_again(budget: Budget, changes: dict) -> None:
    first = budget.draw(look(1), YEAR)
    assert budget.draw(look(**{"number": 1} | changes), YEAR).alpha < first.alpha


def test_pipelines_have_budgets_of_their_own(budget: Budget) -> None:
    budget.draw(look(1), YEAR)
    assert budget.draw(look(1, pipeline="q"), YEAR).alpha == pytest.approx(0.005)


def test_what_was_drawn_is_there_again_after_the_period(budget: Budget) -> None:
    budget.draw(look(1), YEAR)
    assert budget.draw(look(2, START + timedelta(days=364)), YEAR).alpha < 0.005
    assert budget.draw(look(3, START + timedelta(days=3 * 365)), YEAR).alpha == pytest.approx(0.005)


def test_a_look_at_an_earlier_moment_falls_into_later_periods(budget: Budget) -> None:
    budget.draw(look(1, START + timedelta(days=30)), YEAR)
    assert budget.draw(look(2, START), YEAR).alpha == pytest.approx(0.05 * 0.095)


@pytest.mark.parametrize("order", ["forward", "backward", "shuffled"])
@pytest.mark.parametrize("share", [0.05, 0.9])
def test_no_period_ever_draws_more_than_the_budget(order: str, share: float) -> None:
    moments = [START + timedelta(days=3 * number) for number in range(400)]
    if order == "backward":
        moments.reverse()
    if order == "shuffled":
        np.random.default_rng(1).shuffle(moments)
    budget, spending = ReplayBudget(), YEAR.model_copy(update={"share": share})
    for number, moment in enumerate(moments):
        budget.draw(look(number, moment), spending)
    draws = budget.draws("p")
    years = [(end - relativedelta(months=12), end) for end in moments]
    most = max(sum(draw.alpha for draw in draws if start < draw.as_of <= end) for start, end in years)
    assert 0.05 < most <= 0.1
    assert min(draw.alpha for draw in draws) >= 0


def test_a_budget_that_was_lowered_below_what_was_drawn_has_nothing_left(budget: Budget) -> None:
    for number in range(10):
        budget.draw(look(number), YEAR)
    lower = YEAR.model_copy(update={"budget": 0.01})
    drawn = budget.draw(look(11), lower)
    assert (drawn.alpha, drawn.left) == (0.0, 0.0)


def test_a_database_that_does_not_answer_is_named() -> None:
    where = r"error budget at postgresql\+psycopg2://somebody:\*\*\*@127.0.0.1:1/x"
    with pytest.raises(ServiceError, match=f"{where}: must answer"):
        KeptBudget("postgresql+psycopg2://somebody:secret@127.0.0.1:1/x").draw(look(1), YEAR)


def case(budget: Budget, better_by: float = 0.5, champion: bool = True, run_id: str = "run-1") -> SimpleNamespace:
    evidence = flights(better_by=better_by)
    if not champion:
        evidence = SimpleNamespace(**vars(evidence) | {"champion": None, "has_champion": False})
    return SimpleNamespace(
        pipeline=SimpleNamespace(name="p"),
        challenger=SimpleNamespace(run_id=run_id, as_of=START),
        evidence=flights(better_by=better_by) if champion else evidence,
        budget=budget,
    )


def test_the_alpha_drawn_is_the_level_of_the_test(budget: Budget) -> None:
    gate = BeatsChampion()
    evidence = gather_all([gate], case(budget))
    (verdict,) = judge_all([gate], evidence)
    assert verdict.passed
    assert verdict.evidence["alpha"] == pytest.approx(0.005)
    assert verdict.evidence["look"] == 1
    assert " at 99.5 % is above the margin 0" in verdict.reason
    alone = BeatsChampion(confidence=0.995).judge(evidence)
    assert verdict.evidence["lower"] == pytest.approx(alone.evidence["lower"])
    assert gather_all([gate], case(budget)).gathered == evidence.gathered


def test_without_a_champion_nothing_is_drawn(budget: Budget) -> None:
    assert BeatsChampion().gather(case(budget, champion=False)) == {}
    assert BeatsChampion(confidence=0.9).gather(case(budget)) == {}
    assert budget.draws("p") == []


def test_another_leading_metric_is_another_look(budget: Budget) -> None:
    leads = {"roc_auc": case(budget), "log_loss": case(budget)}
    leads["log_loss"].evidence = replace(leads["log_loss"].evidence, metric="log_loss")
    looks = [BeatsChampion().gather(made)["look"] for made in (*leads.values(), *leads.values())]
    assert looks == [1, 2, 1, 2]
    assert BeatsChampion(metric="roc_auc").gather(leads["log_loss"])["look"] == 1


def test_when_nothing_is_left_nothing_passes(budget: Budget) -> None:
    spent = Spending(budget=0.5, period=relativedelta(months=12), share=0.5)
    for number in range(4):
        budget.draw(look(number), spent)
    gate = BeatsChampion(error_budget=0.1)
    (verdict,) = judge_all([gate], gather_all([gate], case(budget)))
    assert verdict.status == "failed"
    assert "cannot be tested, as nothing is left of the error budget" in verdict.reason


def test_a_judgement_without_its_draw_is_an_error() -> None:
    (verdict,) = judge_all([BeatsChampion()], flights(better_by=0.5))
    assert (verdict.status, verdict.blocks) == ("error", True)


def test_the_command_tells_what_is_left_at_a_moment(tmp_path: Path) -> None:
    url, lines = f"sqlite:///{tmp_path}/ledger.db", []
    pipeline = SimpleNamespace(name="p", gates=(BeatsChampion(),))
    KeptBudget(url).draw(look(1), YEAR)
    say: Callable[[str], None] = lines.append
    services = ("MLFLOW_TRACKING_URI", "AIRWORTHY_SERVING_URL", "AIRWORTHY_AIRFLOW_URL")
    environment = dict.fromkeys(services, "http://127.0.0.1:1") | {"AIRWORTHY_LEDGER_URL": url}
    run(pipeline, environment, "2013-06-01", say)
    assert lines[-1].startswith("0.09500 of 0.1 is left as of 2013-06-01")
    with pytest.raises(ConfigError, match=r"p: gates: must hold a beats_champion with an error_budget"):
        run(SimpleNamespace(name="p", gates=(BeatsChampion(confidence=0.9),)), {}, "", say)
    with pytest.raises(ConfigError, match=r"--as-of: must be a date.*Got 'soon'"):
        run(pipeline, environment, "soon", say)


def test_what_was_drawn_is_shown() -> None:
    budget, lines = ReplayBudget(), []
    budget.draw(look(1), YEAR)
    say: Callable[[str], None] = lines.append
    show(budget.draws("p"), YEAR, START, say)
    assert lines == [
        "2013-01-01  0.00500  left 0.09500  run run-1 against version 1",
        "0.09500 of 0.1 is left as of 2013-01-01; the next look draws 0.00475",
    ]


def test_the_gate_is_light_to_declare() -> None:
    assert BeatsChampion().error_budget == 0.1
    assert BeatsChampion(confidence=0.9).error_budget is None
    again = BeatsChampion.model_validate(BeatsChampion(confidence=0.9).model_dump(mode="json"))
    assert again == BeatsChampion(confidence=0.9)
