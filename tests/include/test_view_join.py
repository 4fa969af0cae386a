"""Views join as of each row's own time: never a value that was not known then."""

from __future__ import annotations

import tempfile
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airworthy.columns import TIMESTAMP
from airworthy.config import Pipeline
from airworthy.errors import DataError, Problems
from airworthy.stages.view_join import VIEWS, join_views, joined_as_processed
from airworthy.store import Store
from view_pipeline import DAYS, TABLE, at, fill, flights, joined, pipeline, weather

MICROSECOND = timedelta(microseconds=1)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path), "flights")


def test_what_became_known_after_the_event_is_never_seen(store: Store) -> None:
    """The view knows each label a microsecond after its flight, and again on the next days; before it, nothing."""
    rng = np.random.default_rng(0)
    events = [(f"A{number}", at(24 + hour)) for number, hour in enumerate(rng.uniform(0, 24, 200))]
    label = rng.integers(0, 2, len(events))
    planted = [(origin, moment + MICROSECOND, int(late)) for (origin, moment), late in zip(events, label, strict=True)]
    planted += [(origin, at(48), int(late)) for (origin, _), late in zip(events, label, strict=True)]
    planted += [(origin, at(72), int(late)) for (origin, _), late in zip(events, label, strict=True)]
    fill(store, [(origin, at(12), -1) for origin, _ in events] + planted)
    assert joined(pipeline(), store, DAYS[1], events) == [-1] * len(events)
    a_microsecond_later = [(origin, moment + MICROSECOND) for origin, moment in events]
    assert joined(pipeline(), store, DAYS[1], a_microsecond_later) == list(label)


ORIGINS = st.sampled_from(["A", "B", None])
HOURS = st.integers(0, 71)


@settings(max_examples=60)
@given(
    known=st.lists(st.tuples(ORIGINS, HOURS, st.one_of(st.none(), st.integers(-9, 9))), min_size=1, max_size=25),
    asked=st.lists(st.tuples(ORIGINS, st.integers(24, 47)), max_size=25),
    hours=st.sampled_from([None, 1, 5, 30]),
    chunk=st.integers(1, 25),
)
def test_every_row_gets_what_looking_through_all_rows_would_give(
    known: list[tuple[Any, int, Any]], asked: list[tuple[Any, int]], hours: int | None, chunk: int
) -> None:
    declared = pipeline(max_age=hours and f"{hours} hours")
    rows = [(origin, at(hour), temp) for origin, hour, temp in known]
    events = [(origin, at(hour)) for origin, hour in asked]
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder, "flights")
        fill(store, rows)
        with join_views(declared, DAYS[1], store) as join:
            pieces = [events[start : start + chunk] for start in range(0, len(events), chunk)]
            found = [temp for piece in pieces for temp in join(flights(piece))["temp"].to_pylist()]
    assert found == [_slowly(rows, origin, moment, hours) for origin, moment in events]


def _slowly(rows: list[tuple[Any, datetime, Any]], origin: Any, moment: datetime, hours: int | None) -> Any:
    newest, found = None, None
    for place, known, temp in rows:
        if place == origin and origin is not None and known <= moment and (newest is None or known >= newest):
            newest, found = known, temp
    if newest is None or (hours is not None and moment - newest > timedelta(hours=hours)):
        return None
    return found


def test_of_several_rows_of_one_time_the_last_one_counts_even_when_its_value_is_missing(store: Store) -> None:
    fill(store, [("A", at(25), 1), ("A", at(25), 2), ("B", at(25), 1), ("B", at(25), None), ("A", at(24), 9)])
    assert joined(pipeline(), store, DAYS[1], [("A", at(26)), ("B", at(26)), ("A", at(24))]) == [2, None, 9]


def test_a_value_of_exactly_the_maximal_age_counts(store: Store) -> None:
    fill(store, [("A", at(20), 1)])
    declared = pipeline(max_age="5 hours")
    assert joined(declared, store, DAYS[1], [("A", at(25)), ("A", at(25) + MICROSECOND)]) == [1, None]


def test_days_without_rows_are_looked_through_to_the_last_value(store: Store) -> None:
    fill(store, [("A", at(1), 1)])
    assert joined(pipeline(), store, DAYS[3], [("A", at(80)), ("B", at(80))]) == [1, None]
    assert joined(pipeline(max_age="2 days"), store, DAYS[3], [("A", at(80))]) == [None]


def test_only_days_that_can_matter_are_read(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(store, [("A", at(24 * day), day) for day in range(5)])
    asked: list[Any] = []
    scan = store.scan
    monkeypatch.setattr(store, "scan", lambda *names, **rest: asked.append(rest["partitions"]) or scan(*names, **rest))
    joined(pipeline(max_age="3 hours"), store, DAYS[3], [("A", at(80))])
    joined(pipeline(), store, DAYS[2], [("A", at(50))])
    assert asked == [["2024-01-03", "2024-01-04"], ["2024-01-01", "2024-01-02", "2024-01-03"]]


def test_rows_keep_their_order_across_many_chunks(store: Store) -> None:
    rng = np.random.default_rng(1)
    fill(store, [("A", at(24 + hour), hour) for hour in range(24)])
    hours = rng.uniform(24, 48, 5_000)
    events = [("A", at(float(hour))) for hour in hours]
    assert joined(pipeline(), store, DAYS[1], events) == [int(hour - 24) for hour in hours]


def test_moments_are_compared_in_utc_also_in_the_hour_that_clocks_repeat(store: Store) -> None:
    """In Berlin 02:30 came twice on 2024-10-27; half an hour apart in UTC lies the hour that repeats."""
    local = pd.to_datetime(["2024-10-27T02:30+02:00", "2024-10-27T02:30+01:00"], utc=True).tz_convert("Europe/Berlin")
    assert [moment.hour for moment in local] == [2, 2]
    day = DAYS[0]._replace(key="2024-10-27", start=datetime.fromisoformat("2024-10-27T00:00+00:00"))
    day = day._replace(end=day.start + timedelta(days=1))
    store.write(TABLE, day, pa.table({"origin": ["A", "A"], "observed_at": local, "temp": [1, 2]}))
    summer, winter = (moment.to_pydatetime() for moment in local)
    asked = [("A", summer), ("A", winter - MICROSECOND), ("A", winter)]
    assert joined(pipeline(), store, day, asked) == [1, 1, 2]


def test_keys_of_several_columns_and_values_of_every_type(store: Store) -> None:
    moment = pa.array([at(1), at(2)], TIMESTAMP)
    rows = {
        "origin": ["A", "A"],
        "gate": pa.array([1, 2]),
        "observed_at": moment,
        "Temp Max": pa.array([1, 2]),
        "wind": pa.array([1.5, 2.5]),
        "sky": ["clear", 'over"cast'],
        "open": [True, False],
        "since": moment,
    }
    store.write(TABLE, DAYS[0], pa.table(rows))
    columns = ["Temp Max", "wind", "sky", "open", "since"]
    raw = flights([("A", at(3)), ("A", at(3)), ("A", at(3))]).append_column("gate", pa.array([2.0, 1.0, None]))
    with join_views(pipeline(key=["origin", "gate"], columns=columns), DAYS[0], store) as join:
        found = join(raw)
    assert found.schema.types[-5:] == [pa.int64(), pa.float64(), pa.string(), pa.bool_(), TIMESTAMP]
    assert [list(row.values()) for row in found.select(columns).to_pylist()] == [
        [2, 2.5, 'over"cast', False, at(2)],
        [1, 1.5, "clear", True, at(1)],
        [None] * 5,
    ]


def test_several_views_join_side_by_side(store: Store) -> None:
    fill(store, [("A", at(1), 1)])
    store.write("view_prices", DAYS[0], pa.table({"origin": ["A"], "at": pa.array([at(2)], TIMESTAMP), "fare": [9.5]}))
    prices = {**pipeline().views["weather"].model_dump(mode="json"), "time": "at", "columns": ["fare"]}
    both = {"weather": pipeline().views["weather"].model_dump(mode="json"), "prices": prices}
    declared = Pipeline.model_validate({**pipeline().model_dump(mode="json"), "views": both})
    with join_views(declared, DAYS[0], store) as join:
        found = join(flights([("A", at(1)), ("A", at(3))]))
        assert join.versions == {TABLE: store.version(TABLE), "view_prices": store.version("view_prices")}
    assert found.select(["temp", "fare"]).to_pylist() == [{"temp": 1, "fare": None}, {"temp": 1, "fare": 9.5}]


def test_what_does_not_fit_the_raw_rows_is_told_at_once(store: Store) -> None:
    fill(store, [("A", at(1), 1)])
    raw = flights([("A", at(3))]).append_column("temp", pa.array([1])).drop_columns("origin")
    with join_views(pipeline(), DAYS[0], store) as join, pytest.raises(Problems) as raised:
        join(raw)
    told = str(raised.value)
    assert "view_weather: temp: must not be a column of the raw rows of flights too" in told
    assert "view_weather: origin: must be a column of the raw rows of flights, because it is the view's key" in told
    raw = flights([("A", at(3))]).drop_columns("origin").append_column("origin", pa.array([7]))
    with (
        join_views(pipeline(), DAYS[0], store) as join,
        pytest.raises(Problems, match=r"origin: must be of one type in the view, where it is string, .* Got 'int64'"),
    ):
        join(raw)


def test_a_view_that_never_had_rows_says_what_to_do(store: Store) -> None:
    with (
        pytest.raises(DataError, match="view_weather: must have had rows before it can be joined"),
        join_views(pipeline(), DAYS[0], store),
    ):
        pass


def test_late_rows_change_what_is_joined_and_an_old_version_repeats_what_was(store: Store) -> None:
    fill(store, [("A", at(1), 1)])
    before = store.version(TABLE)
    assert before is not None
    asked = [("A", at(3))]
    assert joined(pipeline(), store, DAYS[0], asked) == [1]
    fill(store, [("A", at(1), 1), ("A", at(2), 2)])
    assert joined(pipeline(), store, DAYS[0], asked) == [2]
    assert joined(pipeline(), store, DAYS[0], asked, **{TABLE: before}) == [1]


def test_one_join_reads_one_version_from_start_to_end(store: Store) -> None:
    fill(store, [("A", at(1), 1)])
    with join_views(pipeline(), DAYS[0], store) as join:
        fill(store, [("A", at(1), 5)])
        assert join(flights([("A", at(2))]))["temp"].to_pylist() == [1]


def test_rows_of_several_days_are_joined_as_each_day_was(store: Store) -> None:
    """The views of the first two days were corrected after the features were made."""
    rows = [("A", at(24 * day), day) for day in range(4)]
    for day, row in zip(DAYS, rows, strict=False):
        fill(store, [row])
        with join_views(pipeline(), day, store) as join:
            store.write("features", day, pa.table({"flight": [1]}), facts={VIEWS: join.versions})
    version = store.version("features")
    assert version is not None
    fill(store, [("A", at(0), 100), ("A", at(24), 100)])
    raw = flights([("A", at(24 * day + 1)) for day in (3, 1, 0, 2)]).to_pandas()
    raw.index = pd.Index([7, 5, 3, 1])
    found = joined_as_processed(pipeline(), raw, store, version)
    assert found["temp"].tolist() == [3, 1, 0, 2] and list(found.index) == [7, 5, 3, 1]
    assert found[raw.columns].equals(raw)


def test_a_pipeline_without_views_is_left_alone(store: Store) -> None:
    declared = pipeline().model_copy(update={"views": {}})
    chunk = weather([("A", at(1), 1)])
    with join_views(declared, DAYS[0], store) as join:
        assert join(chunk) is chunk and join.versions == {}
