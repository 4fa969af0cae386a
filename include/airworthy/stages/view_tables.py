"""The rows of feature views: a partition of each at a time into its table, and the latest values into its store."""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import asdict

import pyarrow as pa
import pyarrow.compute as pc

from airworthy.config import Pipeline
from airworthy.connections import Connections, from_environment
from airworthy.content import chunks
from airworthy.errors import DataError, Problems
from airworthy.online import Latest, entity, microseconds
from airworthy.partitions import Partition, parse_key
from airworthy.stages.event_time import utc_times
from airworthy.store import Store, TableRef
from airworthy.views import View, view_table

_ROW = "row"  # a name that no view may use

log = logging.getLogger(__name__)


def ingest_views(
    pipeline: Pipeline, partition: Partition, store: Store, connections: Connections = from_environment
) -> tuple[TableRef, ...]:
    """Leaves a partition of each view in its table, and the latest values of its entities in its online store.

    A view may have no rows in a partition. Run again, this also publishes what a crash left unpublished.

    Raises:
        DataError: A source cannot be read, or times are not those of the partition.
        Problems: Columns are missing, or differ from the table's.
        ServiceError: An online store does not answer.
    """
    refs = []
    for name, view in pipeline.views.items():
        table = view_table(name)
        where = f"{table}[{partition.key}]"
        extracted = view.source.extract(partition, connections)
        checked = _checked(where, view, partition, extracted.rows)
        first = next(checked, None)
        if first is None and store.version(table) is None:
            log.info("%s: no rows, and none before", where)
            continue
        rows = itertools.chain([] if first is None else [first], checked)
        facts = {"origins": [asdict(origin) for origin in extracted.origins]}
        ref = store.write(table, partition, rows, evolve=True, facts=facts)
        log.info("%s: %d rows, version %d%s", where, ref.rows, ref.version, "" if ref.changed else ", as before")
        publish(pipeline, name, partition, ref.version, store, connections)
        refs.append(ref)
    return tuple(refs)


def publish(
    pipeline: Pipeline, name: str, partition: Partition, version: int, store: Store, connections: Connections
) -> int:
    """Leaves what a partition of a view knows last of each entity in the online store, and returns of how many.

    The values of a later partition stay, so partitions may come in any order. An entity that the partition no longer
    has gets what the newest of those before knows of it, or is unknown.

    Raises:
        ServiceError: The online store does not answer.
    """
    view, table, shown = pipeline.views[name], view_table(name), f"{pipeline.name}.{name}"
    written = _written(store, table, version)

    def latest(known: Partition) -> list[Latest]:
        found = _newest(view, store, table, known.key, version)
        start, at = microseconds(known.start), written.get(known.key, 0)
        return [Latest(key, start, at, time, content) for key, (time, content) in found.items()]

    online, rows = view.online.open(connections), latest(partition)
    online.write(shown, rows)
    gone = set(online.retract(shown, microseconds(partition.start), written.get(partition.key, 0)))
    for key in reversed(store.partitions(table, version) if gone else []):
        if gone and key < partition.key:
            known = [row for row in latest(parse_key(pipeline.partition, key)) if row.entity in gone]
            online.write(shown, known)
            gone -= {row.entity for row in known}
    log.info("%s[%s]: the latest values of %d entities are online", table, partition.key, len(rows))
    return len(rows)


def _written(store: Store, table: str, version: int) -> dict[str, int]:
    """Returns when each partition was given the rows it has at a version of the table."""
    found: dict[str, int] = {}
    for write in store.history(table):
        if write.version <= version:
            found[write.partition] = max(microseconds(write.at), found.get(write.partition, 0))
    return found


def _newest(view: View, store: Store, table: str, partition_key: str, version: int) -> dict[str, tuple[int, str]]:
    """Returns time and content by entity: the newest, and of several of one time the last one."""
    found: dict[str, tuple[int, str]] = {}
    for chunk in chunks(store.scan(table, partitions=[partition_key], version=version)):
        ordered = chunk.take(pc.sort_indices(chunk, [(view.time, "ascending")]))  # which keeps equal ones in order
        numbered = ordered.append_column(_ROW, pa.array(range(len(ordered))))
        last = numbered.group_by(list(view.key)).aggregate([(_ROW, "max")])[f"{_ROW}_max"]
        newest = ordered.take(last)
        moments = newest[view.time].cast(pa.int64()).to_pylist()
        keys = zip(*(newest[column].to_pylist() for column in view.key), strict=True)
        values = newest.select(list(view.columns)).to_pylist()
        for moment, key, content in zip(moments, map(entity, keys), values, strict=True):
            if key is not None and (key not in found or moment >= found[key][0]):
                found[key] = moment, json.dumps(content, default=lambda value: value.isoformat())
    return found


def _checked(where: str, view: View, partition: Partition, rows: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Yields the columns the view needs, its time in UTC and inside the partition."""
    wanted = [*view.key, view.time, *view.columns]
    for chunk in rows:
        if missing := [name for name in wanted if name not in chunk.column_names]:
            hint = f"The source gives {', '.join(chunk.column_names)}"
            rule = "must be a column, because the view declares it"
            raise Problems(where, [DataError(f"{where}: {name}", rule, hint=hint) for name in missing])
        if chunk.num_rows:
            chosen = chunk.select(wanted)
            times = utc_times(f"{where}: {view.time}", chosen[view.time].to_pandas(), partition)
            yield chosen.set_column(wanted.index(view.time), view.time, pa.array(times))
