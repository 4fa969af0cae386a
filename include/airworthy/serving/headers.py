"""What a request says of itself in its headers: its id, and which features it was made from."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from airworthy.serving.admission import Refused

_LONGEST = 200


class Said(NamedTuple):
    """What one request says of itself.

    Attributes:
        request: Its id, which the answer repeats; one is made for a request without.
        features_version: Of the features that its rows were taken from, if it says so.
        features_time: When these were made or looked up, if it says so.
    """

    request: str
    features_version: str | None = None
    features_time: datetime | None = None


def request_id(headers: Mapping[bytes, str]) -> str:
    """Returns the id of a request, a new one where it has none that can be kept."""
    given = headers.get(b"x-request-id", "")
    return given if 0 < len(given) <= _LONGEST and given.isascii() and given.isprintable() else uuid.uuid4().hex


def said_in(headers: Mapping[bytes, str], request: str) -> Said:
    """Returns what a request says of itself.

    Raises:
        Refused: It cannot be kept.
    """
    if given := headers.get(b"x-request-id"):
        _require(given == request, "X-Request-Id", f"must be 1 to {_LONGEST} printable characters of ASCII", given)
    version, time = headers.get(b"x-features-version"), headers.get(b"x-features-time")
    if version is not None:
        printable = 0 < len(version) <= _LONGEST and version.isascii() and version.isprintable()
        rule = f"must be 1 to {_LONGEST} printable characters of ASCII"
        _require(printable, "X-Features-Version", rule, version)
    moment = None
    if time is not None:
        try:
            moment = datetime.fromisoformat(time)
        except ValueError:
            _require(False, "X-Features-Time", "must be a timestamp in ISO 8601", time)
        else:
            moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return Said(request, version, moment)


def _require(holds: bool, name: str, rule: str, got: str) -> None:
    if not holds:
        raise Refused(400, f"request: {name}: {rule}. Got {got[:50]!r}.")
