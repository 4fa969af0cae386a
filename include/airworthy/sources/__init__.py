"""Sources: where a partition of raw rows comes from. One file per kind."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from airworthy.kinds import Kind
from airworthy.partitions import Partition

if TYPE_CHECKING:
    import pandas as pd


class Source(Kind):
    """A declared origin of raw rows. Its fields are its keys in a pipeline file."""

    @abstractmethod
    def extract(self, partition: Partition) -> pd.DataFrame:
        """Returns the raw rows of one partition, the same rows each time it is asked.

        Raises:
            DataError: The rows are not there or cannot be read.
        """
