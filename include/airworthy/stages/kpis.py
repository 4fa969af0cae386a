"""The key figures of a partition: measured, kept in the table `kpis`, and held against those of the partitions before.

The table has one row for each, with `kpi`, `value`, `rows`, `scale`, and `since`: the first partition in a row in which
it is unusual. It is one of its own, because a partition of a table has one writer, and that of `metrics` is
`performance`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from airworthy.config import Pipeline
from airworthy.content import PARTITION
from airworthy.errors import DataError, Problems
from airworthy.evidence import Task
from airworthy.kpis import KEPT, Kpi, KpiFinding, Scale, judge
from airworthy.partitions import Partition, parse_key, partitions_between
from airworthy.sketches import NumberSketch, Sketches
from airworthy.stages.ingest import RAW
from airworthy.stages.performance import MEASURED, Performance
from airworthy.stages.serving_kpis import LATE, Served, facts_of
from airworthy.store import Store
from airworthy.validations import VALIDATIONS

if TYPE_CHECKING:
    from airworthy.stages.drift import Outcome

KPIS = "kpis"
_SINCE = "since"


@dataclass(frozen=True)
class Window:
    """What drift knows of a partition.

    Attributes:
        sketches: Of the features, of `prediction`, and of the label where it is known.
        outcome: None while no label is known.
    """

    rows: int
    sketches: Sketches
    task: Task
    outcome: Outcome | None


def watch(
    pipeline: Pipeline, partition: Partition, window: Window, store: Store, serving: Served | None = None
) -> list[KpiFinding]:
    """Leaves the partition's key figures in the table `kpis`; returns what those before let expect of each.

    Args:
        serving: What serving did meanwhile.

    Raises:
        Problems: A declared key figure cannot be computed.
    """
    serving = serving or Served()
    measured = [*_of_rows(window), *_of_tables(partition, store), *declared(pipeline, partition, store), *serving.kpis]
    known = [one for one in measured if np.isfinite(one.value)]
    keys = _before(pipeline, partition)
    rows = pd.DataFrame(columns=[PARTITION, "kpi", "value", _SINCE])
    if store.version(KPIS) is not None:
        kept = store.scan(KPIS, partitions=keys).to_table().to_pandas()
        rows = kept.reindex(columns=[*rows.columns])  # `since` came later
    series = rows.pivot_table(index=PARTITION, columns="kpi", values="value").reindex(keys)
    last = rows[rows[PARTITION] == (keys[-1] if keys else "")].set_index("kpi")[_SINCE].fillna("").to_dict()
    alarms = pipeline.monitor.false_alarms / len(known)
    found = []
    for one in known:
        history = series[one.name].to_numpy() if one.name in series else np.empty(0)
        judged = judge(
            one.name, one.value, history, grain=pipeline.partition, scale=one.scale, rows=one.rows, alarms=alarms
        )
        since = (last.get(one.name) or partition.key) if judged.alarm else ""
        found.append(judged.model_copy(update={_SINCE: since}))
    frame = pd.DataFrame([vars(one) for one in known]).rename(columns={"name": "kpi"}).astype({"value": "float64"})
    frame[_SINCE] = [one.since for one in found]
    store.write(KPIS, partition, frame, evolve=True, facts=facts_of(serving))
    return found


def performance_kpis(pipeline: Pipeline, measured: Sequence[Performance], store: Store) -> list[KpiFinding]:
    """Returns what the partitions before let expect of the pipeline's metric on partitions that were measured."""
    found = []
    for one in measured:
        if (value := one.metrics.get(pipeline.metric)) is not None:
            partition = parse_key(pipeline.partition, one.labels.partition)
            keys = _before(pipeline, partition)
            rows = store.read(MEASURED, partitions=keys, columns=[PARTITION, "metric", "value", "rows"])
            rows = rows[rows["metric"] == pipeline.metric].set_index(PARTITION).reindex(keys)
            values, counts = [*rows["value"], value], [*rows["rows"].fillna(0), one.rows]
            judged = _metric_at(pipeline, values, counts, len(keys))
            first = len(keys)
            while judged.alarm and first > 0 and _metric_at(pipeline, values, counts, first - 1).alarm:
                first -= 1
            since = [*keys, partition.key][first] if judged.alarm else ""
            found.append(judged.model_copy(update={_SINCE: since}))
    return found


def _metric_at(pipeline: Pipeline, values: Sequence[float], counts: Sequence[float], at: int) -> KpiFinding:
    if not np.isfinite(values[at]):
        return KpiFinding(kpi="performance", value=values[at])
    scale: Scale = "share" if pipeline.metric == "accuracy" else "number"
    alarms, rows = pipeline.monitor.false_alarms, int(counts[at])
    history = np.asarray(values[:at], dtype="float64")
    return judge("performance", values[at], history, grain=pipeline.partition, scale=scale, rows=rows, alarms=alarms)


def _before(pipeline: Pipeline, partition: Partition) -> list[str]:
    """Returns the keys of the partitions before one that it is held against."""
    earlier = [*partitions_between(pipeline.partition, pipeline.start, partition.start)]
    return [one.key for one in earlier if one.end <= partition.start][-KEPT[pipeline.partition] :]


def declared(pipeline: Pipeline, partition: Partition, store: Store) -> list[Kpi]:
    """Returns the key figures that `monitor.kpis` declares, of the partition's raw rows without personal columns.

    Raises:
        Problems: One of them is no aggregate that DuckDB computes, or gives no number.
    """
    if not pipeline.monitor.kpis or not store.has(RAW, partition.key):
        return []
    import duckdb

    raw = store.scan(RAW, partitions=[partition.key])
    names = [name for name in raw.schema.names if name != PARTITION and name not in pipeline.pii]
    chosen = ", ".join('"' + name.replace('"', '""') + '"' for name in names)
    found, problems, rows = [], [], raw.count_rows()
    with tempfile.TemporaryDirectory() as folder, duckdb.connect() as database:
        database.execute(f"SET memory_limit = '512MB'; SET temp_directory = '{folder}'; SET TimeZone = 'UTC'")
        database.execute("SET enable_progress_bar = false")
        database.register("everything", raw)
        for name, expression in pipeline.monitor.kpis.items():
            where = f"{pipeline.name}: monitor.kpis.{name}"
            rule = "must be an aggregate of raw rows, in DuckDB's SQL, that gives a number"
            try:
                answer = database.execute(f"SELECT ({expression}) FROM (SELECT {chosen} FROM everything)").fetchall()
                value = float("nan") if answer[0][0] is None else float(answer[0][0])
            except (duckdb.Error, TypeError, ValueError) as error:
                problems.append(DataError(where, rule, str(error).partition("\n")[0], expression))
                continue
            if len(answer) != 1:
                problems.append(DataError(where, rule, f"{len(answer)} rows", expression))
            found.append(Kpi(name, value, rows))
    if problems:
        raise Problems(f"{pipeline.name}: monitor.kpis", problems)
    return found


def _of_rows(window: Window) -> list[Kpi]:
    found = [Kpi("rows", float(window.rows), window.rows, "amount")]
    for name, sketch in window.sketches.items():
        if name == "prediction":
            if isinstance(sketch, NumberSketch) and sketch.present:
                scale: Scale = "number" if window.task == "regression" else "share"
                found.append(Kpi("prediction", sketch.mean, sketch.present, scale))
        elif sketch.rows:
            found.append(Kpi(f"missing:{name}", 1 - sketch.present / sketch.rows, sketch.rows, "share"))
    if window.outcome is not None:
        rows, right = window.outcome.rows, window.outcome.right
        regression = window.task == "regression"
        found.append(
            Kpi("error" if regression else "accuracy", right / rows, rows, "amount" if regression else "share")
        )
    return found


def _of_tables(partition: Partition, store: Store) -> list[Kpi]:
    found = []
    raw = _count(store, RAW, partition)
    if raw:
        found.append(Kpi("quarantined", _count(store, "quarantine", partition) / raw, raw, "share"))
    if store.version(VALIDATIONS) is not None and store.has(VALIDATIONS, partition.key):
        status = store.read(VALIDATIONS, partitions=[partition.key], columns=["status"])["status"]
        found.append(Kpi("failed_checks", float((status != "passed").mean()), len(status), "share"))
    made = store.newest("features", partition.key)
    delay = (made.at - partition.end).total_seconds() if made else -1
    if 0 <= delay < LATE * (partition.end - partition.start).total_seconds():
        found.append(Kpi("delay", delay, 1, "amount"))
    return found


def _count(store: Store, table: str, partition: Partition) -> int:
    return 0 if store.version(table) is None else int(store.scan(table, partitions=[partition.key]).count_rows())
