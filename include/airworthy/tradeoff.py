"""The trade-off: how good a search's models are against what they cost, and which one limits allow."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from airworthy import charts
from airworthy.config import Pipeline, load_pipeline
from airworthy.errors import ModelError
from airworthy.evidence import LOWER_IS_BETTER, Metric
from airworthy.pages import Chart, Section, write_page
from airworthy.profile import Profile, load_profile, pipelines_dir
from airworthy.registry import Registry
from airworthy.searches import BEST, SPACE, Measured, measured
from airworthy.training_runs import TrainingRun, TrainingRuns
from airworthy.tune import Limits

_COLUMNS = ("trial", "latency ms", "size MB", "", "parameters")


def front(trials: Sequence[Measured], metric: Metric) -> list[Measured]:
    """Returns the Pareto front, best first: the trials that no other equals in everything and beats in something."""
    sign = 1 if metric in LOWER_IS_BETTER else -1
    points = [(sign * trial.value, trial.latency_ms, trial.size_mb) for trial in trials]

    def dominated(point: tuple[float, ...]) -> bool:
        return any(other != point and all(a <= b for a, b in zip(other, point, strict=True)) for other in points)

    kept = [(point, trial) for point, trial in zip(points, trials, strict=True) if not dominated(point)]
    return [trial for _, trial in sorted(kept, key=lambda pair: (pair[0], pair[1].number))]


def recommended(trials: Sequence[Measured], metric: Metric, limits: Limits) -> Measured | None:
    """Returns the best trial within the limits, of equal ones the cheapest; None if none is."""
    return next((trial for trial in front(trials, metric) if limits.keeps(trial.latency_ms, trial.size_mb)), None)


def publish(pipeline: Pipeline, run: TrainingRun, trials: Sequence[Measured], limits: Limits, profile: Profile) -> Path:
    """Returns the page `<pipeline>/tradeoff.html` below the profile's `reports_dir`, written whole."""
    best = front(trials, pipeline.metric)
    others = [trial for trial in trials if trial not in best]
    costs = (("latency_ms", "ms for one row"), ("size_mb", "MB"))
    drawn = [_chart(pipeline.metric, cost, unit, best, others) for cost, unit in costs]
    told = f"Run {run.run_id}, as of {run.as_of:%Y-%m-%d}.\n\n{advice(pipeline, run, trials, limits)}"
    file = profile.reports_dir / pipeline.name / "tradeoff.html"
    sections = [
        Section(heading="What a better model costs", text=told, charts=drawn),
        Section(heading="Every finished trial", table=_table(pipeline, run, trials)),
    ]
    write_page(file, f"{pipeline.name}: accuracy against latency and size", sections)
    return file


def advice(pipeline: Pipeline, run: TrainingRun, trials: Sequence[Measured], limits: Limits) -> str:
    """Returns in a sentence which trial to take, and whether the run took it."""
    chosen = recommended(trials, pipeline.metric, limits)
    within = f"within {limits}" if limits else "without limits"
    if chosen is None:
        cheapest = min(trials, key=lambda trial: (trial.latency_ms, trial.size_mb))
        cost = f"{cheapest.latency_ms:.3g} ms and {cheapest.size_mb:.3g} MB"
        return f"No trial is {within}; the fastest, trial {cheapest.number}, takes {cost}."
    best = front(trials, pipeline.metric)[0]
    loss = f", {abs(best.value - chosen.value):.4f} from the best, trial {best.number}" if chosen != best else ""
    cost = f"{chosen.latency_ms:.3g} ms and {chosen.size_mb:.3g} MB"
    taken = "the run's model" if chosen.number == _taken(run, trials) else "not the run's model"
    return f"Recommended {within}: trial {chosen.number}, {pipeline.metric} {chosen.value:.4f}{loss}, {cost}; {taken}."


def _taken(run: TrainingRun, trials: Sequence[Measured]) -> int | None:
    params = json.loads(run.tags[BEST])
    return next((trial.number for trial in trials if trial.params == params), None)


def _chart(metric: Metric, cost: str, unit: str, best: Sequence[Measured], others: Sequence[Measured]) -> Chart:
    groups = {
        "Pareto front": sorted((getattr(trial, cost), trial.value) for trial in best),
        "beaten in everything": [(getattr(trial, cost), trial.value) for trial in others],
    }
    return charts.points(groups, f"{metric} against {cost.partition('_')[0]}", unit, metric)


def _table(
    pipeline: Pipeline, run: TrainingRun, trials: Sequence[Measured]
) -> tuple[Sequence[str], list[Sequence[object]]]:
    best = front(trials, pipeline.metric)
    taken = _taken(run, trials)
    rows: list[Sequence[object]] = []
    for trial in [*best, *(trial for trial in trials if trial not in best)]:
        marks = ["front"] if trial in best else []
        marks += ["the run's model"] if trial.number == taken else []
        params = ", ".join(
            f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
            for name, value in trial.params.items()
        )
        rows.append((trial.number, trial.value, trial.latency_ms, trial.size_mb, ", ".join(marks), params))
    trial_column, *rest = _COLUMNS
    return (trial_column, pipeline.metric, *rest), rows


def _chosen(pipeline: Pipeline, run_id: str, profile: Profile) -> TrainingRun:
    """Returns the newest run that searched, or the one whose id begins with `run_id`."""
    searched = [run for run in TrainingRuns(profile).of(pipeline.name) if SPACE in run.tags]
    found = [run for run in searched if run.run_id.startswith(run_id)]
    if not found:
        got = run_id or "no such run"
        hint = f"Declare tune.space, and run {pipeline.name}.train"
        raise ModelError(pipeline.name, "must have a finished training run that searched parameters", got, hint)
    return found[-1]


def run(pipeline: str, environment: Mapping[str, str], run_id: str, limits: Limits) -> None:
    """Writes the trade-off page of one run, and prints its table, what is recommended, and where the page is.

    Args:
        environment: Where the services are.
        run_id: How the id of an MLflow run begins; "" takes the newest.
        limits: Take the place of the declared ones, if there are any.
    """
    profile = load_profile(environment)
    declared = load_pipeline(pipelines_dir() / f"{pipeline}.yaml")
    chosen = _chosen(declared, run_id, profile)
    trials = measured(Registry(profile).load_json(chosen.run_id, "trials.json"))
    if not trials:
        raise ModelError(f"run {chosen.run_id}", "must have trials with latency and size on record", hint="Train again")
    asked = limits or declared.tune.limits
    columns, rows = _table(declared, chosen, trials)
    cells = [[f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row] for row in (columns, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    print(advice(declared, chosen, trials, asked))
    print(publish(declared, chosen, trials, asked, profile))
