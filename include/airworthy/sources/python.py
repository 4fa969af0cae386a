"""`python: {function: "pipelines.x:extract"}`: raw rows from a user's function."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airworthy.config import Function
from airworthy.errors import DataError
from airworthy.partitions import Partition
from airworthy.sources import Source
from airworthy.user_code import call

if TYPE_CHECKING:
    import pandas as pd


class Python(Source):
    """Calls `function(start, end)`, which returns the rows whose event time is in `[start, end)`, in UTC."""

    function: Function

    def extract(self, partition: Partition) -> pd.DataFrame:
        import pandas as pd

        found = call(self.function, partition.start, partition.end)
        if not isinstance(found, pd.DataFrame):
            raise DataError(self.function, "must return a pandas DataFrame", type(found).__name__)
        return found
