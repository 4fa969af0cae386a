"""`redis: {connection: online}`: the latest values in one hash of a Redis database per view."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from airworthy.connections import Connections
from airworthy.errors import ServiceError
from airworthy.online import BATCH, Latest, Online, Opened, nothing_of

# Redis runs a script as one step. A value is `partition version time content`; Lua's numbers are doubles, which hold
# microseconds until the year 2255.
_WRITE = """
for given = 1, #ARGV, 4 do
    local there = redis.call('HGET', KEYS[1], ARGV[given])
    local newer = true
    if there then
        local partition, version = there:match('^(%S+) (%S+)')
        partition, version = tonumber(partition), tonumber(version)
        local mine = tonumber(ARGV[given + 1])
        newer = mine > partition or (mine == partition and tonumber(ARGV[given + 2]) >= version)
    end
    if newer then
        redis.call('HSET', KEYS[1], ARGV[given], ARGV[given + 1] .. ' ' .. ARGV[given + 2] .. ' ' .. ARGV[given + 3])
    end
end
"""

# A part of a hash at a time, because nobody else is answered while a script runs.
_RETRACT = """
local cursor, found = unpack(redis.call('HSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2]))
local gone = {}
for place = 1, #found, 2 do
    local partition, version = found[place + 1]:match('^(%S+) (%S+)')
    if partition == ARGV[3] and tonumber(version) < tonumber(ARGV[4]) then
        redis.call('HDEL', KEYS[1], found[place])
        gone[#gone + 1] = found[place]
    end
end
return {cursor, gone}
"""


class Redis(Online):
    """A Redis database; the hash of a view is `airworthy:<pipeline>.<view>`.

    Attributes:
        connection: The id of the connection.
    """

    connection: str

    def open(self, connections: Connections) -> Opened:
        try:
            import redis
        except ImportError:
            hint = "Install it: pip install 'airworthy[redis]'"
            raise ServiceError(
                f"online store: connection {self.connection}", "needs the Redis client", hint=hint
            ) from None

        uri = connections(self.connection).uri
        client = redis.Redis.from_url(uri, decode_responses=True, socket_timeout=5, socket_connect_timeout=5)
        return _Database(self.connection, client)


class _Database:
    def __init__(self, connection: str, client: Any) -> None:
        self._where = f"online store: connection {connection}"
        self._client = client
        self._write = client.register_script(_WRITE)
        self._retract = client.register_script(_RETRACT)

    def write(self, view: str, rows: Iterable[Latest]) -> None:
        remaining = iter(rows)
        while batch := list(itertools.islice(remaining, BATCH)):
            given = [
                part for row in batch for part in (row.entity, row.partition, row.version, f"{row.time} {row.content}")
            ]
            with self._answering():
                self._write(keys=[_key(view)], args=given)

    def retract(self, view: str, partition: int, version: int) -> list[str]:
        cursor, gone = "", []
        while cursor != "0":
            with self._answering():
                cursor, found = self._retract(keys=[_key(view)], args=[cursor or "0", BATCH, partition, version])
            gone += found
        return gone

    def read(self, view: str, entities: Sequence[str]) -> dict[str, tuple[int, str]]:
        with self._answering(), self._client.pipeline(transaction=False) as together:
            holds, values = together.exists(_key(view)).hmget(_key(view), list(entities)).execute()
        if not holds:
            raise nothing_of(view, self._where)
        found = {}
        for entity, value in zip(entities, values, strict=True):
            if value is not None:
                _, _, time, content = value.split(" ", 3)
                found[entity] = int(time), content
        return found

    @contextmanager
    def _answering(self) -> Iterator[None]:
        import redis

        try:
            yield
        except redis.RedisError as error:
            raise ServiceError(self._where, "must answer", str(error)) from None


def _key(view: str) -> str:
    return f"airworthy:{view}"
