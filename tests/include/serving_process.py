"""The real serving process, for the tests that need one."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from mlflow import MlflowClient

from airworthy.config import Pipeline
from airworthy.ledger import Entry, Ledger
from airworthy.model_files import REQUESTS
from airworthy.registry import Challenger, Registry
from airworthy.stages.train import train
from ports import free_port
from toy_pipeline import Toy

MARCH, APRIL = datetime(2013, 4, 1, tzinfo=UTC), datetime(2013, 4, 8, tzinfo=UTC)
DEEPER = {"xgboost": {"params": {"max_depth": 4, "n_estimators": 20}}}
NOWHERE = "http://127.0.0.1:1"

T = TypeVar("T")


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: Any


@dataclass
class Server:
    url: str
    log: Path
    process: subprocess.Popen[bytes]
    headers: dict[str, str] = field(default_factory=dict)

    def get(self, path: str) -> Answer:
        return self._send(urllib.request.Request(self.url + path, headers=self.headers))

    def post(self, content: Any, pipeline: str = "", kind: str = "application/json") -> Answer:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        path = f"/invocations?pipeline={pipeline}" if pipeline else "/invocations"
        return self._send(urllib.request.Request(self.url + path, body, {"Content-Type": kind, **self.headers}))

    def model(self, pipeline: str) -> dict[str, Any]:
        """Returns what the server says of one pipeline."""
        return dict(self.get("/models").body.get(pipeline, {}))

    def wait(self, ready: Callable[[], T | None]) -> T:
        """Returns the first true answer; a server that never gives one fails the test with its log."""
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline and self.process.poll() is None:
            if found := ready():
                return found
            time.sleep(0.05)
        raise AssertionError(f"{self.get('/models').body}\n{self.log.read_text()}")

    def wait_for_version(self, entry: Entry) -> None:
        self.wait(lambda: self.model(entry.pipeline).get("sequence") == entry.sequence)

    def wait_for_refusal(self, pipeline: str) -> dict[str, Any]:
        return self.wait(lambda: self.model(pipeline).get("refused"))

    def _send(self, request: urllib.request.Request) -> Answer:
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return _answer(response.status, response.headers, response.read())
        except urllib.error.HTTPError as error:
            return _answer(error.code, error.headers, error.read())


@contextmanager
def serving(toy: Toy, **environment: str) -> Iterator[Server]:
    """Yields a server of the toy's pipelines, once it has looked at the ledger."""
    port = free_port()
    settings = {"AIRWORTHY_SERVING_POLL": "0.05", **environment}
    headers = {"Authorization": f"Bearer {token}"} if (token := environment.get("AIRWORTHY_SERVING_TOKEN")) else {}
    log = toy.folder / f"serving-{port}.log"
    with log.open("wb") as output:
        command = [sys.executable, "-m", "airworthy.serving", "--port", str(port)]
        process = subprocess.Popen(command, stdout=output, stderr=output, env=toy.environment(settings))
    server = Server(f"http://127.0.0.1:{port}", log, process, headers)
    try:
        server.wait(lambda: _is_up(server))
        yield server
    finally:
        process.terminate()
        process.wait(timeout=120)


def trained(toy: Toy, pipeline: Pipeline, as_of: datetime = MARCH) -> Challenger:
    return train(pipeline, as_of, toy.profile)


def promote(toy: Toy, challenger: Challenger, expected: Entry | None = None) -> Entry:
    """Returns the ledger entry that makes a challenger champion, without any gate."""
    ledger = Ledger(toy.profile.ledger_url)
    ledger.create()
    return ledger.promote(
        pipeline=challenger.pipeline,
        version=Registry(toy.profile).register(challenger),
        model_id=challenger.model_id,
        run_id=challenger.run_id,
        digest=challenger.digest,
        as_of=challenger.as_of,
        expected=expected.version if expected else None,
        actor="test",
        evidence="",
        judged_at=len(ledger.entries(challenger.pipeline)),
    )


def corrupt(toy: Toy, challenger: Challenger) -> None:
    """Leaves a model file on MLflow's server that is not the one that was trained."""
    file = toy.folder / "model.ubj"
    file.write_bytes(b"not a model")
    MlflowClient(toy.mlflow_uri).log_model_artifact(challenger.model_id, str(file))


def recorded(toy: Toy, challenger: Challenger) -> dict[str, Any]:
    """Returns the requests in a model's files, with the answers the trained model gave."""
    folder = Registry(toy.profile).download(challenger.model_id, toy.folder / f"files-{challenger.digest[:8]}")
    return dict(json.loads((folder / REQUESTS).read_text()))


def _is_up(server: Server) -> bool:
    try:
        return server.get("/ping").status == 200
    except OSError:
        return False


def _answer(status: int, headers: Any, body: bytes) -> Answer:
    kind = headers.get("Content-Type", "")
    return Answer(
        status, {k.lower(): v for k, v in headers.items()}, json.loads(body) if "json" in kind else body.decode()
    )
