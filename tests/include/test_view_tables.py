"""Views are brought in a partition at a time, and what is latest of each entity goes online."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from airworthy.columns import TIMESTAMP
from airworthy.connections import from_environment
from airworthy.content import CHUNK
from airworthy.errors import DataError, Problems, ServiceError
from airworthy.online import entity, microseconds
from airworthy.partitions import Partition
from airworthy.profile import home
from airworthy.stages import view_tables
from airworthy.stages.view_join import join_views
from airworthy.stages.view_tables import ingest_views
from airworthy.store import Store
from view_pipeline import DAYS, TABLE, at, flights, frame, joined, pipeline

SOURCE = {"python": {"function": "given_weather:extract"}}
VIEW = "flights.weather"

Give = Callable[[pd.DataFrame], None]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("AIRWORTHY_HOME", str(tmp_path / "home"))
    return Store(str(tmp_path / "store"), "flights")


@pytest.fixture
def give(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Give:
    """Decides what the source gives from now on."""
    rows = tmp_path / "rows.pickle"
    (tmp_path / "given_weather.py").write_text(
        f"import pandas as pd\n\ndef extract(start, end):\n    return pd.read_pickle({str(rows)!r})\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "given_weather", raising=False)
    return lambda found: found.to_pickle(rows)


def online(*entities: Any) -> dict[str, Any]:
    """Returns what is online of origins, by origin."""
    names = {str(entity([value])): value for value in entities}
    found = pipeline().views["weather"].online.open(from_environment).read(VIEW, list(names))
    return {names[name]: (time, json.loads(content)) for name, (time, content) in found.items()}


def test_times_become_utc_and_only_what_the_view_declares_is_kept(store: Store, give: Give) -> None:
    moments = pd.to_datetime([at(0), at(23)]).tz_convert("America/New_York")
    for observed_at in (moments, moments.map(pd.Timestamp.isoformat), moments.tz_convert("UTC").tz_localize(None)):
        give(pd.DataFrame({"temp": [1, 2], "note": ["a", "b"], "origin": ["A", "A"], "observed_at": observed_at}))
        (ref,) = ingest_views(pipeline(source=SOURCE), DAYS[0], store)
        assert ref.rows == 2
        found = store.scan(TABLE, partitions=[DAYS[0].key]).to_table()
        assert found.column_names == ["origin", "observed_at", "temp", "partition"]
        assert found["observed_at"].to_pylist() == [at(0), at(23)]
    (write,) = store.history(TABLE)  # three ways to write the same rows
    assert [origin["name"] for origin in write.facts["origins"]] == ["given_weather:extract"]


def test_what_is_wrong_with_a_views_rows_is_told_and_nothing_is_written(store: Store, give: Give) -> None:
    declared = pipeline(source=SOURCE)
    give(pd.DataFrame({"place": ["A"], "temp": [1]}))
    with pytest.raises(Problems) as raised:
        ingest_views(declared, DAYS[0], store)
    told = str(raised.value).splitlines()
    assert [line.partition(": must")[0] for line in told] == [
        "view_weather[2024-01-01]: origin",
        "view_weather[2024-01-01]: observed_at",
    ]
    good = frame([("A", at(0), 1)])
    for moment, rule in (
        (pd.NaT, "must not be missing in any row"),
        (pd.Timestamp(at(24)), r"must be in \[2024-01-01 00:00, 2024-01-02 00:00\) UTC"),
        (pd.Timestamp(at(0)) - timedelta(microseconds=1), "must be in"),
    ):
        give(pd.concat([good, good.assign(observed_at=moment)]))
        with pytest.raises(DataError, match=rf"view_weather\[2024-01-01\]: observed_at: {rule}"):
            ingest_views(declared, DAYS[0], store)
    give(good.assign(observed_at="noon"))
    with pytest.raises(DataError, match="observed_at: must hold times, as timestamps or in ISO 8601"):
        ingest_views(declared, DAYS[0], store)
    assert store.version(TABLE) is None


def test_a_partition_without_rows_is_none_and_those_before_go_on_counting(store: Store, give: Give) -> None:
    declared, none = pipeline(source=SOURCE), frame([])
    give(none)
    assert ingest_views(declared, DAYS[0], store) == ()
    give(frame([("A", at(25), 5)]))
    ingest_views(declared, DAYS[1], store)
    give(none)
    (ref,) = ingest_views(declared, DAYS[2], store)
    assert ref.rows == 0
    assert joined(declared, store, DAYS[2], [("A", at(50))]) == [5]
    assert online("A") == {"A": (microseconds(at(25)), {"temp": 5})}


def test_a_column_may_be_declared_later(store: Store, give: Give) -> None:
    rows = frame([("A", at(1), 1)]).assign(wind=2.5)
    give(rows)
    ingest_views(pipeline(source=SOURCE), DAYS[0], store)
    both = pipeline(source=SOURCE, columns=["temp", "wind"])
    with (
        pytest.raises(DataError, match=r"must have the view's columns. Got \['wind'\]"),
        join_views(both, DAYS[0], store),
    ):
        pass
    give(rows.assign(observed_at=at(25)))
    ingest_views(both, DAYS[1], store)
    with join_views(both, DAYS[1], store) as join:
        found = join(flights([("A", at(24)), ("A", at(26))]))
    assert found.select(["temp", "wind"]).to_pylist() == [{"temp": 1, "wind": None}, {"temp": 1, "wind": 2.5}]


def test_late_rows_of_a_view_change_what_a_partition_gets(store: Store, give: Give) -> None:
    declared, asked = pipeline(source=SOURCE), [("A", at(3))]
    give(frame([("A", at(1), 1)]))
    (first,) = ingest_views(declared, DAYS[0], store)
    assert joined(declared, store, DAYS[0], asked) == [1]
    (again,) = ingest_views(declared, DAYS[0], store)
    assert first.changed and not again.changed and again.version == first.version
    give(frame([("A", at(1), 1), ("A", at(2), 2), ("A", at(4), 4)]))
    (late,) = ingest_views(declared, DAYS[0], store)
    assert late.changed and joined(declared, store, DAYS[0], asked) == [2]
    assert online("A") == {"A": (microseconds(at(4)), {"temp": 4})}


def test_a_correction_takes_back_what_the_partition_itself_had_put_online(store: Store, give: Give) -> None:
    declared = pipeline(source=SOURCE)
    give(frame([("A", at(1), 1), ("A", at(23), 99)]))
    ingest_views(declared, DAYS[0], store)
    give(frame([("A", at(1), 1)]))
    ingest_views(declared, DAYS[0], store)
    assert online("A") == {"A": (microseconds(at(1)), {"temp": 1})}


@pytest.mark.parametrize("left", [[("B", at(25), 5)], []], ids=["some_rows", "no_rows"])
def test_a_correction_takes_back_the_entities_it_no_longer_has(
    store: Store, give: Give, left: list[tuple[Any, Any, Any]]
) -> None:
    declared = pipeline(source=SOURCE)
    first = [("A", at(1), 1), ("A", at(2), 2), ("C", at(3), 3)]
    wrong = [("A", at(26), 99), ("B", at(25), 5), ("E", at(27), 7)]
    for day, rows in ((0, first), (2, [("D", at(49), 9)]), (1, wrong)):
        give(frame(rows))
        ingest_views(declared, DAYS[day], store)
    give(frame(left))
    ingest_views(declared, DAYS[1], store)
    assert online(*"ABCDE") == {
        "A": (microseconds(at(2)), {"temp": 2}),  # of the day before
        "C": (microseconds(at(3)), {"temp": 3}),
        "D": (microseconds(at(49)), {"temp": 9}),
        **{name: (microseconds(moment), {"temp": temp}) for name, moment, temp in left},
    }


def test_a_table_that_was_moved_away_and_filled_again_goes_online(store: Store, give: Give) -> None:
    declared = pipeline(source=SOURCE)
    for temp in (1, 2, 3):
        give(frame([("A", at(1), temp)]))
        ingest_views(declared, DAYS[0], store)
    Path(store.uri(TABLE)).rename(Path(store.uri("moved")))
    give(frame([("A", at(1), 4)]))
    (ref,) = ingest_views(declared, DAYS[0], Store(*store.uri("").rstrip("/").rsplit("/", 1)))
    assert ref.version == 1 and online("A") == {"A": (microseconds(at(1)), {"temp": 4})}


def test_a_backfill_of_old_partitions_does_not_move_values_back(store: Store, give: Give) -> None:
    declared = pipeline(source=SOURCE)
    for day in (3, 0, 2):
        give(frame([("A", at(24 * day), day), *([("B", at(24 * day), day)] if day < 3 else [])]))
        ingest_views(declared, DAYS[day], store)
    assert online("A", "B", "C") == {
        "A": (microseconds(at(72)), {"temp": 3}),
        "B": (microseconds(at(48)), {"temp": 2}),
    }


def test_the_newest_row_of_many_chunks_goes_online(store: Store, give: Give) -> None:
    size = CHUNK + 10
    moments = pd.Series([at(1)] * size).where(np.arange(size) != 5, at(2))
    give(pd.DataFrame({"origin": "A", "observed_at": moments, "temp": range(size)}))
    ingest_views(pipeline(source=SOURCE), DAYS[0], store)
    assert online("A") == {"A": (microseconds(at(2)), {"temp": 5})}


def test_a_run_that_died_before_it_published_does_so_when_run_again(
    store: Store, give: Give, monkeypatch: pytest.MonkeyPatch
) -> None:
    declared = pipeline(source=SOURCE)
    give(frame([("A", at(1), 1)]))

    def die(*_: Any) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr(view_tables, "publish", die)
        with pytest.raises(KeyboardInterrupt):
            ingest_views(declared, DAYS[0], store)
    with pytest.raises(ServiceError, match=r"online\.db"):
        online("A")
    (ref,) = ingest_views(declared, DAYS[0], store)
    assert not ref.changed and online("A") == {"A": (microseconds(at(1)), {"temp": 1})}
    assert (home() / "online.db").exists()


@pytest.mark.parametrize("order", list(itertools.permutations(range(3)))[::2])
def test_the_latest_values_online_are_what_a_join_at_the_end_gives(
    store: Store, give: Give, order: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(len(order) + order[0])
    columns = ["count", "share", "sky", "open", "since"]
    declared = pipeline(source=SOURCE, columns=columns)
    for day in order:
        size = 200
        hours = np.sort(rng.integers(0, 24, size)) + 24 * day  # with many ties
        moments = pd.to_datetime([at(int(hour)) for hour in hours])
        rows = pd.DataFrame({"origin": rng.choice(["A", "B", "C", None], size), "observed_at": moments})
        rows["count"] = pd.array(rng.integers(0, 9, size), dtype="Int64")
        rows["share"] = rng.normal(size=size)
        rows["sky"], rows["open"] = rng.choice(["clear", 'o"v'], size), pd.array(rng.random(size) < 0.5, "boolean")
        rows["since"] = moments
        for column in columns:
            rows.loc[rng.random(size) < 0.2, column] = None
        give(rows.sample(frac=1, random_state=day))
        ingest_views(declared, DAYS[day], store)
    last: Partition = DAYS[2]
    raw = pa.table({"origin": ["A", "B", "C"], "time": pa.array([last.end - timedelta(microseconds=1)] * 3, TIMESTAMP)})
    with join_views(declared, last, store) as join:
        expected = join(raw).select(["origin", *columns]).to_pylist()
    found = {origin: content for origin, (_, content) in online("A", "B", "C").items()}
    for row in expected:
        row["since"] = None if row["since"] is None else row["since"].isoformat()
        assert found[row.pop("origin")] == row
