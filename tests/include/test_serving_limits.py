"""Who may ask, and how much: every request that is refused is told why, and costs no memory."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from airworthy.errors import ConfigError
from airworthy.ledger import Entry
from airworthy.profile import ROOT, Profile, Serving
from airworthy.serving.token import required_token
from serving_process import Server, promote, recorded, serving, trained
from toy_pipeline import Toy, toy_at

TOKEN = "a-token-of-this-test-only"
CARRIED = {"Authorization": f"Bearer {TOKEN}"}
LIMITS = {"request_bytes": 100_000, "held_bytes": 250_000, "rows": 50, "requests": 8, "seconds": 10}


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory, mlflow_uri: str) -> Iterator[Toy]:
    with pytest.MonkeyPatch.context() as patched:
        yield toy_at(tmp_path_factory.mktemp("limits"), mlflow_uri, patched)


@pytest.fixture(scope="module")
def champion(toy: Toy) -> tuple[Entry, dict[str, Any]]:
    pipeline = toy.pipeline(features=None)
    toy.fill(pipeline, toy.rows())
    challenger = trained(toy, pipeline)
    return promote(toy, challenger), recorded(toy, challenger)


@pytest.fixture(scope="module")
def server(toy: Toy, champion: tuple[Entry, dict[str, Any]]) -> Iterator[Server]:
    declare(toy, **LIMITS)
    with serving(toy, AIRWORTHY_SERVING_TOKEN=TOKEN) as running:
        running.wait_for_version(champion[0])
        yield running


def declare(toy: Toy, **settings: Any) -> None:
    folder = toy.folder / "config" / "profiles"
    folder.mkdir(exist_ok=True)
    base = yaml.safe_load((ROOT / "config" / "profiles" / "base.yaml").read_text())
    (folder / "base.yaml").write_text(yaml.safe_dump({**base, "serving": {**base["serving"], **settings}}))
    (folder / "local.yaml").write_text("{}")


def ask(server: Server, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Any:
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=30)
    connection.request(method, path, body, headers or {})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, answer.headers, content


def refusal(server: Server, body: Any, kind: str = "application/json") -> tuple[int, str, str]:
    status, headers, content = ask(server, "POST", "/invocations", body, {**CARRIED, "Content-Type": kind})
    said = json.loads(content)
    assert said["model_version"] == headers["X-Model-Version"]
    return status, said["detail"], said["model_version"]


def memory(server: Server) -> float:
    """Returns the most megabytes that the process has ever had."""
    lines = Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


ROUTES = ["/ping", "/models", "/metrics", "/docs", "/redoc", "/openapi.json", "/invocations", "/no/such"]


@pytest.mark.parametrize("path", ROUTES)
def test_no_route_is_open_without_the_token(server: Server, path: str) -> None:
    wrong = ["", "Bearer", "Bearer ", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"Basic {TOKEN}", TOKEN]
    for headers in [{}, *({"Authorization": value} for value in wrong)]:
        for method in ("GET", "POST"):
            status, told, content = ask(server, method, path, headers=headers)
            assert (status, told["WWW-Authenticate"]) == (401, "Bearer"), (method, headers)
            assert "must be `Bearer <token>`" in json.loads(content)["detail"]
    assert ask(server, "GET", path, headers=CARRIED)[0] in (200, 404, 405)


def test_a_token_is_needed_where_others_could_ask(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    def profile(token: str) -> Profile:
        return toy.profile.model_copy(update={"serving": Serving.model_validate({"token": token})})

    assert required_token(profile(""), "127.0.0.1") == required_token(profile(""), "::1") == ""
    assert required_token(profile(TOKEN), "0.0.0.0") == TOKEN
    for host in ("0.0.0.0", "192.0.2.1", "::", "example.org"):
        with pytest.raises(ConfigError, match=f"must be set, because .* Got 'profile local, address {host}'"):
            required_token(profile(""), host)
    with pytest.raises(ConfigError, match=r"must be at least 16 characters long. Got '3 characters'"):
        required_token(profile("abc"), "127.0.0.1")
    monkeypatch.setenv("AIRWORTHY_PROFILE", "aws")
    with pytest.raises(ConfigError, match=r"Got 'profile aws, address 127\.0\.0\.1'"):
        required_token(profile(""), "127.0.0.1")
    assert TOKEN not in repr(profile(TOKEN)) and TOKEN not in profile(TOKEN).model_dump_json()


def test_a_process_without_token_refuses_to_bind_elsewhere(toy: Toy) -> None:
    environment = toy.environment({"AIRWORTHY_SERVING_TOKEN": ""})
    command = [sys.executable, "-m", "airworthy.serving", "--host", "0.0.0.0", "--port", "0"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "AIRWORTHY_SERVING_TOKEN: must be set, because serving without a token is for loopback" in done.stderr


def test_the_right_request_is_answered(server: Server, champion: tuple[Entry, dict[str, Any]]) -> None:
    entry, found = champion
    body = json.dumps({"dataframe_split": {"columns": found["columns"], "data": found["data"]}})
    status, headers, content = ask(server, "POST", "/invocations", body, CARRIED)
    said = json.loads(content)
    assert (status, headers["X-Model-Version"], headers["X-Ledger-Sequence"]) == (200, entry.version, "1")
    assert said["predictions"] == pytest.approx(found["expected"]) and said["model_version"] == entry.version


def test_bad_requests_are_told_what_is_wrong(server: Server, champion: tuple[Entry, dict[str, Any]]) -> None:
    found = champion[1]
    row = dict(zip(found["columns"], found["data"][0], strict=True))

    def of(*rows: dict[str, Any]) -> bytes:
        return json.dumps({"dataframe_records": list(rows)}).encode()

    assert refusal(server, b'{"dataframe_records": [{')[:2][0] == 400
    for changed, told in [
        ({**row, "wind": float("nan")}, "row 1: wind: must be a finite number, or null. Got nan."),
        ({**row, "wind": float("inf")}, "row 1: wind: must be a finite number, or null. Got inf."),
        ({**row, "day": 1.5}, "row 1: day: must be a whole number of 64 bits, or null. Got 1.5."),
        ({**row, "carrier_name": 3}, "row 1: carrier_name: must be text, or null. Got 3."),
        ({**row, "time": "soon"}, "row 1: time: must be text with a timestamp in ISO 8601, or null. Got 'soon'."),
        ({**row, "colour": "red"}, "row 1: colour: must be given in row 0 too. A value that is missing is null."),
        ({name: row[name] for name in row if name != "wind"}, "row 1: wind: must be given, as in row 0."),
    ]:
        status, detail, version = refusal(server, of(row, changed))
        assert (status, detail.startswith(f"request: {told}"), version) == (400, True, "1"), detail
    status, detail, _ = refusal(server, of({**row, "colour": "red"}))
    assert status == 400 and "must have no column that the model does not take. Got ['colour']" in detail
    status, detail, _ = refusal(server, of(*[row] * 51))
    assert (status, detail) == (413, "request: rows: must be at most 50. Got 51. Send them in several requests.")
    status, detail, _ = refusal(server, b"x" * 100_001)
    assert (status, detail.partition(". Got")[0]) == (413, "request: request_bytes: must be at most 100000 bytes long")


def endless(parts: int) -> Iterator[bytes]:
    for _ in range(parts):
        yield b"[" * 65_536


def test_bodies_without_end_are_refused_and_cost_no_memory(server: Server) -> None:
    refusal(server, b"[" * 99_000)
    before = memory(server)

    def send(_: int) -> tuple[int, str]:  # 32 MB that do not say how long they are
        status, detail, _ = refusal(server, endless(500))
        return status, detail

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(send, range(24)))
    assert {status for status, _ in answers} <= {413, 503} and 413 in {status for status, _ in answers}
    for status, detail in answers:
        assert ("request_bytes: must be at most 100000" if status == 413 else "held_bytes: holds the most") in detail
    assert memory(server) - before < 30
    assert refusal(server, b"{}")[0] == 400  # and the next one is served


def test_a_body_that_does_not_come_is_given_up(server: Server) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    head = f"POST /invocations HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 99\r\n\r\n"
    connections = [socket.create_connection((host, int(port)), timeout=30) for _ in range(9)]
    for connection in connections:
        connection.sendall(head.encode() + b"{")
    answers = [http.client.HTTPResponse(connection) for connection in connections]
    for answer in answers:
        answer.begin()
    told = [(answer.status, answer.read().decode(), answer.headers["Retry-After"]) for answer in answers]
    for connection in connections:
        connection.close()
    late = [detail for status, detail, _ in told if status == 408]
    busy = [(detail, after) for status, detail, after in told if status == 503]
    assert len(late) == 8 and all("seconds: must have come within 10. Got 1 bytes by then" in one for one in late)
    assert len(busy) == 1 and "requests: holds the most it may at once, 8" in busy[0][0] and busy[0][1] == "1"
