"""The search: the same trials whatever happens on the way, pruning, warm start, limits."""

from __future__ import annotations

import json
import logging
import threading
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient
from optuna.distributions import IntDistribution

from airworthy.config import Pipeline
from airworthy.encoding import Encoder, describe_features, encode_label
from airworthy.errors import Problems, ServiceError, TrainError
from airworthy.features import compute_features
from airworthy.models import Matrix
from airworthy.models.xgboost import Xgboost
from airworthy.registry import Registry
from airworthy.searches import BEST, WARM, Found, Trial, begun_with
from airworthy.stages import study as study_module
from airworthy.stages import tuning
from airworthy.stages.study import Study, study_name
from airworthy.stages.train import train, training_key
from airworthy.stages.tuning import Search, choose, search
from airworthy.tune import Limits
from toy_pipeline import Toy

SPACE = {
    "max_depth": {"int": [1, 6]},
    "eta": {"float": [0.001, 0.9], "log": True},
    "max_bin": {"choice": [16, 64]},
}


def declared(toy: Toy, threads: int = 1, **tune: Any) -> Pipeline:
    return toy.pipeline(tune={"trials": 12, "space": SPACE, **tune}, train={"holdout": "1 month", "threads": threads})


def data(toy: Toy, pipeline: Pipeline) -> tuple[Matrix, np.ndarray, np.ndarray]:
    rows = toy.rows()
    features = compute_features(pipeline, rows)
    label = encode_label("binary", ("False", "True"), rows["late"])
    return Encoder(describe_features(features))(features), label, rows["time"].astype("int64").to_numpy()


def searched(toy: Toy, pipeline: Pipeline, study: Study | None = None) -> Search:
    return search(pipeline, *data(toy, pipeline), 2, study=study)


def came_to(found: Search) -> list[tuple[Any, ...]]:
    """What must be the same in every attempt: all but times."""
    return [(trial.number, trial.params, trial.value, trial.reports, trial.size_mb) for trial in found.trials]


class CutOff(Exception):
    """Stands for whatever ends a process."""


class CutOffStudy(Study):
    """Ends the search after some trials are on record."""

    after = 0

    def keep(self, trial: Trial, distributions: Any) -> None:
        if len(self._recorded) == self.after:
            raise CutOff
        super().keep(trial, distributions)


@pytest.mark.parametrize("threads", [1, 3])
def test_the_same_rows_give_the_same_trials(toy: Toy, threads: int) -> None:
    pipeline = declared(toy, threads)
    first, second = searched(toy, pipeline), searched(toy, pipeline)
    assert came_to(first) == came_to(second) and len(first.trials) == 12
    assert first.best == second.best == max(first.trials, key=lambda trial: trial.value or 0).params
    assert first.importance == second.importance and sum(first.importance.values()) == pytest.approx(1)


def test_trials_run_at_once_and_share_the_threads(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[int] = []
    meeting = threading.Barrier(2)
    fit = Xgboost.fit

    def meet(self: Xgboost, *arguments: Any, **options: Any) -> Any:
        used.append(options["threads"])
        meeting.wait(timeout=60)  # breaks unless the other trial of the batch is being fitted too
        return fit(self, *arguments, **options)

    monkeypatch.setattr(Xgboost, "fit", meet)
    assert len(searched(toy, declared(toy, 2, trials=4)).trials) == 4
    assert used == [1] * 4
    used.clear()
    assert len(searched(toy, declared(toy, 4, trials=4, parallel=2)).trials) == 4
    assert used == [2] * 4


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("after", [0, 1, 5, 11])
def test_a_search_that_was_cut_off_comes_to_the_same_end(toy: Toy, threads: int, after: int) -> None:
    pipeline, url = declared(toy, threads), f"sqlite:///{toy.folder}/tuning.db"
    whole = searched(toy, pipeline)
    cut_off = CutOffStudy("one", url)
    cut_off.after = after
    with pytest.raises(CutOff):
        searched(toy, pipeline, cut_off)
    kept = Study("one", url)
    first = dict(kept._recorded)
    assert sorted(first) == list(range(after))
    resumed = searched(toy, pipeline, kept)
    assert came_to(resumed) == came_to(whole) and resumed.best == whole.best
    assert [trial for trial in resumed.trials if trial.number < after] == list(first.values())  # not fitted again
    assert searched(toy, pipeline, Study("one", url)).trials == resumed.trials


def test_trials_of_other_draws_are_not_taken_over(toy: Toy) -> None:
    url = f"sqlite:///{toy.folder}/tuning.db"
    searched(toy, declared(toy, trials=3), Study("one", url))
    other = toy.pipeline(tune={"trials": 3, "space": SPACE}, train={"holdout": "1 month", "seed": 1})
    assert came_to(searched(toy, other, Study("one", url))) == came_to(searched(toy, other))


@pytest.mark.parametrize("threads", [1, 2])
def test_pruning_compares_with_the_median_of_earlier_batches(toy: Toy, threads: int) -> None:
    pipeline = declared(toy, threads, trials=24)
    found = searched(toy, pipeline)
    stopped = [trial for trial in found.trials if trial.value is None]
    assert len(stopped) in range(1, 20)
    for trial in found.trials:
        before = trial.number // threads * threads
        finished = [other for other in found.trials[:before] if other.value is not None]
        for percent in trial.reports:
            best = max(value for other, value in trial.reports.items() if other <= percent)
            worse = len(finished) >= 4 and best < median([other.reports[percent] for other in finished])
            assert worse == (trial.value is None and percent == max(trial.reports))
    assert all(trial.latency_ms is None and trial.size_mb is None for trial in stopped)
    whole = searched(toy, declared(toy, threads, trials=24, prune=False))
    assert all(trial.value is not None and not trial.reports for trial in whole.trials)
    assert searched(toy, declared(toy, threads, trials=4)).trials[0].params == whole.trials[0].params


def test_threads_that_share_rows_train_the_models_of_one_thread(toy: Toy) -> None:
    pipeline = declared(toy)
    matrix, label, _ = data(toy, pipeline)
    model = Xgboost(params={"n_estimators": 30})
    drawn = [{"max_depth": depth, "max_bin": bins} for depth in range(1, 6) for bins in (16, 24, 32, 64, 128, 256)]

    def fitted(prepared: Any, params: dict[str, Any]) -> np.ndarray:
        return model.fit("binary", 2, prepared, params, seed=1, threads=1).predict(matrix.values)

    alone = [fitted(model.prepare(matrix, label, threads=1), params) for params in drawn]
    shared = model.prepare(matrix, label, threads=1)
    answers: dict[int, np.ndarray] = {}
    start = threading.Barrier(len(drawn))

    def run(number: int) -> None:
        start.wait(timeout=60)
        answers[number] = fitted(shared, drawn[number])

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(drawn))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all((answers[number] == expected).all() for number, expected in enumerate(alone))


def test_a_misspelt_parameter_is_refused_in_every_thread(toy: Toy) -> None:
    space = {"max_dpeth": {"int": [1, 6]}}
    with pytest.raises(TrainError, match=r"must have only parameters that XGBoost uses\. Got 'max_dpeth'"):
        searched(toy, declared(toy, 3, space=space))


def test_the_timeout_counts_what_earlier_attempts_used(toy: Toy) -> None:
    url = f"sqlite:///{toy.folder}/tuning.db"
    pipeline = declared(toy, trials=5, timeout=100)
    one = searched(toy, pipeline, Study("one", url)).trials[0]
    kept = Study("one", url)
    kept._recorded = {
        0: one.model_copy(update={"seconds": 99.0}),
        1: kept._recorded[1].model_copy(update={"seconds": 2.0}),
    }
    assert len(searched(toy, pipeline, kept).trials) == 2


def trial(number: int, value: float | None, latency: float, size: float) -> Trial:
    return Trial(number=number, params={"a": number}, value=value, seconds=1, latency_ms=latency, size_mb=size)


def test_the_best_trial_within_the_limits_is_chosen(toy: Toy) -> None:
    trials = [trial(0, 0.7, 1, 1), trial(1, 0.8, 3, 2), trial(2, 0.9, 5, 9), trial(3, 0.8, 1, 9)]

    def best(**limits: float) -> int:
        return choose(declared(toy, limits=limits), trials).number

    assert (best(), best(latency_ms=4), best(size_mb=2), best(latency_ms=2, size_mb=2)) == (2, 1, 1, 0)
    with pytest.raises(
        TrainError, match=r"tune.limits: must be kept by a trial: 0.5 ms and 1 MB. Got 'at best 1.00 ms"
    ):
        best(latency_ms=0.5, size_mb=1)
    regression = toy.pipeline(label={"column": "late", "task": "regression"}, tune={"space": SPACE})
    assert choose(regression, trials).number == 0


def test_trials_say_what_their_models_cost(toy: Toy) -> None:
    found = searched(toy, declared(toy, trials=4, space={"n_estimators": {"choice": [5, 400]}}, prune=False))
    size = {trial.params["n_estimators"]: trial.size_mb for trial in found.trials}
    assert len(size) == 2 and size[400] > 10 * size[5] > 0
    assert all((trial.latency_ms or 0) > 0 for trial in found.trials)


def test_a_trial_worth_infinity_is_on_record_as_that(tmp_path: Path) -> None:
    kept = trial(0, float("inf"), 1, 1).model_copy(update={"reports": {50: float("-inf")}})
    url = f"sqlite:///{tmp_path}/study.db"
    Study("a", url).keep(kept, {"a": IntDistribution(0, 1)})
    assert Study("a", url).find(0, {"a": 0}) == kept


def test_a_trial_worth_no_number_is_refused_with_its_parameters(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "score", lambda *_: float("nan"))
    with pytest.raises(TrainError, match=r"tune: must find a number for roc_auc\. Got 'nan for .*max_depth=\d"):
        searched(toy, declared(toy, trials=1, prune=False))


def test_names_of_studies_tell_trainings_apart(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    as_of = datetime(2013, 4, 1, tzinfo=UTC)
    keys = [training_key(declared(toy, trials=trials), as_of, rows) for trials in (3, 4) for rows in ("a", "b")]
    names = {study_name(name, key) for name in ("one", "two") for key in keys}
    assert len(names) == 8 and study_name("one", keys[0]) in names
    monkeypatch.setattr(study_module, "environment", lambda: {"xgboost": "99"})
    assert study_name("one", keys[0]) not in names


def test_a_database_that_is_down_is_named_without_its_password() -> None:
    with pytest.raises(
        ServiceError, match=r"tuning database at postgresql\+psycopg2://me:\*\*\*@127.0.0.1:1/t.*answer"
    ):
        Study("one", "postgresql+psycopg2://me:secret@127.0.0.1:1/t")


def as_of(month: int) -> datetime:
    return datetime(2013, month, 1, tzinfo=UTC)


def test_a_search_begins_with_what_an_earlier_date_found_and_never_a_later_one(toy: Toy) -> None:
    pipeline = declared(toy, trials=3)
    toy.fill(pipeline, toy.rows(160))
    client = MlflowClient(toy.mlflow_uri)

    def tags(pipeline: Pipeline, month: int) -> dict[str, str]:
        return dict(client.get_run(train(pipeline, as_of(month), toy.profile).run_id).data.tags)

    def first_trial(run_tags: dict[str, str]) -> dict[str, Any]:
        run = client.search_runs([experiment], f"tags.training_key = '{run_tags['training_key']}'")[0]
        table = Registry(toy.profile).load_json(run.info.run_id, "trials.json")
        return {name: table["data"][0][table["columns"].index(name)] for name in SPACE}

    may = tags(pipeline, 5)
    experiment = client.get_experiment_by_name(pipeline.name).experiment_id
    march = tags(pipeline, 3)
    assert WARM not in may and WARM not in march  # there was nothing earlier, and later ones do not count
    april = tags(pipeline, 4)
    begun = begun_with(april)
    assert begun is not None and begun.as_of == as_of(3) and begun.params == first_trial(april)
    assert begun.params == json.loads(march[BEST])
    assert begun_with(tags(pipeline, 6)).as_of == as_of(5)
    other = {**SPACE, "max_depth": {"int": [1, 5]}}
    assert WARM not in tags(declared(toy, trials=3, space=other), 6)
    assert WARM not in tags(declared(toy, trials=3, warm_start=False), 6)
    again = train(pipeline, as_of(3), toy.profile)
    assert again.reused and dict(client.get_run(again.run_id).data.tags) == march


def test_an_attempt_begins_with_what_the_one_before_it_began_with(toy: Toy) -> None:
    url = f"sqlite:///{toy.folder}/tuning.db"
    warm = Found(run_id="r", as_of=as_of(1), params={"max_depth": 2, "eta": 0.125, "max_bin": 16})
    pipeline = declared(toy, trials=3)
    first = searched(toy, pipeline, Study("one", url, warm))
    assert first.trials[0].params == warm.params and first.warm == warm
    later = warm.model_copy(update={"run_id": "later", "params": {**warm.params, "max_depth": 5}})
    assert searched(toy, pipeline, Study("one", url, later)) == first
    assert Study("two", url, later).warm == later


def test_every_retrain_draws_trials_of_its_own(toy: Toy) -> None:
    pipeline = declared(toy, trials=3)
    params = {"max_depth": 2, "eta": 0.125, "max_bin": 16}
    months = [searched(toy, pipeline, Study(warm=Found(run_id="r", as_of=as_of(m), params=params))) for m in (1, 2)]
    drawn = [json.dumps(trial.params) for month in months for trial in month.trials[1:]]
    assert len(set(drawn)) == 4


def test_a_failed_search_leaves_a_failed_run(toy: Toy, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    pipeline = declared(toy, trials=2, limits={"size_mb": 1e-9})
    toy.fill(pipeline, toy.rows())
    with pytest.raises(TrainError, match="must be kept by a trial: 1e-09 MB"):
        train(pipeline, as_of(4), toy.profile)
    client = MlflowClient(toy.mlflow_uri)
    (run,) = client.search_runs([client.get_experiment_by_name(pipeline.name).experiment_id])
    assert run.info.status == "FAILED" and run.data.metrics["best_roc_auc"] > 0.5
    assert [line for line in caplog.messages if line.startswith("trial 2 of 2: roc_auc 0.") and "best 0." in line]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tune": {"parallel": 2}}, "tune.parallel must be at most train.threads, 1, because"),
        ({"tune": {"limits": {"latency_ms": 1}}}, "tune.space must have a space to choose from"),
        ({"tune": {"limits": {"size_mb": 0}, "space": SPACE}}, "tune.limits.size_mb must be more than 0"),
        ({"train": {"weight": "late"}}, "train.weight must be a column of features.*never learns from a label column"),
        ({"train": {"exclude": ["wind", "day"]}}, r"train.exclude\[1\] must be .*never learns from a key column"),
        ({"train": {"exclude": ["name"]}, "pii": ["name"]}, r"train.exclude\[0\] must be .* a personal column"),
        (
            {"train": {"imbalance": "balanced"}, "label": {"column": "delay", "task": "regression"}},
            "train.imbalance must be none for a regression label",
        ),
    ],
)
def test_what_cannot_be_is_refused(toy: Toy, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(Problems, match=message):
        toy.pipeline(**changes)


def test_a_limits_says_what_it_limits() -> None:
    assert (str(Limits(latency_ms=5, size_mb=0.5)), bool(Limits())) == ("5 ms and 0.5 MB", False)
