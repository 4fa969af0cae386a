"""Sources: where a partition of raw rows comes from. One file per kind."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airworthy.connections import Connections
from airworthy.kinds import Kind
from airworthy.partitions import Partition

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


@dataclass(frozen=True)
class Origin:
    """One thing that rows came from.

    Attributes:
        name: A file, a table, a query or a function.
        version: What tells its content apart: a SHA-256, an ETag, a table's version.
        size: Its bytes, if it has any.
    """

    name: str
    version: str
    size: int | None = None


@dataclass(frozen=True)
class Extracted:
    """The rows of one partition, and what they came from.

    Attributes:
        rows: The rows in chunks that fit in memory, each with the same columns; a column may be of int64 in one,
            of float64 in another, and without a value or type in a third. Can be gone through once, and raises
            `DataError` where a row cannot be read.
        origins: Everything the rows came from, in their order.
    """

    rows: Iterator[pa.Table]
    origins: tuple[Origin, ...]

    def frame(self) -> pd.DataFrame:
        """Returns all rows at once, for callers who know that they fit."""
        import pandas as pd
        import pyarrow as pa

        chunks = list(self.rows)
        return pa.concat_tables(chunks, promote_options="permissive").to_pandas() if chunks else pd.DataFrame()


class Source(Kind):
    """A declared origin of raw rows. Its fields are its keys in a pipeline file."""

    @abstractmethod
    def extract(self, partition: Partition, connections: Connections) -> Extracted:
        """Returns the raw rows of one partition, the same rows each time it is asked.

        Args:
            partition: Which rows.
            connections: Resolves the connection ids that the source names.

        Raises:
            DataError: The rows are not there or cannot be read.
            ConfigError: A connection is not defined.
            ServiceError: The service that has the rows does not answer.
        """

    def available(self, partition: Partition, connections: Connections) -> bool:
        """Returns whether the partition's rows are there yet.

        Raises:
            ServiceError: The service that has the rows does not answer.
        """
        return True

    def awaited(self, partition: Partition) -> str:
        """Returns what `available` looks for, in words."""
        return f"the rows of {partition.key}"

    def connection_ids(self) -> tuple[str, ...]:
        """Returns the ids that `extract` and `available` ask `connections` for."""
        return ()
