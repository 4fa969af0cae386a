"""When something happened or became known: in UTC, and inside the partition that is said to hold it."""

from __future__ import annotations

from typing import Any

import pandas as pd

from airworthy.errors import DataError
from airworthy.partitions import Partition


def utc_times(where: str, times: pd.Series[Any], partition: Partition) -> pd.Series[pd.Timestamp]:
    """Returns the times in UTC; those without a time zone are taken as UTC.

    Raises:
        DataError: They are no times, missing, or outside the partition.
    """
    try:
        utc = pd.to_datetime(times, utc=True, format=None if times.dtype.kind == "M" else "ISO8601")
    except (ValueError, TypeError) as error:
        raise DataError(where, "must hold times, as timestamps or in ISO 8601", str(error)) from None
    if missing := int(utc.isna().sum()):
        raise DataError(where, "must not be missing in any row", f"{missing} rows without")
    outside = utc[(utc < partition.start) | (utc >= partition.end)]
    if len(outside):
        rule = f"must be in [{partition.start:%Y-%m-%d %H:%M}, {partition.end:%Y-%m-%d %H:%M}) UTC"
        hint = f"{len(outside)} of {len(utc)} rows are outside; filter by start and end, and mind the time zone"
        raise DataError(where, rule, str(outside.iloc[0]), hint)
    return utc
