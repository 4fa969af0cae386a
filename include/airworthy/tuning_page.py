"""A search as a page: how it went, which parameters mattered, and what its models cost."""

from __future__ import annotations

from html import escape
from itertools import accumulate
from typing import TYPE_CHECKING

from airworthy import charts
from airworthy.evidence import LOWER_IS_BETTER
from airworthy.pages import Section, document, render

if TYPE_CHECKING:
    from airworthy.config import Pipeline
    from airworthy.stages.tuning import Search


def tuning_page(pipeline: Pipeline, search: Search) -> str:
    """Returns the page of one search with at least one finished trial."""
    metric = pipeline.metric
    pick = min if metric in LOWER_IS_BETTER else max
    finished = [(trial.number, trial.value) for trial in search.trials if trial.value is not None]
    best = list(accumulate((value for _, value in finished), pick))
    stopped = [(trial.number, list(trial.reports.values())[-1]) for trial in search.trials if trial.value is None]
    groups = {"trial": finished, "best so far": [(n, value) for (n, _), value in zip(finished, best, strict=True)]}
    if stopped:
        groups["stopped early, value then"] = stopped
    drawn = [charts.points(groups, f"{metric} of each trial", "trial", metric, stairs=["best so far"])]
    if search.importance:
        shares = {"share of the differences": list(search.importance.values())}
        drawn.append(charts.bars(shares, list(search.importance), "Which parameters made the difference"))
    rows = [trial.row() for trial in search.trials]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    sections = [
        Section(heading="How it went", text=_told(pipeline, search, len(finished)), charts=drawn),
        Section(heading="Every trial", table=(columns, [[row.get(name) for name in columns] for row in rows])),
    ]
    title = f"{pipeline.name}: search"
    body = "\n".join(part for section in sections for part in render(section))
    return document(title, f"<h1>{escape(title)}</h1>\n{body}")


def _told(pipeline: Pipeline, search: Search, finished: int) -> str:
    chosen = ", ".join(
        f"{name} = {value:.4g}" if isinstance(value, float) else f"{name} = {value}"
        for name, value in search.best.items()
    )
    limits = f", the best within {pipeline.tune.limits}" if pipeline.tune.limits else ""
    told = [
        f"{len(search.trials)} trials, {len(search.trials) - finished} of them stopped early. Chosen: {chosen}{limits}."
    ]
    if search.warm:
        told.append(
            f"The first trial had the best parameters of run {search.warm.run_id}, as of {search.warm.as_of:%Y-%m-%d}."
        )
    return "\n\n".join(told)
