"""What serving costs: against `mlflow models serve`, against the model in this process, and while champions change.

Run with `make benchmark`. It prints what it measured side by side in one run, and asserts only that both services
predict the same and that no request is lost. The goals: three times MLflow's throughput at one row a request, and a
p99 during swaps of at most 1.2 times the steady one.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from paced_load import Answer, paced

from airworthy.ledger import Entry, Ledger
from airworthy.model_files import LoadedModel, load_model
from airworthy.registry import Challenger, Registry
from airworthy.serving.check import check_in_fresh_process
from mlflow_process import mlflow_server
from ports import free_port
from serving_process import APRIL, DEEPER, Server, promote, serving, trained
from toy_pipeline import Toy, toy_at

SECONDS = float(os.environ.get("AIRWORTHY_BENCHMARK_SECONDS", "3"))
SWAPS = int(os.environ.get("AIRWORTHY_BENCHMARK_SWAPS", "100"))
FETCHED = int(os.environ.get("AIRWORTHY_BENCHMARK_FETCHED", "6"))
RATE = float(os.environ.get("AIRWORTHY_BENCHMARK_RATE", "100"))  # requests a second
ROUNDS = 3
CLIENTS = 4


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Toy]:
    (tmp_path / "mlflow").mkdir()
    (tmp_path / "toy").mkdir()
    with mlflow_server(tmp_path / "mlflow") as uri:
        yield toy_at(tmp_path / "toy", uri, monkeypatch)


@dataclass
class Service:
    """Where rows are sent, and how one row is written there."""

    name: str
    process: int
    port: int
    path: str
    columns: list[str]
    data: list[list[Any]]

    def request(self, rows: int) -> bytes:
        chosen = [self.data[number % len(self.data)] for number in range(rows)]
        body = json.dumps({"dataframe_split": {"columns": self.columns, "data": chosen}}).encode()
        head = f"POST {self.path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        return head.encode() + b"\r\n\r\n" + body

    def ask(self, request: bytes, until: float) -> list[float]:
        """Returns how many seconds each answer took, one after the other on one connection."""
        took = []
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            while time.perf_counter() < until:
                began = time.perf_counter()
                connection.sendall(request)
                assert answer(connection).startswith(b"HTTP/1.1 200"), self.name
                took.append(time.perf_counter() - began)
        return took

    def processor(self) -> float:
        """Returns the seconds of processor time that the service and its own processes have taken so far."""
        process = psutil.Process(self.process)
        return sum(sum(one.cpu_times()[:2]) for one in [process, *process.children(recursive=True)])

    def predictions(self, rows: int) -> list[float]:
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.sendall(self.request(rows))
            found: list[float] = json.loads(answer(connection).partition(b"\r\n\r\n")[2])["predictions"]
            return found


def answer(connection: socket.socket) -> bytes:
    found = connection.recv(1_000_000)
    while b"\r\n\r\n" not in found:
        found += connection.recv(1_000_000)
    head, _, body = found.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].split()[0])
    while len(body) < length:
        body += connection.recv(1_000_000)
    return head + b"\r\n\r\n" + body


@contextmanager
def mlflow_serving(folder: Path) -> Iterator[tuple[int, int]]:
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(folder), "-p", str(port)]
    path = {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
    server = subprocess.Popen(
        [*command, "--env-manager", "local"],
        env=os.environ | path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait(lambda: urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5).close())
        yield server.pid, port
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=30)


def wait(ready: Callable[[], None]) -> None:
    deadline = time.monotonic() + 180
    while True:
        try:
            return ready()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def percentile(seconds: list[float], share: float) -> float:
    return sorted(seconds)[min(len(seconds) - 1, int(share * len(seconds)))]


def measure(services: list[Service], rows: int) -> dict[str, tuple[float, float, float, float]]:
    """Returns by service, taken in turns, its p50 and p99 for one client, and for several its requests a second.

    And the milliseconds of processor time per request, which do not depend on what else this machine does.
    """
    alone: dict[str, list[float]] = {service.name: [] for service in services}
    rates: dict[str, list[float]] = {service.name: [] for service in services}
    costs: dict[str, list[float]] = {service.name: [] for service in services}
    for _ in range(ROUNDS):
        for service in services:
            request = service.request(rows)
            alone[service.name] += service.ask(request, time.perf_counter() + SECONDS / ROUNDS)
            with ThreadPoolExecutor(CLIENTS) as pool:
                began, spent = time.perf_counter(), service.processor()
                asked = [pool.submit(service.ask, request, began + SECONDS / ROUNDS) for _ in range(CLIENTS)]
                count = sum(len(one.result()) for one in asked)
                rates[service.name].append(count / (time.perf_counter() - began))
                costs[service.name].append((service.processor() - spent) / count * 1000)
    return {
        name: (*(percentile(took, share) * 1000 for share in (0.5, 0.99)), *map(statistics.median, both))
        for (name, took), both in zip(alone.items(), zip(rates.values(), costs.values(), strict=True), strict=True)
    }


def typical(call: Callable[[], Any]) -> float:
    """Returns the median milliseconds of a call in this process."""
    took = []
    until = time.perf_counter() + SECONDS / ROUNDS
    while time.perf_counter() < until:
        began = time.perf_counter()
        call()
        took.append(time.perf_counter() - began)
    return statistics.median(took) * 1000


def deployed(toy: Toy, **changes: Any) -> tuple[Challenger, Entry, LoadedModel]:
    pipeline = toy.pipeline(**changes)
    toy.fill(pipeline, toy.rows())
    challenger = trained(toy, pipeline)
    entry = promote(toy, challenger)
    folder = Registry(toy.profile).download(challenger.model_id, toy.folder / f"files-{toy.name}")
    return challenger, entry, load_model(folder, digest=challenger.digest, pipeline=pipeline)


def test_against_mlflow_and_against_the_model_in_this_process(toy: Toy) -> None:
    _, entry, model = deployed(toy, features=None)
    with_code = replace(toy, name=f"{toy.name}_code")
    _, coded, _ = deployed(with_code)
    requests = json.loads((model.folder / "requests.json").read_text())
    columns = {
        name: list(values)
        for name, values in zip(requests["columns"], zip(*requests["data"], strict=True), strict=True)
    }
    matrix = model._encode.of_columns({name: columns[name] for name in model._encode.names}, len(requests["data"]))
    encoded = np.where(np.isnan(matrix), None, matrix).tolist()
    with serving(toy) as server, mlflow_serving(model.folder) as (mlflow_process, mlflow_port):
        server.wait_for_version(entry)
        server.wait_for_version(coded)
        port = int(server.url.rpartition(":")[2])
        path = "/invocations?pipeline="
        services = [
            Service("airworthy", server.process.pid, port, path + toy.name, requests["columns"], requests["data"]),
            Service(
                "airworthy, features()",
                server.process.pid,
                port,
                path + with_code.name,
                requests["columns"],
                requests["data"],
            ),
            Service(
                "mlflow models serve", mlflow_process, mlflow_port, "/invocations", list(model._encode.names), encoded
            ),
        ]
        assert services[0].predictions(50) == pytest.approx(services[2].predictions(50), abs=1e-6)
        titles = ("p50 ms", "p99 ms", "requests/s", "x mlflow", "cpu ms", "x mlflow", "p50 x own")
        print(f"\n{'':24}{'rows':>6}" + "".join(f"{title:>12}" for title in titles))
        for rows in (1, 10, 1000):
            found = measure(services, rows)
            values = matrix[np.arange(rows) % len(matrix)]
            own = typical(lambda values=values: model._fitted.predict(values))
            _, _, slower, dearer = found["mlflow models serve"]
            for name, (p50, p99, rate, cost) in found.items():
                line = (p50, p99, rate, rate / slower, cost, dearer / cost, p50 / own)
                print(f"{name:24}{rows:6}" + "".join(f"{number:12.2f}" for number in line))
            print(f"{'the model in process':24}{rows:6}{own:12.2f}")


def swap(toy: Toy, server: Server, last: Entry, version: str) -> tuple[Entry, float, float]:
    began = time.perf_counter()
    entry = Ledger(toy.profile.ledger_url).rollback(toy.name, last.version, "benchmark", to=version)
    server.wait(lambda: server.model(toy.name)["sequence"] == entry.sequence)
    return entry, began, time.perf_counter()


def during(answers: list[Answer], spans: list[tuple[float, float]]) -> list[float]:
    """Returns how many seconds the answers took that were due or given within one of the spans."""
    return [
        answer.took
        for answer in answers
        if any(answer.due <= end and answer.due + answer.took >= began for began, end in spans)
    ]


def test_p99_while_champions_change(toy: Toy) -> None:
    first, entry, model = deployed(toy, features=None)
    second = trained(toy, toy.pipeline(features=None, model=DEEPER))
    third = trained(toy, toy.pipeline(features=None, model=DEEPER), APRIL)
    requests = json.loads((model.folder / "requests.json").read_text())
    asked = {"dataframe_split": {"columns": requests["columns"], "data": requests["data"][:1]}}
    with serving(toy) as server:
        for challenger in (second, third):
            server.wait_for_version(entry)
            before = entry
            entry = promote(toy, challenger, entry)
        server.wait_for_version(entry)
        kinds = ("steady", "files at hand", "fetched and proven", "no swap, but a proof")
        spans: dict[str, list[tuple[float, float]]] = {kind: [] for kind in kinds}
        port = int(server.url.rpartition(":")[2])
        with paced(port, f"/invocations?pipeline={toy.name}", asked, RATE) as load:
            for number in range(SWAPS + FETCHED):
                fetches = number % (SWAPS // FETCHED + 1) == 0
                (oldest,) = {"1", "2", "3"} - {before.version, entry.version}  # the files of the last two are kept
                to = oldest if fetches else before.version
                before, (entry, began, ended) = entry, swap(toy, server, entry, to)
                spans["fetched and proven" if fetches else "files at hand"].append((began, ended))
                time.sleep(0.1)  # files that nobody needs any more are removed
                calm = time.perf_counter()
                while time.perf_counter() < calm + max(0.5, ended - began):
                    server.model(toy.name)  # this process does in both what it does in the other
                    time.sleep(0.05)
                spans["steady"].append((calm, time.perf_counter()))
                if fetches:  # what it costs that another process is at work at all
                    began = time.perf_counter()
                    check_in_fresh_process(model.folder, first.digest, toy.name, background=True)
                    spans["no swap, but a proof"].append((began, time.perf_counter()))
        assert not load.lost and not load.unannounced
    assert {answer.status for answer in load.answers} == {200}
    order = [answer.sequence for answer in sorted(load.answers, key=lambda answer: answer.due + answer.took)]
    assert len({*order}) == SWAPS + FETCHED + 1
    print(f"\n{len(order)} requests, {RATE:.0f} a second, none lost")
    calmest = percentile(during(load.answers, spans["steady"]), 0.99)
    for name, those in spans.items():
        took, each = during(load.answers, those), statistics.median(end - began for began, end in those)
        p50, p90, p99 = (percentile(took, share) * 1000 for share in (0.5, 0.9, 0.99))
        told = f"{len(those):4} of {each:.2f} s {len(took):7} answers  p50 {p50:6.2f} p90 {p90:6.2f}"
        print(f"{name:20} {told} p99 {p99:6.2f} ms, x steady {p99 / calmest / 1000:.2f}")
