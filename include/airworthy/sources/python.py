"""`python: {function: "pipelines.x:extract"}`: raw rows from a user's function."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from airworthy.config import Function
from airworthy.connections import Connections
from airworthy.errors import DataError
from airworthy.partitions import Partition
from airworthy.sources import Extracted, Origin, Source
from airworthy.user_code import call, digest

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


class Python(Source):
    """Calls `function(start, end)`, which returns the rows whose event time is in `[start, end)`, in UTC.

    It returns a pandas DataFrame, or an iterator of them when there are more rows than fit in memory.
    """

    function: Function

    def extract(self, partition: Partition, connections: Connections) -> Extracted:
        import pandas as pd

        found = call(self.function, partition.start, partition.end)
        if isinstance(found, pd.DataFrame):
            found = iter([found])
        if not isinstance(found, Iterator):
            rule = "must return a pandas DataFrame, or an iterator of DataFrames"
            raise DataError(self.function, rule, type(found).__name__)
        return Extracted(self._tables(found), (Origin(self.function, digest(self.function)),))

    def _tables(self, frames: Iterator[Any]) -> Iterator[pa.Table]:
        for frame in frames:
            yield _table(self.function, frame)


def _table(function: str, frame: pd.DataFrame) -> pa.Table:
    import pyarrow as pa

    return pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata()
