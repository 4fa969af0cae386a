"""`delta: {uri: "s3://lake/orders", time: ordered_at}`: rows of another Delta table."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pydantic import Field

from airworthy.connections import Connections, storage_options
from airworthy.errors import DataError, ServiceError
from airworthy.partitions import Partition
from airworthy.profile import ROOT
from airworthy.sources import Extracted, Origin, Source

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS = 65_536


class Delta(Source):
    """Reads the rows whose `time` is in the partition, as of the table's newest version.

    Attributes:
        uri: A folder, relative to the repository, or `s3://bucket/...`.
        time: The table's column with the event time; a timestamp. Only files that may hold the partition are read.
        connection: The id of the Airflow connection with the credentials for S3. Default: the machine's own.
    """

    uri: str = Field(min_length=1)
    time: str = Field(min_length=1)
    connection: str | None = None

    def extract(self, partition: Partition, connections: Connections) -> Extracted:
        table = self._open(connections)
        origin = Origin(self.uri, str(table.version()))
        return Extracted(self._rows(table, partition), (origin,))

    def available(self, partition: Partition, connections: Connections) -> bool:
        from deltalake.exceptions import TableNotFoundError

        try:
            table = self._open(connections)
        except DataError as error:
            if isinstance(error.__cause__, TableNotFoundError):
                return False
            raise
        with self._readable():
            dataset, chosen = self._chosen(table, partition)
            return bool(dataset.head(1, filter=chosen, columns=[self.time], batch_size=_ROWS).num_rows)

    def awaited(self, partition: Partition) -> str:
        span = f"[{partition.start:%Y-%m-%d %H:%M}, {partition.end:%Y-%m-%d %H:%M}) UTC"
        return f"a row of {self.uri} with {self.time} in {span}"

    def connection_ids(self) -> tuple[str, ...]:
        return () if self.connection is None else (self.connection,)

    def _open(self, connections: Connections) -> Any:
        from deltalake import DeltaTable

        given = None if self.connection is None else connections(self.connection)
        uri = self.uri if "://" in self.uri else str(ROOT / self.uri)
        with self._readable():
            return DeltaTable(uri, storage_options=storage_options(given))

    @contextmanager
    def _readable(self) -> Iterator[None]:
        """Tells what is wrong with the table from a store that does not answer, which may do so the next time."""
        import pyarrow as pa
        from deltalake.exceptions import DeltaError, TableNotFoundError

        try:
            yield
        except TableNotFoundError as error:
            raise DataError(self.uri, "must be a Delta table", hint="There is none at that address") from error
        except (DeltaError, pa.ArrowException, OSError) as error:
            told = str(error).split("\n")[0]
            unanswered = "Generic S3 error" in str(error) or isinstance(error, OSError)
            if "://" in self.uri and unanswered and not isinstance(error, FileNotFoundError):
                known = "the machine's own credentials" if self.connection is None else f"connection {self.connection}"
                raise ServiceError(self.uri, "the object store must answer", told, f"Check {known}") from None
            raise DataError(self.uri, "must be a readable Delta table", told) from None

    def _rows(self, table: Any, partition: Partition) -> Iterator[pa.Table]:
        import pyarrow as pa
        from pyarrow import dataset as ds

        from airworthy.columns import conform, kept_schema

        with self._readable():
            whole, chosen = self._chosen(table, partition)
            schema = kept_schema(self.uri, whole.schema)
            yield schema.empty_table()
            # A Delta log lists its files in no useful order.
            for fragment in sorted(whole.get_fragments(filter=chosen), key=lambda found: str(found.path)):
                part = ds.FileSystemDataset([fragment], whole.schema, fragment.format, fragment.filesystem)
                reading = {"batch_size": _ROWS, "batch_readahead": 1, "fragment_readahead": 1}
                for batch in part.to_batches(filter=chosen, **reading):
                    if batch.num_rows:
                        yield conform(self.uri, pa.Table.from_batches([batch]), schema)

    def _chosen(self, table: Any, partition: Partition) -> tuple[Any, Any]:
        """Returns the table and the filter for a partition's rows."""
        import pyarrow as pa
        from pyarrow import dataset as ds

        dataset = table.to_pyarrow_dataset()
        if self.time not in dataset.schema.names:
            raise DataError(f"{self.uri}: {self.time}", "must be a column", hint=f"There are {dataset.schema.names}")
        kind = dataset.schema.field(self.time).type
        if not pa.types.is_timestamp(kind):
            raise DataError(f"{self.uri}: {self.time}", "must hold timestamps", str(kind))
        start, end = (
            pa.scalar(moment if kind.tz else moment.replace(tzinfo=None), pa.timestamp("us", tz=kind.tz))
            for moment in (partition.start, partition.end)
        )
        return dataset, (ds.field(self.time) >= start) & (ds.field(self.time) < end)
