"""Bounds what requests may take: bytes, how many at once, and time. What is too much is refused, naming the limit."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.types import Receive

from airworthy.profile import Serving


class Refused(Exception):
    """A request that gets no prediction; carries the HTTP status."""

    def __init__(self, status: int, reason: str) -> None:
        self.status = status
        super().__init__(reason)


class Disconnected(Exception):
    """The client did not wait for its answer."""


class Held:
    """What one request takes of the limits, until it is given back; that may be by another thread."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._bytes = 0
        self.kept = False

    def take(self, size: int) -> None:
        """Adds bytes.

        Raises:
            Refused: All requests together hold too many.
        """
        self._admission.change(0, size)
        self._bytes += size

    def keep(self) -> None:
        """Leaves it to somebody else to give back."""
        self.kept = True

    def give_back(self) -> None:
        self._admission.change(-1, -self._bytes)


class Admission:
    """Lets requests in as long as all that are read or scored stay within the limits together."""

    def __init__(self, limits: Serving) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._requests = 0
        self._bytes = 0

    @property
    def held(self) -> tuple[int, int]:
        """How many requests are held, and how many bytes."""
        with self._lock:
            return self._requests, self._bytes

    @contextmanager
    def entered(self) -> Iterator[Held]:
        """Yields what the request holds, which is given back at the end unless it is kept.

        Raises:
            Refused: There are too many requests already.
        """
        self.change(1, 0)
        held = Held(self)
        try:
            yield held
        finally:
            if not held.kept:
                held.give_back()

    def change(self, requests: int, size: int) -> None:
        """Adds to what is held, or takes away.

        Raises:
            Refused: It would be too much; nothing was added.
        """
        limits = self._limits
        with self._lock:
            if requests > 0 and self._requests + requests > limits.requests:
                raise Refused(503, f"serving: requests: holds the most it may at once, {limits.requests}. Retry later.")
            if size > 0 and self._bytes + size > limits.held_bytes:
                rule = f"serving: held_bytes: holds the most bytes of requests it may at once, {limits.held_bytes}"
                raise Refused(503, f"{rule}. Retry later.")
            self._requests += requests
            self._bytes += size

    async def read(self, receive: Receive, declared: str, held: Held) -> bytes:
        """Returns the body of a request, which is refused while it is read, before more of it is in memory.

        Args:
            receive: ASGI's, which gives the body in parts.
            declared: What the request says that its length is.
            held: Told of every part.

        Raises:
            Refused: It is too long, or takes too long to come.
            Disconnected: The client has gone.
        """
        self._require_short(declared)
        parts: list[bytes] = []
        size, more = 0, True
        try:
            async with asyncio.timeout(self._limits.seconds):
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Disconnected
                    part, more = message.get("body", b""), message.get("more_body", False)
                    size += len(part)
                    self._require_short(size)
                    held.take(len(part))
                    parts.append(part)
        except TimeoutError:
            rule = f"request: seconds: must have come within {self._limits.seconds:g}"
            raise Refused(408, f"{rule}. Got {size} bytes by then.") from None
        return b"".join(parts)

    def _require_short(self, size: str | int) -> None:
        if int(size) > self._limits.request_bytes:
            rule = f"request: request_bytes: must be at most {self._limits.request_bytes} bytes long"
            raise Refused(413, f"{rule}. Got {size}. Send the rows in several requests.")

    def require_few(self, rows: int) -> None:
        """Returns if a request has no more rows than allowed.

        Raises:
            Refused: It has more.
        """
        if rows > self._limits.rows:
            rule = f"request: rows: must be at most {self._limits.rows}"
            raise Refused(413, f"{rule}. Got {rows}. Send them in several requests.")
