"""A chat's end of a webhook: a real HTTP server that keeps what it is sent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


@dataclass
class Chat:
    """What was posted, and the status that the next posts get."""

    url: str = ""
    status: int = 200
    posted: list[tuple[str, dict[str, Any]]] = field(default_factory=list)


@contextmanager
def chat_server() -> Iterator[Chat]:
    chat = Chat()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.headers["Content-Type"] == "application/json"
            content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            chat.posted.append((self.path, content))
            self.send_response(chat.status)
            self.end_headers()
            self.wfile.write(b"ok" if chat.status == 200 else b"no_service")

        def log_message(self, *_: Any) -> None:
            """Stays quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    chat.url = f"http://127.0.0.1:{server.server_port}/services/T0/B0/secret"
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield chat
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
