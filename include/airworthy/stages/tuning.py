"""The declared search: Optuna draws parameters, judged on the last part of the training window."""

from __future__ import annotations

import logging
import time
from typing import Any, Literal

import numpy as np
import optuna

from airworthy.config import Choice, FloatRange, IntRange, Pipeline
from airworthy.errors import TrainError
from airworthy.evidence import LOWER_IS_BETTER, Metric
from airworthy.metrics import score
from airworthy.models import Matrix

log = logging.getLogger(__name__)

_JUDGED_SHARE = 0.25  # of the window's time


def search(
    pipeline: Pipeline, matrix: Matrix, label: np.ndarray, moment: np.ndarray, classes: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Returns the best parameters drawn from `tune.space`, and a row per trial; nothing is drawn from an empty space.

    A trial learns on the first three quarters of the window's time and is scored on the rest, so it is
    chosen for what comes later. Method: the tree-structured Parzen estimator (Bergstra et al., Algorithms
    for Hyper-Parameter Optimization, NeurIPS 2011), seeded: the same rows give the same draws.

    Args:
        pipeline: Declares model, space, budget, metric and seed.
        matrix: The window's features, shape (n, features).
        label: Shape (n,).
        moment: Shape (n,): the rows' times.
        classes: How many classes the label has.

    Raises:
        TrainError: The window's rows are all of one time, or a part of it holds one class only.
    """
    tune, seed, task, metric = pipeline.tune, pipeline.train.seed, pipeline.label.task, pipeline.metric
    if not tune.space:
        return {}, []
    later = moment >= moment.max() - (moment.max() - moment.min()) * _JUDGED_SHARE
    if later.all():
        raise TrainError(f"{pipeline.name}: tune", "must have rows of more than one time in the window")
    threads = pipeline.train.threads
    prepared = pipeline.model.prepare(matrix.rows(~later), label[~later], threads=threads)
    judged, truth = matrix.values[later], label[later]
    trials: list[dict[str, Any]] = []

    def objective(trial: optuna.Trial) -> float:
        params = {name: _draw(trial, name, choice) for name, choice in sorted(tune.space.items())}
        started = time.perf_counter()
        fitted = pipeline.model.fit(task, classes, prepared, params, seed=seed, threads=threads)
        value = score(task, metric, truth, fitted.predict(judged))
        seconds = time.perf_counter() - started
        trials.append({"trial": trial.number, "value": value, "seconds": round(seconds, 3), **params})
        drawn = ", ".join(f"{name}={_short(value)}" for name, value in params.items())
        log.info("trial %d of %d: %s %.4f in %.1f s (%s)", trial.number + 1, tune.trials, metric, value, seconds, drawn)
        return value

    study = _study(metric, seed)
    study.optimize(objective, n_trials=tune.trials, timeout=tune.timeout)
    return dict(study.best_params), trials


def _study(metric: Metric, seed: int) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # the trials are logged here, with what a person wants to see
    direction: Literal["minimize", "maximize"] = "minimize" if metric in LOWER_IS_BETTER else "maximize"
    return optuna.create_study(direction=direction, sampler=optuna.samplers.TPESampler(seed=seed))


def _draw(trial: optuna.Trial, name: str, choice: IntRange | FloatRange | Choice) -> Any:
    if isinstance(choice, IntRange):
        return trial.suggest_int(name, *choice.int, log=choice.log)
    if isinstance(choice, FloatRange):
        return trial.suggest_float(name, *choice.float, log=choice.log)
    return trial.suggest_categorical(name, choice.choice)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
