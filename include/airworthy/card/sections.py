"""The parts of a model card, each from what is on record; what a new gate gathers is shown without a line here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from airworthy.card.plots import pictures
from airworthy.card.record import Record, numbers_of
from airworthy.evidence import LOWER_IS_BETTER, Scores
from airworthy.intervals import of_metric
from airworthy.lineage.page import page_path as lineage_path
from airworthy.pages import Link, Section

PICTURE = "curves.svg"
CONFIDENCE = 0.9
_LONGEST = 30  # rows of a table


def sections(record: Record) -> list[Section]:
    """Returns the whole card, in the order in which a person who decides wants to read it."""
    return [
        *summary(record),
        Section(heading="On the holdout", text=_holdout(record), picture=pictures(record.evidence)),
        *_evidence(record),
        Section(heading="Training data", table=(("what", "value"), _data(record))),
        Section(heading="Model", table=(("what", "value"), _model(record))),
        Section(heading="Inputs", text=_inputs_text(record), table=_inputs(record)),
        Section(heading="Best trials", table=_trials(record) if record.trials else None),
        Section(heading="Environment", table=(("what", "version"), [*_environment(record)])),
        Section(heading="Ledger", text=_ledger_text(record), table=_ledger(record) if record.entries else None),
    ]


def summary(record: Record) -> list[Section]:
    """Returns what a person looks at first: what it is for, what came of it, its metrics and verdicts."""
    pipeline, challenger = record.pipeline, record.challenger
    told = (
        f"{pipeline.description}\n\n"
        f"A model of kind {record.contract.kind} for the {pipeline.label.task} label {pipeline.label.column}, "
        f"trained as of {challenger.as_of:%Y-%m-%d %H:%M} UTC; owner: {pipeline.owner}. Result: {record.result}."
    )
    verdicts = [(verdict.gate, verdict.status, verdict.on_fail, verdict.reason) for verdict in record.verdicts]
    return [
        Section(
            heading="Summary", text=told, links=[Link("lineage", f"../../{lineage_path(pipeline, challenger.run_id)}")]
        ),
        Section(heading="Metrics", text=_metrics_text(record), table=_metrics(record)),
        Section(heading="Gates", table=(("gate", "verdict", "if it fails", "reason"), verdicts)),
        *([Section(heading="Approvals", table=_approvals(record))] if record.approvals else []),
    ]


def _approvals(record: Record) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
    return ("at (UTC)", "who", "answer", "reason"), [
        (f"{one.at:%Y-%m-%d %H:%M}", one.name, "approved" if one.approved else "rejected", one.reason)
        for one in record.approvals
    ]


def _metrics_text(record: Record) -> str:
    days = len(np.unique(record.evidence.block))
    return (
        f"On {len(record.evidence.label):,} rows of {days} days after the training window. In brackets the bounds, "
        f"each of which holds at {CONFIDENCE * 100:g} %, from how days differ."
    )


def _metrics(record: Record) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
    evidence = record.evidence
    models = {"challenger": evidence.challenger}
    if evidence.champion:
        models[f"champion (version {evidence.champion.version})"] = evidence.champion
    intervals = {name: _intervals(record, scores) for name, scores in models.items()}
    rows: list[tuple[object, ...]] = [
        (
            f"{metric}{' (lower is better)' if metric in LOWER_IS_BETTER else ''}",
            *(i[metric] for i in intervals.values()),
        )
        for metric in evidence.challenger.metrics
    ]
    return ("metric", *models), rows


def _intervals(record: Record, scores: Scores) -> dict[str, str]:
    evidence, told = record.evidence, {}
    for metric, value in scores.metrics.items():
        found = of_metric(metric, evidence.label, scores.prediction, evidence.block)
        low, high = found.bounds(CONFIDENCE)
        told[str(metric)] = f"{value:.4f}" + (f" [{low:.4f}, {high:.4f}]" if found.known else "")
    return told


def _holdout(record: Record) -> str:
    start, end = record.challenger.holdout
    interval = f"{start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC"
    return f"Labelled rows from {interval}, after the challenger's training window."


def _evidence(record: Record) -> Iterator[Section]:
    """Yields what each gate rests on: its numbers, and its tables below each other."""
    for verdict in record.verdicts:
        numbers = numbers_of(record, verdict)
        plain = [(name, _text(value)) for name, value in numbers.items() if not _is_table(value) and value != ""]
        if plain:
            heading = f"{verdict.gate}: what it rests on"
            yield Section(heading=heading, table=(("what", "value"), plain))
        for name, value in numbers.items():
            if _is_table(value):
                yield Section(heading=f"{verdict.gate}: {name}", text=_shortened(value), table=_table(value))


def _is_table(value: Any) -> bool:
    if isinstance(value, Mapping):
        return len(value) > 1
    return isinstance(value, list) and bool(value) and all(isinstance(row, Mapping) for row in value)


def _table(value: Any) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
    if isinstance(value, Mapping):
        if all(isinstance(row, Mapping) for row in value.values()):
            return _table([{"name": name, **row} for name, row in value.items()])
        return ("name", "value"), [(name, _value(found)) for name, found in list(value.items())[:_LONGEST]]
    columns = tuple(dict.fromkeys(name for row in value for name in row))
    return columns, [tuple(_value(row.get(name)) for name in columns) for row in value[:_LONGEST]]


def _shortened(value: Any) -> str:
    return f"The first {_LONGEST} of {len(value):,}." if len(value) > _LONGEST else ""


def _value(value: Any) -> object:
    if value is None or isinstance(value, int | float | str):
        return value
    if isinstance(value, list) and all(isinstance(one, float) for one in value):
        return ", ".join(f"{one:.4g}" for one in value)
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _text(value: Any) -> str:
    """Returns a value for a column that holds texts, too."""
    found = _value(value)
    return f"{found:,.6g}" if isinstance(found, float) else str(found)


def _data(record: Record) -> list[tuple[str, object]]:
    challenger, contract = record.challenger, record.contract
    window, holdout = (
        f"{start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC" for start, end in (contract.window, challenger.holdout)
    )
    source = f"{record.run.source}; rows and features are those it was judged on here"
    return [
        *([("imported from", source)] if record.run.source else []),
        ("window", window),
        ("holdout", holdout),
        ("rows", f"{challenger.features.rows:,}"),
        ("features table, version", str(challenger.features.version)),
        ("features, SHA-256 of the rows", challenger.features.digest),
        ("features function", contract.features_function or "none: raw columns as they are"),
        ("its module, SHA-256", contract.features_digest),
        ("personal columns", ", ".join(record.pipeline.pii) or "none declared"),
    ]


def _model(record: Record) -> list[tuple[str, object]]:
    contract, challenger = record.contract, record.challenger
    return [
        ("kind", contract.kind),
        *((f"parameter {name}", _text(value)) for name, value in contract.params.items()),
        ("seed", str(contract.seed)),
        ("classes", ", ".join(contract.classes) or "none"),
        ("features", str(len(contract.features))),
        ("MLflow run", challenger.run_id),
        ("MLflow model", challenger.model_id),
        ("files, SHA-256", challenger.digest),
        ("evidence, SHA-256", record.evaluation.evidence),
        ("training key", challenger.training_key),
    ]


def _inputs_text(record: Record) -> str:
    answer = {
        "binary": f"the probability of {record.contract.classes[-1] if record.contract.classes else 'the label'}",
        "multiclass": "a probability per class",
        "regression": "a number",
    }[record.contract.task]
    return f"A request sends these columns and gets {answer}."


def _inputs(record: Record) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
    looked_up = {name: lookup.view for lookup in record.contract.lookups for name in lookup.columns}
    return ("input", "type", "looked up in"), [
        (one.name, one.type, looked_up.get(one.name)) for one in record.contract.inputs
    ]


def _trials(record: Record) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
    lower = record.pipeline.metric in LOWER_IS_BETTER
    known = [trial for trial in record.trials if isinstance(trial.get("value"), int | float)]
    best = sorted(known, key=lambda trial: trial["value"], reverse=not lower)[:10]
    columns = tuple(dict.fromkeys(name for trial in best for name in trial))
    return columns, [tuple(_value(trial.get(name)) for name in columns) for trial in best]


def _environment(record: Record) -> Iterator[tuple[str, object]]:
    yield "code", record.run.tags.get("code") or "unknown"
    yield from record.environment.items()


def _ledger_text(record: Record) -> str:
    return "" if record.entries else "This model was never champion."


def _ledger(record: Record) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
    return ("at (UTC)", "what", "version", "in place of", "by", "approved by", "reason"), [
        (f"{one.at:%Y-%m-%d %H:%M:%S}", one.action, one.version, one.expected, one.actor, one.approved_by, one.reason)
        for one in record.entries
    ]
