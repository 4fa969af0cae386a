"""The copy's own serving process, for as long as a fault lasts."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from airworthy.errors import ServiceError
from airworthy.gameday.copies import Copy
from airworthy.model_files import REQUESTS
from airworthy.profile import Profile
from airworthy.registry import Registry

HOST = "127.0.0.1"
PID = "serving.pid"
_PATIENCE = 120.0  # seconds
_PAUSE = 0.05

T = TypeVar("T")


class Answer(NamedTuple):
    """What serving said.

    Attributes:
        content: JSON as what it says, else text.
    """

    status: int
    content: Any
    version: str


@dataclass(frozen=True)
class Served:
    """A serving process of a copy, on a port of its own.

    Attributes:
        profile: The copy's, with this process as the one that serves it.
        request: The body of one good request.
    """

    copy: Copy
    profile: Profile
    port: int
    process: subprocess.Popen[bytes]
    request: bytes

    @property
    def path(self) -> str:
        return f"/invocations?pipeline={self.copy.name}"

    def get(self, path: str) -> Answer:
        """Returns the answer to a GET.

        Raises:
            OSError: There is none.
        """
        return self._ask("GET", path, None)

    def predict(self, body: bytes = b"") -> Answer:
        """Returns the answer to one request for a prediction, by default a good one.

        Raises:
            OSError: There is none.
        """
        return self._ask("POST", self.path, body or self.request)

    def wait(self, awaited: str, ready: Callable[[], T | None]) -> T:
        """Returns the first true answer.

        Raises:
            ServiceError: None came in time, or the process has ended.
        """
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if found := ready():
                    return found
            except OSError:
                pass  # it is still starting, or busy
            time.sleep(_PAUSE)
        log = (self.copy.folder / "serving.log").read_text(errors="replace").strip().splitlines()[-1:]
        raise ServiceError(
            f"serving of {self.copy.name}", f"must {awaited} within {_PATIENCE:.0f} s", hint=" ".join(log)
        )

    def _ask(self, method: str, path: str, body: bytes | None) -> Answer:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=15)
        headers = {"Content-Type": "application/json", **self.profile.serving.headers()}
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            text = answer.read().decode()
        except http.client.HTTPException as error:
            raise OSError(str(error)) from error
        finally:
            connection.close()
        kind = answer.headers.get("Content-Type", "")
        content = json.loads(text) if "application/json" in kind else text
        return Answer(answer.status, content, answer.headers.get("X-Model-Version", ""))


@contextmanager
def served(copy: Copy, profile: Profile | None = None) -> Iterator[Served]:
    """Yields the copy's serving process once its champion answers; it is gone afterwards.

    Args:
        profile: Where it finds MLflow and the ledger; None: where the copy does.
    """
    entry, places = copy.champion, profile or copy.profile
    assert entry is not None, "a copy has a champion before every fault"
    recorded = json.loads(Registry(copy.profile).model_file(entry.model_id, REQUESTS))
    split = {"columns": recorded["columns"], "data": recorded["data"][:1]}
    port = _free_port()
    with (copy.folder / "serving.log").open("wb") as log:
        command = [sys.executable, "-m", "airworthy.serving", "--host", HOST, "--port", str(port)]
        process = subprocess.Popen(command, stdout=log, stderr=log, env=_environment(places))
    (copy.folder / PID).write_text(str(process.pid))
    found = Served(
        copy,
        copy.profile.model_copy(update={"serving_url": f"http://{HOST}:{port}"}),
        port,
        process,
        json.dumps({"dataframe_split": split}).encode(),
    )
    try:
        found.wait("answer", lambda: found.predict().status == 200 or None)
        yield found
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def end_orphan(folder: Path) -> None:
    """Leaves no serving process of a copy whose task was killed before it could end it."""
    try:
        pid = int((folder / PID).read_text())
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        if f"AIRWORTHY_HOME={folder}".encode() in environment:  # the number may be another process's by now
            os.kill(pid, signal.SIGKILL)
    except (FileNotFoundError, ProcessLookupError, ValueError):
        return  # it has ended, or there never was one


def _environment(places: Profile) -> Mapping[str, str]:
    """Returns this process's environment, which `Copy.here` has set, with what the copy's profile refers to."""
    return {
        **os.environ,
        "AIRWORTHY_PROFILE": "local",
        "AIRWORTHY_LEDGER_URL": places.ledger_url,
        "MLFLOW_TRACKING_URI": places.mlflow_uri,
        "AIRWORTHY_SERVING_POLL": "0.1",
    }


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        return int(listener.getsockname()[1])
