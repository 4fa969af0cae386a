"""What a pipeline file may say of views."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from airworthy.config import load_pipeline
from test_config import GOOD, folder, lines, write

__all__ = ["folder"]

WEATHER: dict[str, Any] = {
    "source": {"files": {"glob": "weather/{partition}.csv"}},
    "key": ["town"],
    "time": "observed_at",
    "columns": ["temp", "wind"],
}


def test_a_short_view_gets_every_default(folder: Path) -> None:
    view = load_pipeline(write(folder, {**GOOD, "views": {"weather": WEATHER}})).views["weather"]
    assert view.online.kind() == "sqlite" and view.age is None
    assert load_pipeline(write(folder, GOOD)).views == {}


@pytest.mark.parametrize("online", [{"postgres": {"connection": "features"}}, {"redis": {"connection": "features"}}])
def test_a_view_is_read_back_as_it_was_written(folder: Path, online: Any) -> None:
    views = {"weather": {**WEATHER, "max_age": "36 hours", "online": online}}
    found = load_pipeline(write(folder, {**GOOD, "views": views}))
    assert found.views["weather"].age == timedelta(hours=36)
    assert type(found).model_validate(found.model_dump(mode="json")) == found
    written = found.model_dump(mode="json")["views"]["weather"]
    assert (written["max_age"], written["online"]) == ("36 hours", online)


@pytest.mark.parametrize(
    ("written", "age"),
    [("30 minutes", timedelta(minutes=30)), ("90 minutes", timedelta(hours=1.5)), ("2 weeks", timedelta(days=14))],
)
def test_values_may_be_known_for_any_length_of_time(folder: Path, written: str, age: timedelta) -> None:
    views = {"weather": {**WEATHER, "max_age": written}}
    assert load_pipeline(write(folder, {**GOOD, "views": views})).views["weather"].age == age


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"key": []}, "views.weather.key must have at least 1 item"),
        ({"key": ["left"]}, "views.weather.key must not be the label, which no prediction has yet. Got 'left'."),
        ({"columns": ["left"]}, "views.weather.columns must be a column of this view alone, but is the label"),
        ({"columns": ["id"]}, "views.weather.columns must be a column of this view alone, but is the key"),
        ({"columns": ["at"]}, "views.weather.columns must be a column of this view alone, but is the time"),
        ({"columns": ["town"]}, "views.weather.columns must each be another column"),
        ({"columns": ["row"]}, "views.weather.columns must be none of failed, partition, prediction, row, version"),
        ({"max_age": "1 month"}, "views.weather.max_age must be in seconds, minutes, hours, days or weeks"),
        ({"max_age": "12 months"}, "views.weather.max_age must be in seconds, minutes, hours, days or weeks"),
        (
            {"max_age": "soon"},
            "views.weather.max_age must be a whole number of seconds, minutes, hours, days, weeks or months",
        ),
        ({"online": "redys"}, "views.weather.online must be one of postgres, redis, sqlite. Got 'redys'."),
        ({"online": {"redis": {}}}, "views.weather.online.redis.connection is required"),
        ({"source": {"files": {"glob": "all.csv"}}}, "views.weather.source.files.glob must contain {partition}"),
        ({"sauce": 1}, "views.weather.sauce is not a known key"),
    ],
)
def test_a_mistake_in_a_view_is_named_by_its_path(folder: Path, changes: dict[str, Any], problem: str) -> None:
    (line,) = lines(folder, views={"weather": {**WEATHER, **changes}})
    assert line.startswith(problem)


def test_two_views_may_not_give_the_same_column(folder: Path) -> None:
    (line,) = lines(folder, views={"weather": WEATHER, "zones": {**WEATHER, "columns": ["wind"]}})
    assert line.startswith(
        "views.zones.columns must be a column of this view alone, but is a column of the view weather."
    )


@pytest.mark.parametrize("column", ["town", "temp"])
def test_personal_columns_stay_out_of_views(folder: Path, column: str) -> None:
    (line,) = lines(folder, pii=[column], views={"weather": WEATHER})
    assert line.startswith("views.weather must not be personal (pii)")


def test_a_views_name_becomes_that_of_a_table(folder: Path) -> None:
    (line,) = lines(folder, views={"../weather": WEATHER})
    assert "../weather" in line
