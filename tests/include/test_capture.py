"""What serving answered is kept, hidden where it is personal; what is not kept is counted and told."""

from __future__ import annotations

import http.client
import json
import os
import signal
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import pytest
import yaml

from airworthy.capture import Capture
from airworthy.config import Pipeline
from airworthy.connections import from_environment
from airworthy.errors import Problems
from airworthy.ledger import Entry
from airworthy.partitions import parse_key
from airworthy.profile import ROOT
from airworthy.serving.buffer import Buffer, compact, drop_older
from airworthy.serving.captured_rows import Answered
from airworthy.serving.count_file import CountFile, left_behind
from airworthy.serving.counters import Counters
from airworthy.stages.ingest import ingest
from airworthy.stages.validate import validate
from airworthy.store import Store
from serving_process import Server, promote, recorded, serving, trained
from toy_pipeline import Toy, toy_at

Champion = tuple[Entry, dict[str, Any]]

SECRET = "Zaphod Beeblebrox"
ANONYMOUS = """
def features(frame):
    return frame[["distance", "wind"]]
"""


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory, mlflow_uri: str) -> Iterator[Toy]:
    with pytest.MonkeyPatch.context() as patched:
        toy = toy_at(tmp_path_factory.mktemp("capture"), mlflow_uri, patched)
        patched.setenv("AIRWORTHY_STORE_URI", toy.profile.store_uri)
        for name, value in toy.environment({}).items():
            patched.setenv(name, value)
        yield toy


@pytest.fixture(scope="module")
def champion(toy: Toy) -> Champion:
    pipeline = declared(toy)
    toy.fill(pipeline, toy.rows())
    challenger = trained(toy, pipeline)
    return promote(toy, challenger), recorded(toy, challenger)


def declared(toy: Toy, **capture: Any) -> Pipeline:
    return toy.pipeline(features=None, capture={"flush": "1 second", **capture})


def with_workers(toy: Toy, count: int) -> None:
    folder = toy.folder / "config" / "profiles"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "base.yaml").write_text((ROOT / "config" / "profiles" / "base.yaml").read_text())
    (folder / "local.yaml").write_text(yaml.safe_dump({"serving": {"workers": count}}))


def body(found: dict[str, Any], count: int = 1) -> dict[str, Any]:
    return {"dataframe_split": {"columns": found["columns"], "data": found["data"][:count]}}


def captured(toy: Toy) -> pd.DataFrame:
    store = Store(toy.profile.store_uri, toy.name)
    return store.read("captured") if store.version("captured") is not None else pd.DataFrame({"captured_request": []})


def not_captured(toy: Toy, outcome: str) -> int:
    store = Store(toy.profile.store_uri, toy.name)
    found = store.read("captured_loss") if store.version("captured_loss") is not None else pd.DataFrame({"outcome": []})
    return int(found[found["outcome"] == outcome]["rows"].sum()) if len(found) else 0


def told(server: Server, toy: Toy) -> dict[str, Any]:
    return dict(server.get("/ping").body["pipelines"][toy.name]["captured"])


def left(toy: Toy) -> list[Path]:
    return [*(toy.folder / "home" / "captured").rglob("*.*")]


def test_answers_are_kept_with_what_is_known_of_their_request(toy: Toy, champion: Champion) -> None:
    entry, found = champion
    declared(toy)
    with serving(toy) as server:
        server.wait_for_version(entry)
        assert len(server.post(body(found)).headers["x-request-id"]) == 32
        server.headers |= {"X-Request-Id": "mine", "X-Features-Version": "7", "X-Features-Time": "2013-02-03T04:05:06"}
        answer = server.post(body(found, 3))
        assert (answer.status, answer.headers["x-request-id"]) == (200, "mine")
        refused = server.post({"dataframe_records": [{}]})
        assert (refused.status, refused.headers["x-request-id"]) == (400, "mine")
        server.wait(lambda: told(server, toy)["written"] == 4)
        assert told(server, toy) == {"written": 4, "dropped": 0, "lost": 0}
        said = f'airworthy_captured_rows_total{{pipeline="{toy.name}",outcome="written"}} 4'
        assert said in server.get("/metrics").body
    kept = captured(toy)
    require_hours(toy, kept)
    kept = kept[kept["captured_request"] == "mine"]
    assert kept["captured_row"].tolist() == [0, 1, 2]
    assert kept["prediction"].tolist() == pytest.approx(answer.body["predictions"])
    assert set(kept["version"]) == {entry.version} and set(kept["captured_sequence"]) == {entry.sequence}
    assert set(kept["captured_features_version"]) == {"7"}
    assert set(kept["captured_features_time"]) == {pd.Timestamp("2013-02-03T04:05:06Z")}
    assert kept["captured_seconds"].between(0, 30, inclusive="neither").all()
    sent = pd.DataFrame(found["data"][:3], columns=found["columns"])
    assert kept["wind"].tolist() == pytest.approx(sent["wind"].astype(float).tolist(), nan_ok=True)
    assert kept["carrier_name"].tolist() == sent["carrier_name"].tolist()
    assert kept["time"].tolist() == pd.to_datetime(sent["time"], utc=True).tolist()


def require_hours(toy: Toy, kept: pd.DataFrame) -> None:
    hours = {f"{moment:%Y-%m-%dT%H}" for moment in kept["captured_at"]}
    assert set(Store(toy.profile.store_uri, toy.name).partitions("captured")) == hours
    assert (pd.Timestamp.now("UTC") - kept["captured_at"]).max() < pd.Timedelta(minutes=30)


def test_no_file_holds_what_was_declared_personal_since_the_training(toy: Toy) -> None:
    (toy.folder / "code" / "anonymous.py").write_text(ANONYMOUS)
    other = replace(toy, name=f"{toy.name}_other")
    file = toy.folder / "config" / "pipelines" / f"{other.name}.yaml"
    pipeline = other.pipeline(features="anonymous:features")
    other.fill(pipeline, other.rows())
    challenger = trained(other, pipeline)
    entry, found = promote(other, challenger), recorded(other, challenger)
    other.pipeline(features="anonymous:features", pii=["carrier_name", "flight"])
    place = found["columns"].index("carrier_name")
    data = [[SECRET if position == place else value for position, value in enumerate(row)] for row in found["data"]]
    data[1][place] = None
    with serving(other) as server:
        server.wait_for_version(entry)
        assert server.post(body({**found, "data": data}, 3), other.name).status == 200
    kept = captured(other)
    assert kept["carrier_name"].tolist() == ["[masked]", None, "[masked]"]
    assert kept["flight"].isna().all() and kept["day"].notna().all()
    require_hidden(other)
    file.unlink()


def require_hidden(toy: Toy) -> None:
    files = [file for name in ("store", "home") for file in (toy.folder / name).rglob("*") if file.is_file()]
    assert len(files) > 10
    for file in files:
        assert SECRET.encode() not in file.read_bytes(), file
        if file.suffix == ".parquet":
            assert SECRET not in pd.read_parquet(file).to_csv(), file


def test_a_share_is_chosen_by_the_request_id_which_must_be_one(toy: Toy, champion: Champion) -> None:
    entry, found = champion
    declared(toy, share=0.25)
    with serving(toy) as server:
        server.wait_for_version(entry)
        for number in range(80):
            server.headers["X-Request-Id"] = f"share-{number % 40}"
            assert server.post(body(found)).status == 200
        for name, value in [
            ("X-Request-Id", "x" * 201),
            ("X-Request-Id", "a\tb"),
            ("X-Features-Version", "\xe9"),
            ("X-Features-Time", "soon"),
        ]:
            server.headers = {name: value}
            answer = server.post(body(found))
            assert answer.status == 400 and answer.body["detail"].startswith(f"request: {name}: must be ")
            assert len(answer.headers["x-request-id"]) == 32
    kept = captured(toy)
    kept = kept[kept["captured_request"].str.startswith("share-")]
    chosen = {f"share-{number}" for number in range(40) if zlib.crc32(f"share-{number}".encode()) < 2**30}
    assert set(kept["captured_request"]) == chosen and 2 < len(chosen) < 20
    assert set(kept["captured_request"].value_counts()) == {2}


@contextmanager
def asking(server: Server, found: dict[str, Any], name: str, clients: int = 2) -> Iterator[list[str]]:
    """Yields the ids of the requests that were answered, until the server or the block ends."""
    answered: list[str] = []
    done = threading.Event()
    content = json.dumps(body(found))

    def ask(client: int) -> None:
        connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=30)
        number = 0
        while not done.is_set():
            number += 1
            request = f"{name}-{client}-{number}"
            try:
                connection.request("POST", "/invocations", content, {"X-Request-Id": request})
                answer = connection.getresponse()
                answer.read()
            except (OSError, http.client.HTTPException):
                break
            if answer.status != 200:
                break
            answered.append(request)
        connection.close()

    threads = [threading.Thread(target=ask, args=[client]) for client in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield answered
    finally:
        done.set()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize("workers", [1, 2])
def test_what_kill_9_loses_is_told_by_the_next_start(toy: Toy, champion: Champion, workers: int) -> None:
    entry, found = champion
    declared(toy, flush="2 seconds")
    with_workers(toy, workers)
    before = not_captured(toy, "lost")
    with serving(toy) as server:
        server.wait_for_version(entry)
        with asking(server, found, f"killed-{workers}") as answered:
            server.wait(lambda: told(server, toy)["written"] > 20)
            threading.Event().wait(0.7)  # so that some wait in memory
            for process in [server.process, *psutil.Process(server.process.pid).children(recursive=True)]:
                os.kill(process.pid, signal.SIGKILL)
            server.process.wait()
    kept = set(captured(toy)["captured_request"])
    missing = sum(request not in kept for request in answered)
    assert 0 < missing < len(answered)
    with_workers(toy, 1)  # of several each would tell at once only what it has found itself
    with serving(toy) as server:
        server.wait_for_version(entry)
        server.wait(lambda: told(server, toy)["lost"] and not any(path.suffix == ".counts" for path in left(toy)))
        reported = told(server, toy)["lost"]
        print(f"answered {len(answered)}, not captured {missing}, reported {reported}")
        # An answer is counted just before it is sent: each worker may have been killed in between, once.
        assert missing <= reported <= missing + workers
        said = f'airworthy_captured_rows_total{{pipeline="{toy.name}",outcome="lost"}} {reported}'
        assert said in server.get("/metrics").body
        assert not_captured(toy, "lost") - before == reported
        assert server.post(body(found)).status == 200
    assert not_captured(toy, "lost") - before == reported and left(toy) == []


def test_what_the_dead_left_is_dealt_with_once(tmp_path: Path) -> None:
    living = CountFile(tmp_path)
    living.take(5)
    assert list(left_behind(tmp_path)) == []
    living.close(told=False)
    for counts in left_behind(tmp_path):
        assert (counts.worker, counts.taken, counts.dropped) == (living.worker, 5, 0)
        assert list(left_behind(tmp_path)) == []  # somebody is dealing with it
        break
    assert [counts.taken for counts in left_behind(tmp_path)] == [5]  # who did not come to an end
    assert list(left_behind(tmp_path)) == list(tmp_path.iterdir()) == []


def test_an_hour_becomes_one_file_and_what_is_added_once_stays_so(tmp_path: Path) -> None:
    store = Store(str(tmp_path), "churn")
    rows = pa.table({"number": [1, 2], "late": [True, None]})
    for written in (2, 4, 4, 6):  # the third is one that was written already
        store.append("captured", ["2013-01-01T00", "2013-01-01T01"], rows, once=("worker", written))
    compact(store, "2013-01-01T00")
    files = [file.rpartition("/")[0] for file in store.scan("captured").files]
    assert files.count("partition=2013-01-01T00") == 1 and files.count("partition=2013-01-01T01") == 3
    store.append("captured", "2013-01-01T01", pa.table({"number": [2.5], "name": ["x"]}), once=("other", 1))
    kept = store.read("captured")
    assert sorted(kept["number"]) == [1, 1, 1, 2, 2, 2, 2.5]
    assert kept["name"].tolist().count("x") == 1 and kept["late"].isna().sum() == 4
    assert [store.appended("captured", name) for name in ("worker", "other", "nobody")] == [6, 1, 0]
    with pytest.raises(Problems, match="number: must hold"):
        store.append("captured", "2013-01-01T01", pa.table({"number": ["many"]}), once=("other", 2))
    assert store.appended("captured", "other") == 1


def test_what_was_written_by_a_write_that_failed_is_not_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Lossy(Store):
        """Loses the reply of every other write, after the commit."""

        writes = 0

        def append(self, *given: Any, **named: Any) -> None:
            super().append(*given, **named)
            self.writes += 1
            if self.writes % 2:
                raise OSError("the reply was lost")

    def numbers(answers: list[Answered]) -> tuple[list[str], pa.Table]:
        found = [int(number) for answer in answers for number in answer.prediction]
        return ["2013-01-01T00"] * len(found), pa.table({"number": found})

    def answer(champion: Any, *found: int) -> Answered:
        return Answered(champion, None, 0, 0, {}, np.array(found), size=10)  # type: ignore[arg-type]

    monkeypatch.setattr("airworthy.serving.buffer.table_of", numbers)
    store, counters = Lossy(str(tmp_path / "store"), "churn"), Counters()
    buffer = Buffer("churn", store, tmp_path / "counts", Capture(), counters, threading.Event())
    one, other = SimpleNamespace(), SimpleNamespace()
    buffer.take(answer(one, 1, 2))
    buffer.take(answer(one, 3))
    buffer.write(now=True)
    assert "the reply was lost" in buffer.table.trouble
    for taken in (answer(one, 4), answer(other, 5, 6), answer(one, 7)):
        buffer.take(taken)
        buffer.write(now=True)
    while buffer.table.trouble:
        buffer.write(now=True)
    assert sorted(store.read("captured")["number"]) == [1, 2, 3, 4, 5, 6, 7]
    assert buffer._held == 0 and counters.by("outcome", "airworthy_captured_rows") == {"written": 7}


def test_hours_older_than_captured_rows_are_kept_are_dropped_and_no_others(tmp_path: Path) -> None:
    store = Store(str(tmp_path), "churn")
    hours = [f"2013-01-0{day}T{hour:02}" for day in (1, 2, 3) for hour in (0, 12)]
    store.append("captured", hours, pa.table({"number": [*range(6)]}), once=("worker", 6))
    now = datetime(2013, 1, 3, 12, 30, tzinfo=UTC)
    drop_older(store, Capture(), now)
    assert store.partitions("captured") == hours
    for _ in range(2):
        drop_older(store, Capture.model_validate({"keep": "1 day"}), now)
        assert store.partitions("captured") == ["2013-01-02T12", "2013-01-03T00", "2013-01-03T12"]
    assert store.read("captured")["number"].tolist() == [3, 4, 5]
    assert store.appended("captured", "worker") == 6


@pytest.mark.parametrize("policy", ["drop", "push_back"])
def test_on_a_full_disk_the_policy_holds_and_nothing_goes_uncounted(toy: Toy, champion: Champion, policy: str) -> None:
    entry, found = champion
    declared(toy, when_full=policy, buffer_bytes=5_000)
    kept, dropped = len(captured(toy)), not_captured(toy, "dropped")
    with serving(toy) as server:
        server.wait_for_version(entry)
        assert server.post(body(found)).status == 200
        server.wait(lambda: told(server, toy)["written"] == 1)
        process = psutil.Process(server.process.pid)
        soft, hard = process.rlimit(psutil.RLIMIT_FSIZE)
        process.rlimit(psutil.RLIMIT_FSIZE, (0, hard))  # from now on no file can grow by a byte
        answers = [server.post(body(found)) for _ in range(60)]
        server.wait(lambda: "trouble" in told(server, toy))
        print(told(server, toy))
        answers += [server.post(body(found)) for _ in range(60)]
        given = sum(answer.status == 200 for answer in answers)
        lacking = told(server, toy)["dropped"]
        if policy == "drop":
            assert given == 120 and 60 < lacking < 120
        else:
            refused = [answer for answer in answers if answer.status != 200]
            assert {answer.status for answer in refused} == {503} and 60 < len(refused) < 120 and lacking == 0
            assert "capture: buffer_bytes: must have room for the answer" in refused[0].body["detail"]
            assert refused[0].headers["retry-after"] == "1"
        assert told(server, toy)["written"] == 1
        process.rlimit(psutil.RLIMIT_FSIZE, (soft, hard))
        server.wait(lambda: "trouble" not in told(server, toy))
        assert told(server, toy)["written"] == 1 + given - lacking
        assert server.post(body(found)).status == 200
    assert len(captured(toy)) - kept == 2 + given - lacking
    assert not_captured(toy, "dropped") - dropped == lacking and left(toy) == []
    assert [*(toy.folder / "store" / toy.name).rglob("*#*")] == [], "no part of a file is left"


def test_kept_rows_are_learned_from_once_their_labels_are_there(toy: Toy, champion: Champion) -> None:
    entry, found = champion
    declared(toy)
    with serving(toy) as server:
        server.wait_for_version(entry)
        for _ in range(2):  # asked twice, and learned from once
            assert server.post(body(found, 50)).status == 200
    asked = pd.DataFrame(found["data"][:50], columns=found["columns"])
    asked["time"] = pd.to_datetime(asked["time"], utc=True)
    month = parse_key("month", f"{asked['time'].iloc[0]:%Y-%m}-01")
    key = ["flight", "day"]
    wanted = asked[(asked["time"] >= month.start) & (asked["time"] < month.end)].sort_values(key)
    source = {
        "pipeline": toy.name,
        "key": key,
        "time": "time",
        "labels": {"files": {"glob": f"{toy.folder}/{{partition}}.parquet"}},
    }
    checks = {"expectations": [{"expect_column_values_to_not_be_null": {"column": "distance"}}]}
    learning = toy.pipeline(source={"captured": source}, checks=checks)
    learning = learning.model_copy(update={"name": f"{toy.name}_again"})
    assert not learning.source.available(month, from_environment)
    wanted[key].assign(late=True).iloc[1:].to_parquet(toy.folder / f"{month.key}.parquet", index=False)
    assert learning.source.available(month, from_environment)
    store = Store(toy.profile.store_uri, learning.name)
    ref = ingest(learning, month, store)
    raw = store.read("raw")
    assert [*raw] == [*found["columns"], "late"] and ref.rows == len(raw) == len(wanted) > 1
    assert raw[key].to_numpy().tolist() == wanted[key].to_numpy().tolist()
    assert raw["distance"].tolist() == pytest.approx(wanted["distance"].tolist())
    assert raw["late"].isna().tolist() == [True] + [False] * (len(raw) - 1)
    validated = validate(learning, month, ref, store, toy.profile.reports_dir)
    assert (validated.rows, validated.good_rows, validated.failures) == (len(raw), len(raw), ())
