"""`python: {function: "pipelines.x:extract"}`: raw rows from a user's function."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from airworthy.config import Function
from airworthy.connections import Connections
from airworthy.errors import DataError
from airworthy.partitions import Partition
from airworthy.sources import Extracted, Origin, Source
from airworthy.user_code import call, digest, drawn

if TYPE_CHECKING:
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
        names: set[str] = set()
        for frame in drawn(self.function, frames):
            chunk = self._table(frame)
            names = names or set(chunk.column_names)
            if differing := sorted(names ^ set(chunk.column_names)):
                hint = "These are in one of two chunks only"
                raise DataError(self.function, "must give the same columns in every chunk", differing, hint)
            yield chunk

    def _table(self, frame: Any) -> pa.Table:
        import pandas as pd

        from airworthy.columns import from_frame, normal

        if not isinstance(frame, pd.DataFrame):
            raise DataError(self.function, "must give pandas DataFrames only", type(frame).__name__)
        return normal(self.function, from_frame(self.function, frame))
