"""Requests at a steady pace, from a process of its own that does nothing else.

Each is timed from the moment it was due, so that one that had to wait for the one before counts as slow too.
"""

from __future__ import annotations

import http.client
import itertools
import json
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field
from typing import Any

CLIENTS = 4


@dataclass(frozen=True)
class Answer:
    """When a request was due, on the clock of `time.perf_counter`, how many seconds it took, and what came."""

    due: float
    took: float
    status: int
    sequence: int


@dataclass
class Paced:
    """What came of the requests, once they have ended.

    Attributes:
        lost: Why there is no answer, of each that got none.
        unannounced: The sequences that `/models` did not know right after they had answered.
    """

    answers: list[Answer] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    unannounced: list[int] = field(default_factory=list)


@contextmanager
def paced(port: int, path: str, content: Any, rate: float) -> Iterator[Paced]:
    """Yields while requests are sent, `rate` a second."""
    command = [sys.executable, __file__, str(port), path, str(rate)]
    found = Paced()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout
        process.stdin.write(json.dumps(content) + "\n")
        process.stdin.flush()
        try:
            yield found
        finally:
            told, _ = process.communicate()
            answers, found.lost, found.unannounced = json.loads(told)
            found.answers = sorted((Answer(*answer) for answer in answers), key=lambda answer: answer.due)


@dataclass
class _Client:
    port: int
    path: str
    body: bytes
    done: threading.Event
    found: Paced = field(default_factory=Paced)

    def run(self, due: Iterator[float]) -> None:
        connection, seen = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30), 0
        for moment in due:
            if self.done.wait(max(0.0, moment - time.perf_counter())):
                break
            try:
                connection.request("POST", self.path, self.body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                answer.read()
            except (OSError, http.client.HTTPException) as error:
                self.found.lost.append(repr(error))
                connection.close()
                continue
            sequence = int(answer.headers.get("X-Ledger-Sequence", 0))
            self.found.answers.append(Answer(moment, time.perf_counter() - moment, answer.status, sequence))
            if sequence > seen and sequence > max(self._announced()):
                self.found.unannounced.append(sequence)
            seen = max(seen, sequence)

    def _announced(self) -> Iterator[int]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/models", timeout=30) as answer:
            for told in json.load(answer).values():
                yield from (told.get("sequence", 0), (told["next"] or {}).get("sequence", 0))


def main() -> None:
    port, path, rate = int(sys.argv[1]), sys.argv[2], float(sys.argv[3])
    body, done, began = sys.stdin.readline().encode(), threading.Event(), time.perf_counter()
    clients = [_Client(port, path, body, done) for _ in range(CLIENTS)]
    threads = [
        threading.Thread(
            target=client.run, args=[(began + number / rate for number in itertools.count(first, CLIENTS))]
        )
        for first, client in enumerate(clients)
    ]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    done.set()
    for thread in threads:
        thread.join()
    told = zip(*(astuple(client.found) for client in clients), strict=True)
    print(json.dumps([[*itertools.chain(*each)] for each in told]))


if __name__ == "__main__":
    main()
