"""Online stores: where serving looks up the latest values of a view's entities. One file per kind."""

from __future__ import annotations

import json
import math
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, Protocol

from airworthy.connections import Connections
from airworthy.errors import ServiceError
from airworthy.kinds import Kind

BATCH = 1_000  # entities that travel together
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Latest(NamedTuple):
    """The newest values of one entity.

    Attributes:
        entity: As `entity` writes it.
        partition: The start of the partition the values come from; a partition's values replace those of earlier
            partitions, and those it had itself at an earlier version.
        version: When the partition was given its rows. The versions of a table begin again when it is moved away.
        time: Since when the values are known.
        content: The values by column, as JSON.

    Moments are in microseconds since 1970, UTC.
    """

    entity: str
    partition: int
    version: int
    time: int
    content: str


class Opened(Protocol):
    """A store that answers. `view` is the pipeline's name and the view's, e.g. `flight_delays.weather`."""

    def write(self, view: str, rows: Iterable[Latest]) -> None:
        """Leaves each of the values, unless what is there is of a later partition, or of a later version of its own.

        Each entity is compared and replaced in one step, so writers may overlap, and write again what they wrote.

        Raises:
            ServiceError: The store does not answer.
        """

    def retract(self, view: str, partition: int, version: int) -> list[str]:
        """Removes what is left of a partition's earlier versions, and returns the entities, which are unknown then.

        To be called after `write`, which replaces the values of those that the partition still has.

        Raises:
            ServiceError: The store does not answer.
        """

    def read(self, view: str, entities: Sequence[str]) -> dict[str, tuple[int, str]]:
        """Returns time and content of the entities that are known, in one round trip.

        Raises:
            ServiceError: The store does not answer, or nothing of the view was ever written to it.
        """


class Online(Kind):
    """A declared online store. Its fields are its keys in a pipeline file."""

    @abstractmethod
    def open(self, connections: Connections) -> Opened:
        """Returns the store, which may be shared by threads.

        Raises:
            ConfigError: Its connection is not defined.
            ServiceError: It does not answer.
        """


def entity(values: Sequence[Any]) -> str | None:
    """Returns one text for the values of a key, the same offline and online; None if one is missing.

    A whole number is the same whether it comes as 5 or, next to missing values, as 5.0.
    """
    written = []
    for value in values:
        if isinstance(value, float) and math.isfinite(value) and value.is_integer():
            value = int(value)
        if value is None or value != value:  # NaN and NaT differ from themselves
            return None
        written.append(microseconds(value) if isinstance(value, datetime) else value)
    return json.dumps(written, ensure_ascii=False, separators=(",", ":"))


def nothing_of(view: str, where: str) -> ServiceError:
    """Returns what to raise when a store has no entity of a view: it is another store, or was emptied."""
    hint = f"Run {view.partition('.')[0]}.ingest, or point serving at the store that it publishes to"
    return ServiceError(where, f"must hold the latest values of {view}", "none", hint)


def microseconds(moment: datetime) -> int:
    """Returns an aware moment in microseconds since 1970, without the rounding of a float."""
    return (moment - _EPOCH) // _MICROSECOND
