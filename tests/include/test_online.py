"""The online stores keep the newest values, whoever writes them in whatever order."""

from __future__ import annotations

import itertools
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import online_stores
from airworthy import kinds
from airworthy.connections import from_environment
from airworthy.errors import ConfigError, ServiceError
from airworthy.online import BATCH, Latest, Online, Opened, entity

KINDS = ("sqlite", "postgres", "redis")
VIEW = "flights.weather"
WRITER = """
import json, random, sys
from airworthy import kinds
from airworthy.connections import from_environment
from airworthy.online import Latest

declared, rows = json.loads(sys.argv[1]), [Latest(*row) for row in json.loads(sys.argv[2])]
store = kinds.parse("online", declared).open(from_environment)
random.shuffle(rows)
print("ready", flush=True)
sys.stdin.read()
for row in rows:
    store.write("flights.weather", [row])
"""


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """A kind and the address of its server, if it has one."""
    if reason := online_stores.reason_to_skip(request.param):
        pytest.skip(reason)
    if request.param == "sqlite":
        yield request.param, ""
        return
    with getattr(online_stores, request.param)() as uri:
        yield request.param, uri


@pytest.fixture
def declared(kind: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    name, uri = kind
    monkeypatch.setenv("AIRWORTHY_HOME", str(tmp_path / "home"))
    if not uri:
        return {name: {}}
    monkeypatch.setenv("AIRFLOW_CONN_ONLINE", uri)
    return {name: {"connection": "online"}}


@pytest.fixture
def store(declared: dict[str, Any]) -> Iterator[Opened]:
    found = kinds.parse("online", declared)
    assert isinstance(found, Online)
    yield found.open(from_environment)
    if "postgres" in declared:
        import sqlalchemy as sa

        with sa.create_engine(from_environment("online").uri).begin() as open_:
            open_.execute(sa.text("DROP TABLE IF EXISTS airworthy_online"))
    if "redis" in declared:
        import redis

        redis.Redis.from_url(from_environment("online").uri).flushall()


def test_what_was_written_is_read_in_one_go(store: Opened) -> None:
    names = [f'["köln \\" {number}"]' for number in range(2 * BATCH + 1)]
    store.write(VIEW, [Latest(name, 1, 1, number, json.dumps({"a b": name})) for number, name in enumerate(names)])
    found = store.read(VIEW, [*names[::500], '["nobody"]'])
    assert found == {name: (number, json.dumps({"a b": name})) for number, name in list(enumerate(names))[::500]}


def test_an_older_partition_never_replaces_a_newer_one(store: Opened) -> None:
    versions = [
        Latest("[1]", partition, version, partition, f"{partition}.{version}")
        for partition, version in itertools.product((10, 20, 30), (1, 2))
    ]
    for order in itertools.permutations(versions, 3):
        view = f"flights.{'-'.join(row.content for row in order)}"
        for row in order:
            store.write(view, [row])
        newest = max(order, key=lambda row: (row.partition, row.version))
        assert store.read(view, ["[1]"]) == {"[1]": (newest.time, newest.content)}, order


def test_a_corrected_partition_replaces_its_own_values_even_by_earlier_ones(store: Opened) -> None:
    store.write(VIEW, [Latest("[1]", 10, 1, 19, "wrong")])
    store.write(VIEW, [Latest("[1]", 10, 2, 15, "right")])
    store.write(VIEW, [Latest("[1]", 10, 2, 15, "right")])
    assert store.read(VIEW, ["[1]"]) == {"[1]": (15, "right")}


def test_what_a_partition_no_longer_has_is_taken_back(store: Opened) -> None:
    names = [f"[{number}]" for number in range(3 * BATCH)]
    store.write(VIEW, [Latest(name, 10, 1, 1, "wrong") for name in names])
    store.write(VIEW, [Latest('["older"]', 9, 1, 1, "stays"), Latest(names[1], 11, 1, 1, "newer")])
    store.write(VIEW, [Latest(names[0], 10, 2, 1, "right")])
    store.write("trains.weather", [Latest(names[2], 10, 1, 1, "stays")])
    assert store.retract(VIEW, 10, 1) == []
    assert sorted(store.retract(VIEW, 10, 2)) == sorted(names[2:])
    expected = {'["older"]': (1, "stays"), names[0]: (1, "right"), names[1]: (1, "newer")}
    assert store.read(VIEW, [*names, '["older"]']) == expected
    assert store.read("trains.weather", names[:3]) == {names[2]: (1, "stays")}


def test_views_do_not_mix(store: Opened) -> None:
    store.write("flights.weather", [Latest("[1]", 1, 1, 1, "rain")])
    store.write("trains.weather", [Latest("[1]", 2, 1, 1, "snow")])
    assert store.read("flights.weather", ["[1]"]) == {"[1]": (1, "rain")}


def test_the_newest_wins_among_processes_that_write_at_once(store: Opened, declared: dict[str, Any]) -> None:
    rows = [
        Latest(f"[{entity}]", partition, version, partition, f"{partition}.{version}")
        for partition in (1_700_000_000_000_000, 1_700_000_000_000_001, 1_700_000_086_400_000)
        for version in (1, 2, 10)
        for entity in range(4)
    ]
    commands = [[sys.executable, "-c", WRITER, json.dumps(declared), json.dumps(rows[n::4])] for n in range(4)]
    writers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for command in commands]
    for writer in writers:
        assert writer.stdout is not None and writer.stdout.readline() == b"ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.close()  # the start of the race
    assert [writer.wait(timeout=120) for writer in writers] == [0] * 4
    newest = (1_700_000_086_400_000, "1700000086400000.10")
    names = [f"[{number}]" for number in range(4)]
    assert store.read(VIEW, names) == dict.fromkeys(names, newest)


def test_a_store_without_the_view_is_no_store_of_unknown_entities(store: Opened) -> None:
    store.write("flights.prices", [Latest("[1]", 1, 1, 1, "{}")])
    with pytest.raises(ServiceError, match=r"must hold the latest values of flights\.weather.* Run flights\.ingest"):
        store.read(VIEW, ["[1]"])
    assert store.read("flights.prices", ["[2]"]) == {}


@pytest.mark.parametrize(
    ("declared", "uri"),
    [
        ({"postgres": {"connection": "gone"}}, "postgres://someone:secret@127.0.0.1:1/db"),
        ({"redis": {"connection": "gone"}}, "redis://:secret@127.0.0.1:1/0"),
        ("sqlite", None),
    ],
)
def test_a_store_that_does_not_answer_is_named(
    declared: Any, uri: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = declared if isinstance(declared, str) else next(iter(declared))
    if kind == "redis" and online_stores.reason_to_skip(kind) == online_stores.NO_REDIS_CLIENT:
        pytest.skip(online_stores.NO_REDIS_CLIENT)
    monkeypatch.setenv("AIRWORTHY_HOME", str(tmp_path))
    monkeypatch.setenv("AIRFLOW_CONN_GONE", uri or "")
    found = kinds.parse("online", declared)
    assert isinstance(found, Online)
    with pytest.raises(ServiceError) as raised:
        found.open(from_environment).read(VIEW, ["[1]"])
    assert ("connection gone" if uri else "online.db") in str(raised.value)
    assert "secret" not in str(raised.value)


def test_a_connection_that_is_not_defined_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_NOWHERE", raising=False)
    found = kinds.parse("online", {"postgres": {"connection": "nowhere"}})
    assert isinstance(found, Online)
    with pytest.raises(ConfigError, match="connection nowhere: must be defined"):
        found.open(from_environment)


def test_a_password_without_a_user_reaches_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_ONLINE", "redis://:se%40cret@127.0.0.1:6379/2")
    assert from_environment("online").uri == "redis://:se%40cret@127.0.0.1:6379/2"


@pytest.mark.parametrize(
    ("offline", "online"),
    [
        ([5], [5.0]),
        (["JFK", True], ["JFK", True]),
        ([datetime(2024, 1, 1, tzinfo=UTC)], [pd.Timestamp("2024-01-01T01:00+01:00")]),
        ([0.5], [0.5]),
    ],
)
def test_an_entity_is_the_same_offline_and_online(offline: list[Any], online: list[Any]) -> None:
    assert entity(offline) == entity(online) is not None


@pytest.mark.parametrize("missing", [None, math.nan, pd.NaT])
def test_an_entity_with_a_part_missing_is_none(missing: Any) -> None:
    assert entity(["JFK", missing]) is None


def test_different_entities_are_different_texts() -> None:
    values: list[list[Any]] = [[1], ["1"], [True], [1, 1], ["1", ""], ["", "1"], ['1","1'], ["1", "1"], [0.1], ["JFK"]]
    assert len({entity(value) for value in values}) == len(values)
