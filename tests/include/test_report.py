"""The history of a pipeline: what each policy would have scored, and the page that shows it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from airworthy import report
from airworthy.config import Pipeline
from airworthy.errors import ServiceError
from airworthy.ledger import Ledger
from airworthy.lines import LINES, scores_by_month
from airworthy.metrics import score
from airworthy.model_files import load_model
from airworthy.registry import Challenger, Registry
from airworthy.resource_log import ResourceLog
from airworthy.resources import Usage
from airworthy.retrains import Retrains
from airworthy.stages.evaluate import evaluate, judge
from airworthy.store import Store
from serving_process import promote, trained
from toy_pipeline import Toy

MARCH, APRIL, MAY = (datetime(2013, month, 1, tzinfo=UTC) for month in (3, 4, 5))
GATES = [{"metric_floor": {"metric": "roc_auc", "floor": 0.5}}, "beats_champion"]
WEAK = {"xgboost": {"params": {"max_depth": 1, "n_estimators": 1}}}


@pytest.fixture
def pipeline(toy: Toy) -> Pipeline:
    found = toy.pipeline()
    toy.fill(found, toy.rows(days=150))
    return found


@pytest.fixture
def challengers(toy: Toy, pipeline: Pipeline) -> list[Challenger]:
    """A model as of March and of May, and a far weaker one as of April."""
    weak = trained(toy, toy.pipeline(model=WEAK), APRIL)
    toy.pipeline()
    return [trained(toy, pipeline, MARCH), weak, trained(toy, pipeline, MAY)]


def test_each_policy_is_scored_with_the_model_it_had_in_force(
    toy: Toy, pipeline: Pipeline, challengers: list[Challenger]
) -> None:
    scores = scores_by_month(pipeline, list(zip(challengers, (True, False, True), strict=True)), toy.profile)
    assert list(scores.columns) == ["month", "rows", *LINES]
    months = [f"{month:%Y-%m}" for month in scores["month"]]
    assert months == ["2013-03", "2013-04", "2013-05"]

    first, weak, last = challengers
    models = {"champion": (first, first, last), "blind retraining": (first, weak, last), "static": (first,) * 3}
    for policy, in_force in models.items():
        expected = [alone(toy, pipeline, model, month) for model, month in zip(in_force, months, strict=True)]
        assert scores[policy].tolist() == pytest.approx(expected)
    assert scores["champion"][1] > scores["blind retraining"][1]


def alone(toy: Toy, pipeline: Pipeline, challenger: Challenger, month: str) -> float:
    rows = Store(toy.profile.store_uri, pipeline.name).read("features")
    rows = rows[rows["time"].dt.strftime("%Y-%m") == month]
    files = Registry(toy.profile).download(challenger.model_id, toy.folder / "alone" / challenger.model_id / month)
    model = load_model(files, digest=challenger.digest, pipeline=pipeline)
    return score("binary", "roc_auc", rows["late"].to_numpy(), model.predict(rows))


def test_nothing_is_scored_before_a_first_promotion(
    toy: Toy, pipeline: Pipeline, challengers: list[Challenger]
) -> None:
    assert scores_by_month(pipeline, [(challengers[0], False)], toy.profile).empty


def test_nothing_is_scored_before_there_are_later_labels(toy: Toy, pipeline: Pipeline) -> None:
    newest = trained(toy, pipeline, datetime(2013, 6, 1, tzinfo=UTC))
    assert scores_by_month(pipeline, [(newest, True)], toy.profile).empty


def test_the_page_tells_every_training_run_and_verdict(toy: Toy, pipeline: Pipeline) -> None:
    Ledger(toy.profile.ledger_url).create()
    with pytest.raises(ServiceError, match="has no judged training run yet"):
        report.history(pipeline, toy.profile)
    gated = toy.pipeline(gates=GATES)
    entry = None
    for declared, as_of in ((gated, MARCH), (toy.pipeline(gates=GATES, model=WEAK), APRIL)):
        challenger = trained(toy, declared, as_of)
        judge(declared, challenger, evaluate(declared, challenger, entry, toy.profile), toy.profile)
        entry = entry or promote(toy, challenger)
    found = report.history(gated, toy.profile)
    assert [training.result for training in found.trainings] == ["promoted as version 1", "refused by beats_champion"]
    Retrains(toy.profile.ledger_url).began(toy.name, "person", datetime(2013, 4, 1, tzinfo=UTC), "the run of a person")
    for megabytes in (20, 20, 20, 90, 90, 90):
        ResourceLog(toy.profile.ledger_url).add(toy.name, "evaluate", "run", 1, "success", Usage(2, 1, megabytes, 500))
    page = report.publish(found, toy.profile).read_text()
    assert "evaluate: peak memory" in page and "peak_mb 20 to 90" in page
    assert "What asked for a retrain" in page and "the run of a person" in page
    assert "data:image/svg" in page and "below the margin" in page and "2013-04-01" in page
    assert Ledger(toy.profile.ledger_url).champion(toy.name) == entry
