"""Steady load on a serving process: clients that ask one request after the other, and remember every answer."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from serving_process import Server


@dataclass
class Client:
    """One client's answers, in order.

    Attributes:
        answers: When it asked, how many seconds it took, the status, the ledger's sequence, and what was said.
        lost: What went wrong instead of an answer.
        unannounced: The sequences that `/models` did not know right after they had answered.
    """

    server: Server
    body: bytes
    path: str
    answers: list[tuple[float, float, int, int, Any]] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    unannounced: set[int] = field(default_factory=set)

    def run(self, done: threading.Event) -> None:
        connection, seen = self._connected(), 0
        while not done.is_set():
            asked = time.perf_counter()
            try:
                connection.request("POST", self.path, self.body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                said = json.loads(answer.read())
            except (OSError, http.client.HTTPException) as error:
                self.lost.append(repr(error))
                connection.close()
                time.sleep(0.05)
                connection = self._connected()
                continue
            sequence = int(answer.headers.get("X-Ledger-Sequence", 0))
            self.answers.append((asked, time.perf_counter() - asked, answer.status, sequence, said))
            if sequence > seen:
                seen = sequence
                self._require_announced(sequence)
        connection.close()

    def _connected(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.server.url.removeprefix("http://"), timeout=30)

    def _require_announced(self, sequence: int) -> None:
        told = next(iter(self.server.get("/models").body.values()))
        known = [told.get("sequence", 0), (told["next"] or {}).get("sequence", 0)]
        if sequence > max(known):
            self.unannounced.add(sequence)


@contextmanager
def load(server: Server, content: Any, pipeline: str, clients: int) -> Iterator[list[Client]]:
    """Yields clients that ask all the time, and stops them at the end."""
    body, path = json.dumps(content).encode(), f"/invocations?pipeline={pipeline}"
    asking, done = [Client(server, body, path) for _ in range(clients)], threading.Event()
    threads = [threading.Thread(target=client.run, args=[done]) for client in asking]
    for thread in threads:
        thread.start()
    try:
        yield asking
    finally:
        done.set()
        for thread in threads:
            thread.join()
