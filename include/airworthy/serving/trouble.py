"""Whether the services that serving follows answer, and since when not."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from airworthy.errors import ServiceError

log = logging.getLogger(__name__)


class Watched:
    """One service, as it was when it was last asked.

    Attributes:
        trouble: Why it does not answer; "" if it does.
        since: Since when it does or does not; None if it was not asked yet.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.trouble = ""
        self.since: datetime | None = None

    def saw(self, trouble: str = "") -> None:
        """Takes note of what came of asking: "" for an answer."""
        if self.since is None or bool(trouble) != bool(self.trouble):
            if trouble or self.since:
                log.warning("%s: %s", self.name, trouble or "answers again")
            self.since = datetime.now(UTC)
        self.trouble = trouble

    def brief(self) -> dict[str, Any]:
        if self.since is None:
            return {"status": "not asked yet"}
        found = {"status": "down" if self.trouble else "ok", "since": self.since.isoformat(timespec="seconds")}
        return found | ({"reason": self.trouble} if self.trouble else {})


def keep_asking(watched: Watched, ask: Callable[[], None], pause: float, stop: threading.Event) -> threading.Thread:
    """Returns the running thread that asks a service every `pause` seconds, until it is told to stop.

    Args:
        watched: Takes note of the answers.
        ask: Raises ServiceError if there is no answer.
        pause: Seconds.
        stop: Ends it.
    """

    def run() -> None:
        while True:
            try:
                ask()
                watched.saw()
            except ServiceError as error:
                watched.saw(str(error))
            if stop.wait(pause):
                return

    thread = threading.Thread(target=run, name=f"watch-{watched.name}", daemon=True)
    thread.start()
    return thread
