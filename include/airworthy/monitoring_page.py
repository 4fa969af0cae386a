"""Draws what monitoring has found over time as one page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path

from airworthy import charts, retrains
from airworthy.alerts.incidents import Told
from airworthy.config import Pipeline
from airworthy.errors import ServiceError
from airworthy.kpis import Coverage
from airworthy.monitoring import Monitoring, Retrained, Watched, monitoring
from airworthy.pages import Chart, Link, Section, write_page
from airworthy.profile import Profile, load_profile

_COLUMNS = 20  # of the picture of drift: those that came closest to what is allowed
_MONTHS = (
    "month", "partitions", "champion", "drifted", "which columns", "anomalies", "captured", "labels known",
    "metric", "at first", "asked", "requested",
)  # fmt: skip
_BROUGHT = (
    "as of", "asked by", "why", "what became of it", "on the holdout", "champion there", "since, by the new champion",
    "by the one before",
)  # fmt: skip
_ALERTS = ("when", "about", "severity", "what", "told and done")


def page_path(pipeline: Pipeline) -> str:
    """Returns where the page is, below `reports_dir`."""
    return f"{pipeline.name}/monitoring.html"


def publish(pipeline: Pipeline, profile: Profile) -> Path:
    """Returns the page of what monitoring has found so far, written whole.

    Raises:
        ServiceError: Nothing was monitored yet, or MLflow or the ledger does not answer.
    """
    found = monitoring(pipeline, profile)
    if not found.partitions:
        hint = f"Run {pipeline.name}.monitor, e.g. by a backfill"
        raise ServiceError(pipeline.name, "has no monitored partition yet", hint=hint)
    file = profile.reports_dir / page_path(pipeline)
    write_page(file, f"{pipeline.name}: monitoring", [*_sections(found)])
    return file


def _sections(found: Monitoring) -> Iterator[Section]:
    names = [one.partition.key for one in found.partitions]
    yield Section(f"{found.pipeline.metric} as labels matured", charts=[_performance(found, names)])
    if drift := _drift(found.partitions, names):
        text = "How far each column is from the champion's training, as a share of what is allowed; red has drifted."
        yield Section("Drift", text, charts=[drift])
    months = [*_by_month(found)]
    yield Section("Month by month", table=(_MONTHS, months))
    heading = ("partition", "version", found.pipeline.metric, "labels known", "answers")
    online = [*found.online[["partition", "version", "value", "rows", "answered"]].itertuples(index=False)]
    if online:
        yield Section("What serving answered, once its labels were known", table=(heading, online))
    text = "" if found.retrained else "None was requested."
    brought = [_brought(one) for one in found.retrained]
    yield Section("Retrains that were requested, and what they brought", text, (_BROUGHT, brought) if brought else None)
    asked = retrains.table([one for one in found.decisions if one.action != "quiet"])
    yield Section("What asked for a retrain", table=(retrains.HEAD, asked) if asked else None)
    alerts = [_alert(list(rows)) for _, rows in groupby(_sorted(found.alerts), key=lambda one: one.incident)]
    text = "" if alerts else "Nobody was told of anything."
    yield Section("Alerts", text, table=(_ALERTS, sorted(alerts)) if alerts else None)
    yield Section("Key figures", "Red is not what its past let expect.", charts=[*_kpis(found.partitions, names)])
    pages = [Link(one.partition.key, f"monitor/{one.partition.key}.html") for one in found.partitions
             if one.drift]  # fmt: skip
    yield Section("Every partition's page of drift", links=pages)


def _performance(found: Monitoring, names: Sequence[str]) -> Chart:
    now = [one.now for one in found.partitions]
    lines = {"on the labels known by now": charts.Line(now)}
    first = [one.first if len(one.looks) > 1 else None for one in found.partitions]
    if any(value is not None for value in first):
        lines["when enough came to be known"] = charts.Line(first, joined=False)
    versions = [_version(one) for one in found.partitions]
    events = {
        number: f"v{version}"
        for number, version in enumerate(versions)
        if version and (number == 0 or version != versions[number - 1])
    }
    return charts.timeline(lines, names, f"{found.pipeline.metric}; dashed: another champion", events)


def _version(one: Watched) -> str:
    return one.looks[-1].version if one.looks else one.drift.version if one.drift else ""


def _drift(watched: Sequence[Watched], names: Sequence[str]) -> Chart | None:
    rows: dict[str, list[float | None]] = {}
    for place, one in enumerate(watched):
        for column in one.drift.columns if one.drift else ():
            share = None if column.score is None else column.score / column.threshold
            values = rows.setdefault(column.column, [None] * len(watched))
            # a large distance that may be chance has not drifted, and a change of missing values has
            values[place] = max(share or 0, 1.0) if column.drifted else None if share is None else min(share, 0.99)
    farthest = sorted(rows, key=lambda name: -max((value or 0 for value in rows[name]), default=0))[:_COLUMNS]
    ordered = {name: rows[name] for name in sorted(farthest, key=lambda name: (name != "prediction", name))}
    return charts.grid(ordered, names, "Columns by partition") if ordered else None


def _by_month(found: Monitoring) -> Iterator[tuple[object, ...]]:
    for month, group in groupby(found.partitions, key=lambda one: f"{one.partition.start:%Y-%m}"):
        watched = list(group)
        drifts = [one.drift for one in watched if one.drift]
        columns = Counter(column.column for one in drifts for column in one.drifted)
        anomalies = Counter(kpi.kpi for one in drifts for kpi in one.kpis if kpi.alarm)
        known = sum(one.labels.known for one in watched if one.labels)
        predicted = sum(one.labels.predicted for one in watched if one.labels)
        keys = {one.partition.key for one in watched}
        decisions = [one for one in found.decisions if one.partition in keys]
        yield (
            month,
            len(watched),
            ", ".join(dict.fromkeys(version for one in watched if (version := _version(one)))),
            sum(bool(one.drifted) for one in drifts),
            ", ".join(f"{name} ({count})" for name, count in columns.most_common(4)),
            ", ".join(f"{name} ({count})" for name, count in anomalies.most_common(4)),
            _captured([one.coverage for one in drifts if one.coverage]),
            f"{known} of {predicted}",
            _mean(watched, lambda one: one.now),
            _mean(watched, lambda one: one.first),
            sum(one.action in ("hold", "request") for one in decisions),
            sum(one.retrain for one in decisions),
        )


def _captured(known: Sequence[Coverage]) -> str:
    captured, lost = sum(one.captured for one in known), sum(one.lost for one in known)
    return f"{captured} of {captured + lost}" if known else ""


def _mean(watched: Sequence[Watched], of: Callable[[Watched], float | None]) -> str:
    values = [(value, one.looks[-1].known) for one in watched if (value := of(one)) is not None]
    return f"{sum(value * rows for value, rows in values) / sum(rows for _, rows in values):.4f}" if values else ""


def _brought(one: Retrained) -> tuple[object, ...]:
    def told(mean: tuple[float, int] | None) -> str:
        return f"{mean[0]:.4f} in {mean[1]} partition(s)" if mean else ""

    challenger, champion = one.holdout or (None, None)
    scores = ("" if score is None else f"{score:.4f}" for score in (challenger, champion))
    why = f"{one.decision.cause} in {one.decision.partition}"
    as_of = f"{one.decision.as_of:%Y-%m-%d %H:%M}"
    return as_of, why, one.decision.reason, one.outcome, *scores, told(one.after), told(one.before)


def _sorted(alerts: Sequence[Told]) -> list[Told]:
    return sorted(alerts, key=lambda one: (one.incident, one.at))


def _alert(rows: Sequence[Told]) -> tuple[str, ...]:
    first = rows[0]
    done = "; ".join(f"{one.channel}: {one.told or one.status}" for one in rows)
    return f"{first.at:%Y-%m-%d %H:%M}", first.kind, first.severity, f"{first.subject}. {first.text}", done


def _kpis(watched: Sequence[Watched], names: Sequence[str]) -> Iterator[Chart]:
    """Yields a chart of each key figure, those with alarms first; missing shares only where they have one."""
    values: dict[str, list[float | None]] = {}
    alarms: dict[str, set[int]] = {}
    for place, one in enumerate(watched):
        for kpi in one.drift.kpis if one.drift else ():
            values.setdefault(kpi.kpi, [None] * len(watched))[place] = kpi.value
            if kpi.alarm:
                alarms.setdefault(kpi.kpi, set()).add(place)
    for name in sorted(values, key=lambda name: (name not in alarms, name)):
        if name in alarms or not name.startswith("missing:"):
            yield charts.timeline({name: charts.Line(values[name], alarms.get(name, ()))}, names, name, {}, 500)


def run(pipeline: Pipeline, environment: Mapping[str, str], say: Callable[[str], object]) -> None:
    """Writes the page of one pipeline, and tells where it is.

    Raises:
        ServiceError: Nothing was monitored yet, or MLflow or the ledger does not answer.
    """
    say(str(publish(pipeline, load_profile(environment))))
