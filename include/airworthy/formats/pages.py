"""The sizes of a Parquet file's pages, as their headers state them.

A page is unpacked whole, so what it unpacks to must be known before it is read; pyarrow does not tell. Source:
the Parquet format's `PageHeader` (parquet.thrift) in Thrift's compact protocol.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

# Field numbers of PageHeader, and of the structures in it that tell the number of values.
_UNPACKED, _PACKED, _VALUES = 2, 3, (5, 7, 8)
_WINDOW = 4096


class Page(NamedTuple):
    """One page: how many bytes it unpacks to, for how many values."""

    unpacked: int
    values: int


def pages(file: BinaryIO, start: int, size: int) -> Iterator[Page]:
    """Yields the pages of a column chunk, given the bytes of the file that it takes up.

    Raises:
        ValueError: There are no page headers there.
    """
    end = start + size
    while start < end:
        header = _Header(file, start)
        found = header.struct()
        unpacked, packed = found.get(_UNPACKED), found.get(_PACKED)
        if not isinstance(unpacked, int) or not isinstance(packed, int) or min(unpacked, packed) < 0:
            raise ValueError("a page header tells no sizes")
        values = next((part.get(1) for name in _VALUES if isinstance(part := found.get(name), dict)), 0)
        yield Page(unpacked, values if isinstance(values, int) else 0)
        start = header.place + packed


class _Header:
    """Reads structures of Thrift's compact protocol from a place in a file."""

    def __init__(self, file: BinaryIO, place: int) -> None:
        self._file = file
        self._start = self.place = place
        self._window = b""

    def struct(self, depth: int = 0) -> dict[int, object]:
        if depth > 8:
            raise ValueError("a page header is nested too deeply")
        found: dict[int, object] = {}
        number = 0
        while first := self._byte():
            number = number + (first >> 4) if first >> 4 else self._zigzag()
            found[number] = self._value(first & 15, depth)
        return found

    def _value(self, kind: int, depth: int) -> object:
        if kind in (1, 2):
            return kind == 1
        if kind == 3:
            return self._byte()
        if kind in (4, 5, 6):
            return self._zigzag()
        if kind == 7:
            self.place += 8
            return None
        if kind == 8:
            size = self._varint()
            self.place += size
            return None
        if kind in (9, 10):
            head = self._byte()
            for _ in range(self._varint() if head >> 4 == 15 else head >> 4):
                self._byte() if head & 15 in (1, 2) else self._value(head & 15, depth)
            return None
        if kind == 12:
            return self.struct(depth + 1)
        raise ValueError("a page header holds a type that there is not")

    def _byte(self) -> int:
        offset = self.place - self._start
        if offset >= len(self._window):
            self._file.seek(self.place)
            self._start, offset = self.place, 0
            self._window = self._file.read(_WINDOW)
            if not self._window:
                raise ValueError("the file ends within a page header")
        self.place += 1
        return self._window[offset]

    def _varint(self) -> int:
        value = shift = 0
        while shift < 64:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
        raise ValueError("a page header holds a number that is too long")

    def _zigzag(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
