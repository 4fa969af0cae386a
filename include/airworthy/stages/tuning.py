"""The declared search: Optuna draws parameters, judged on the last part of the training window."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from airworthy.config import Pipeline
from airworthy.errors import TrainError
from airworthy.evidence import LOWER_IS_BETTER
from airworthy.metrics import score
from airworthy.models import Fitted, Matrix
from airworthy.resources import Meter, Usage
from airworthy.searches import Found, Trial
from airworthy.stages.study import Study, direction
from airworthy.tune import Choice, FloatRange, IntRange

log = logging.getLogger(__name__)

_JUDGED_SHARE = 0.25  # of the window's time
_BEFORE_PRUNING = 4  # trials, before one is compared with their median
_EXPLAINED = 4  # trials, before the parameters' importance means something
_TIMED = (5, 30)  # predictions for one row, at least and at most
_TIMED_FOR = 0.1  # seconds, beyond the least number of predictions


@dataclass(frozen=True)
class Search:
    """What a search came to.

    Attributes:
        best: The chosen trial's parameters; {} if nothing was searched.
        trials: In order of drawing.
        importance: How much of the differences between trials each parameter makes, in sum 1; {} for few trials.
        warm: What it began with.
    """

    best: dict[str, Any]
    trials: tuple[Trial, ...] = ()
    importance: dict[str, float] = field(default_factory=dict)
    warm: Found | None = None


@dataclass(frozen=True)
class Rows:
    """What trials learn on and what they are judged on.

    Attributes:
        prepared: As the model's `prepare` returned it.
        judged: The features of later rows, shape (n, features).
        truth: Their label, shape (n,).
    """

    prepared: Any
    judged: np.ndarray
    truth: np.ndarray
    classes: int


def search(
    pipeline: Pipeline,
    matrix: Matrix,
    label: np.ndarray,
    moment: np.ndarray,
    classes: int,
    *,
    weight: np.ndarray | None = None,
    study: Study | None = None,
    tell: Callable[[Trial], None] = lambda _: None,
) -> Search:
    """Returns the best parameters drawn from `tune.space`, and every trial; nothing is drawn from an empty space.

    A trial learns on the first three quarters of the window's time and is scored on the rest, so it is
    chosen for what comes later. Method: the tree-structured Parzen estimator (Bergstra et al., Algorithms
    for Hyper-Parameter Optimization, NeurIPS 2011), seeded, and the median stopping rule (Golovin et al., Google
    Vizier, KDD 2017). Trials are drawn in batches of `tune.parallel`, trained at once and told in order, and
    compared with trials of earlier batches only. So the same rows give the same trials, whichever
    thread is done first, and after any interruption; but for a `timeout` or a latency that decides.

    Args:
        pipeline: Declares model, space, limits, metric and seed.
        matrix: The window's features, shape (n, features).
        label: Shape (n,).
        moment: Shape (n,): the rows' times.
        classes: How many classes the label has.
        weight: Shape (n,): how much each row counts in learning; None: all the same. Scores are not weighted.
        study: Where finished trials are kept.
        tell: Called with each finished trial, in order.

    Raises:
        TrainError: The window's rows are all of one time, a part of it holds one class only, a trial is worth no
            number, or no trial keeps the limits.
        ServiceError: The study's database does not answer.
    """
    study = study or Study()
    if not pipeline.tune.space:
        return Search({})
    rows = _rows(pipeline, matrix, label, moment, classes, weight)
    draws = _draws(pipeline, study.warm)
    trials: list[Trial] = []
    spent = 0.0
    for batch in _batches(pipeline, draws):
        done = _fit_all(pipeline, batch, rows, study)
        for drawn, trial in zip(batch, done, strict=True):
            state = TrialState.PRUNED if trial.value is None else TrialState.COMPLETE
            draws.tell(drawn, trial.value, state)
            trials.append(trial)
            _say(pipeline, trials)
            tell(trial)
        spent += max(trial.seconds for trial in done)
        if spent >= pipeline.tune.timeout:
            break
    stopped = sum(trial.value is None for trial in trials)
    log.info("%d trials in %.1f s, %d of them stopped early", len(trials), spent, stopped)
    return Search(choose(pipeline, trials).params, tuple(trials), _importance(draws), study.warm)


def choose(pipeline: Pipeline, trials: Sequence[Trial]) -> Trial:
    """Returns the best of the trials that keep the declared limits.

    Raises:
        TrainError: None does.
    """
    limits = pipeline.tune.limits
    finished = [trial for trial in trials if trial.value is not None]
    within = [trial for trial in finished if limits.keeps(trial.latency_ms or 0, trial.size_mb or 0)]
    if not within:
        least = min(finished, key=lambda trial: (trial.latency_ms or 0, trial.size_mb or 0))
        hint = "Declare a space with smaller models, more trials, or wider limits"
        got = f"at best {least.latency_ms:.2f} ms with {least.size_mb:.3f} MB"
        raise TrainError(f"{pipeline.name}: tune.limits", f"must be kept by a trial: {limits}", got, hint)
    sign = 1 if pipeline.metric in LOWER_IS_BETTER else -1
    return min(within, key=lambda trial: sign * (trial.value or 0.0))


def _rows(
    pipeline: Pipeline,
    matrix: Matrix,
    label: np.ndarray,
    moment: np.ndarray,
    classes: int,
    weight: np.ndarray | None,
) -> Rows:
    later = moment >= moment.max() - (moment.max() - moment.min()) * _JUDGED_SHARE
    if later.all():
        raise TrainError(f"{pipeline.name}: tune", "must have rows of more than one time in the window")
    learned = None if weight is None else weight[~later]
    threads = pipeline.train.threads
    prepared = pipeline.model.prepare(matrix.rows(~later), label[~later], weight=learned, threads=threads)
    return Rows(prepared, matrix.values[later], label[later], classes)


def _draws(pipeline: Pipeline, warm: Found | None) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # the trials are logged here, with what a person wants to see
    pruner = optuna.pruners.MedianPruner(_BEFORE_PRUNING) if pipeline.tune.prune else optuna.pruners.NopPruner()
    # Retrains begin with the last best; with one seed for all, they would draw the same others every time.
    entropy = [pipeline.train.seed, int(warm.as_of.timestamp()) % 2**32 if warm else 0]
    sampler = optuna.samplers.TPESampler(seed=int(np.random.SeedSequence(entropy).generate_state(1)[0]))
    made = optuna.create_study(direction=direction(pipeline), sampler=sampler, pruner=pruner)
    if warm is not None:
        made.enqueue_trial(warm.params)
    return made


def _batches(pipeline: Pipeline, draws: optuna.Study) -> Iterator[list[optuna.Trial]]:
    space = {name: _distribution(choice) for name, choice in sorted(pipeline.tune.space.items())}
    left = pipeline.tune.trials
    while left:
        size = min(parallel(pipeline), left)
        yield [draws.ask(space) for _ in range(size)]
        left -= size


def parallel(pipeline: Pipeline) -> int:
    """Returns how many trials are trained at once: as many as there are threads to share, if nothing else is said."""
    return pipeline.tune.parallel or min(pipeline.train.threads, pipeline.tune.trials)


def _fit_all(pipeline: Pipeline, batch: Sequence[optuna.Trial], rows: Rows, study: Study) -> list[Trial]:
    """Returns what became of the trials, each of them on record."""
    from threadpoolctl import threadpool_limits

    known = [study.find(drawn.number, drawn.params) for drawn in batch]
    new = [drawn for drawn, found in zip(batch, known, strict=True) if found is None]
    threads = max(1, pipeline.train.threads // parallel(pipeline))
    # Around all of them: each fit sets this limit for the whole process, and puts back what it found.
    with threadpool_limits(threads), ThreadPoolExecutor(max(1, len(new))) as pool, Meter() as meter:
        attempts = list(pool.map(lambda drawn: _fit(pipeline, drawn, rows, threads), new))
    made = {}
    for drawn, (trial, fitted) in zip(new, attempts, strict=True):
        trial = trial.model_copy(update=_used(trial, meter.used, alone=len(new) == 1))
        if fitted is not None:  # measured when nothing else is running
            cost = {"latency_ms": _latency(fitted, rows.judged), "size_mb": fitted.size() / 1e6}
            trial = trial.model_copy(update=cost)
        study.keep(trial, drawn.distributions)
        made[drawn.number] = trial
    for drawn, found in zip(batch, known, strict=True):
        for percent, value in found.reports.items() if found else ():
            drawn.report(value, percent)
    return [found or made[drawn.number] for drawn, found in zip(batch, known, strict=True)]


def _fit(pipeline: Pipeline, drawn: optuna.Trial, rows: Rows, threads: int) -> tuple[Trial, Fitted | None]:
    """Returns a trial with its model, or without one if it was stopped early."""
    task, metric, seed = pipeline.label.task, pipeline.metric, pipeline.train.seed
    started, cpu = time.perf_counter(), time.thread_time()
    reports: dict[int, float] = {}

    def watch(percent: int, predict: Callable[[np.ndarray], np.ndarray]) -> None:
        reports[percent] = score(task, metric, rows.truth, predict(rows.judged))
        drawn.report(reports[percent], percent)
        if drawn.should_prune():
            raise optuna.TrialPruned

    watching = watch if pipeline.tune.prune else None
    fitted, value = None, None
    try:
        fitted = pipeline.model.fit(
            task, rows.classes, rows.prepared, drawn.params, seed=seed, threads=threads, watch=watching
        )
        value = score(task, metric, rows.truth, fitted.predict(rows.judged))
    except optuna.TrialPruned:
        pass  # the trial's missing value says so
    if value is not None and math.isnan(value):
        drew = ", ".join(f"{name}={_short(one)}" for name, one in drawn.params.items())
        hint = "Declare a space without such parameters, or see what the model predicts with them"
        raise TrainError(f"{pipeline.name}: tune", f"must find a number for {metric}", f"nan for {drew}", hint)
    seconds, cpu = round(time.perf_counter() - started, 3), time.thread_time() - cpu
    trial = Trial(
        number=drawn.number, params=drawn.params, value=value, reports=reports, seconds=seconds, cpu_seconds=cpu
    )
    return trial, fitted


def _used(trial: Trial, used: Usage, *, alone: bool) -> dict[str, float]:
    """Returns what a trial took: alone all of it; beside others its thread's time, and the memory of all of them."""
    cpu = used.cpu_seconds if alone else trial.cpu_seconds or 0.0
    return {"cpu_seconds": round(cpu, 3), "peak_mb": round(used.peak_mb, 3)}


def _latency(fitted: Fitted, judged: np.ndarray) -> float:
    """Returns the median time of a prediction for one row, in milliseconds."""
    times: list[float] = []
    fitted.predict(judged[:1])
    while len(times) < _TIMED[0] or (len(times) < _TIMED[1] and sum(times) < _TIMED_FOR):
        row = len(times) % len(judged)
        started = time.perf_counter()
        fitted.predict(judged[row : row + 1])
        times.append(time.perf_counter() - started)
    return 1000 * median(times)


def _importance(draws: optuna.Study) -> dict[str, float]:
    if len(draws.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))) < _EXPLAINED:
        return {}
    return dict(optuna.importance.get_param_importances(draws))


def _distribution(choice: IntRange | FloatRange | Choice) -> BaseDistribution:
    if isinstance(choice, IntRange):
        return IntDistribution(*choice.int, log=choice.log)
    if isinstance(choice, FloatRange):
        return FloatDistribution(*choice.float, log=choice.log)
    return CategoricalDistribution(choice.choice)


def _say(pipeline: Pipeline, trials: Sequence[Trial]) -> None:
    """Leaves a line about the last trial in the log."""
    trial, tune, metric = trials[-1], pipeline.tune, pipeline.metric
    if trial.value is None:
        came_to = f"stopped at {trial.stopped_at} %, {metric} {trial.reports[trial.stopped_at or 0]:.4f} there"
    else:
        came_to = f"{metric} {trial.value:.4f}"
    finished = [one for one in trials if one.value is not None]
    sign = 1 if metric in LOWER_IS_BETTER else -1
    best = min(finished, key=lambda one: sign * (one.value or 0.0))
    drawn = ", ".join(f"{name}={_short(value)}" for name, value in trial.params.items())
    log.info(
        "trial %d of %d: %s in %.1f s, best %.4f of trial %d (%s)",
        trial.number + 1,
        tune.trials,
        came_to,
        trial.seconds,
        best.value,
        best.number + 1,
        drawn,
    )


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
