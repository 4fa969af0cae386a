"""`captured: {pipeline: churn, key: [customer], time: asked_at, labels: {...}}`: what serving was asked, labelled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from airworthy import kinds
from airworthy.capture import AT, CAPTURED, PREFIX, REQUEST, ROW
from airworthy.connections import Connections
from airworthy.errors import DataError
from airworthy.partitions import Partition
from airworthy.profile import load_profile
from airworthy.sources import Extracted, Origin, Source

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from airworthy.store import Store

_OWN = ("partition", "prediction", "version")


class Captured(Source):
    """Reads the inputs that a pipeline's champions were asked about, with the labels that are known by now.

    Of rows with the same key the last one answered counts. All rows of a partition are in memory at once.

    Attributes:
        pipeline: Whose captured requests.
        key: The inputs that tell rows apart, and that the labels have too.
        time: The input with the event time; a row without one happened when serving was asked.
        labels: Where the labels are: the same partition of another source, which has the key. Its other columns are
            added, and are missing in rows without a label. Ingest the partition again when more have come.
    """

    pipeline: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,49}$")]
    key: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)]
    time: str = Field(min_length=1)
    labels: Annotated[Source, kinds.declared("sources"), kinds.as_written]

    def extract(self, partition: Partition, connections: Connections) -> Extracted:
        store = self._store()
        version = store.version(CAPTURED)
        labels = self.labels.extract(partition, connections)
        origin = Origin(store.uri(CAPTURED), str(version))
        return Extracted(self._rows(store, version, partition, labels), (origin, *labels.origins))

    def available(self, partition: Partition, connections: Connections) -> bool:
        store = self._store()
        version = store.version(CAPTURED)
        if version is None or not self.labels.available(partition, connections):
            return False
        return bool(self._captured(store, version, partition).num_rows)

    def awaited(self, partition: Partition) -> str:
        return f"a captured request of {self.pipeline} in {partition.key}, and {self.labels.awaited(partition)}"

    def connection_ids(self) -> tuple[str, ...]:
        return self.labels.connection_ids()

    def _store(self) -> Store:
        from airworthy.store import Store

        return Store(load_profile().store_uri, self.pipeline)

    def _rows(self, store: Store, version: int | None, partition: Partition, labels: Extracted) -> Iterator[pa.Table]:
        import pyarrow as pa
        import pyarrow.compute as pc

        asked = self._captured(store, version, partition)
        happened = pc.coalesce(asked[self.time], asked[AT])
        asked = asked.set_column(asked.column_names.index(self.time), self.time, happened)
        asked = asked.sort_by([(AT, "ascending"), (REQUEST, "ascending"), (ROW, "ascending")])
        keys = asked.select(self.key).to_pandas()
        asked = asked.filter(pa.array(~keys.duplicated(keep="last"))).sort_by(
            [(name, "ascending") for name in self.key]
        )
        known = pa.concat_tables(labels.rows, promote_options="permissive")
        found = pa.array(self._position(asked, known), pa.int64(), from_pandas=True)
        inputs = [name for name in asked.column_names if not name.startswith(PREFIX) and name not in _OWN]
        rows = asked.select(inputs)
        for name in known.column_names:
            if name not in inputs:
                rows = rows.append_column(name, known[name].take(found))
        yield rows

    def _position(self, asked: pa.Table, known: pa.Table) -> pd.Series[Any]:
        """Returns which of the labels each row has, missing where it has none."""
        where, key = f"{self.pipeline}: labels", list(self.key)
        if missing := [name for name in key if name not in known.column_names]:
            raise DataError(where, f"must have the key column(s) {', '.join(missing)}", known.column_names)
        labels = known.select(key).to_pandas()
        if labels.duplicated().any():
            raise DataError(where, "must have each key once", hint="Let the query give the last one")
        numbered = labels.assign(captured_position=range(len(labels)))
        position: pd.Series[Any] = (
            asked.select(key).to_pandas().merge(numbered, on=key, how="left")["captured_position"]
        )
        return position

    def _captured(self, store: Store, version: int | None, partition: Partition) -> Any:
        """Returns the rows whose time is in the partition; of the table, only files that may hold some are read."""
        import pyarrow as pa
        from pyarrow import dataset as ds

        from airworthy.columns import TIMESTAMP

        rows = store.scan(CAPTURED, version=version)
        if missing := [name for name in (*self.key, self.time) if name not in rows.schema.names]:
            got = sorted(name for name in rows.schema.names if not name.startswith(PREFIX))
            raise DataError(f"{self.pipeline}: {CAPTURED}", f"must have the column(s) {', '.join(missing)}", got)
        start, end = pa.scalar(partition.start, TIMESTAMP), pa.scalar(partition.end, TIMESTAMP)

        def within(name: str) -> Any:
            return (ds.field(name) >= start) & (ds.field(name) < end)

        return rows.to_table(filter=within(self.time) | (ds.field(self.time).is_null() & within(AT)))
