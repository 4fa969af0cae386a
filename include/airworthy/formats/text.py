"""The bytes of a text file: unpacked, checked to be UTF-8, in blocks of whole rows, and no more of them than allowed.

The readers of pyarrow would do the blocks themselves, but they read ahead in threads of their own, which bring the
process down when it ends before they do.
"""

from __future__ import annotations

import codecs
import gzip
import re
import zlib
from collections.abc import Iterator
from typing import Any

from airworthy.errors import DataError
from airworthy.formats import File, Format

_BOM = b"\xef\xbb\xbf"
_BLOCK = 4 << 20
# A quote opens a quoted part at the start of a cell only, as the reader of pyarrow has it; elsewhere it is a quote.
_CELL = rb'(?:"[^"]*+(?:""[^"]*+)*+"|(?!"))[^,\r\n]*+'
_ROWS = re.compile(rb"(?:(?:%b[,\r])*+%b\n)*+" % (_CELL, _CELL))


def blocks(file: File, form: Format, *, quotes: bool) -> Iterator[bytes]:
    """Yields a file of UTF-8 text in blocks of whole rows; the last row may lack its newline.

    Args:
        file: Unpacked if it ends in .gz.
        form: Says what is allowed.
        quotes: Whether a newline between double quotes ends no row.

    Raises:
        DataError: The file is empty, not whole, not UTF-8, unpacks to more than is allowed, a row of it is
            longer than a value may be, or a quote is still open at its end.
    """
    rest, checked = b"", _Checked(file, form)
    with gzip.open(file.path) if file.path.suffix == ".gz" else file.path.open("rb") as source:
        while found := checked.read(source, min(_BLOCK, form.limits.cell)):
            rest += found
            end = _end_of_rows(rest, quotes=quotes)
            if rest[:end].strip():
                yield rest[:end]
            rest = rest[end:]
            if len(rest) > form.limits.cell:
                raise form.too_large(file, "a longer row")
    if rest.strip():
        if not _end_of_rows(rest + b"\n", quotes=quotes):
            hint = 'A quote within quotes is written as ""'
            raise DataError(file.name, "must close every quote, but the last cell is still open", hint=hint)
        yield rest


def _end_of_rows(block: bytes, *, quotes: bool) -> int:
    """Returns how much of a block that begins with a row is whole rows."""
    if quotes and b'"' in block:
        return _ROWS.match(block).end()  # type: ignore[union-attr]  # no row at all is a match
    return block.rfind(b"\n") + 1


class _Checked:
    """What was read of a file so far."""

    def __init__(self, file: File, form: Format) -> None:
        self._file = file
        self._form = form
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._bytes = 0
        self._lines = 1

    def read(self, source: Any, size: int) -> bytes:
        try:
            found: bytes = source.read(size)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            hint = "Deliver the file again; nothing was ingested"
            raise DataError(self._file.name, "must be a whole gzip file", str(error), hint) from None
        if not self._bytes and not found:
            hint = "Deliver the file again, or none at all if the partition has no rows"
            raise DataError(self._file.name, "must not be empty", hint=hint)
        self._decode(found)
        first = not self._bytes
        self._bytes += len(found)
        self._lines += found.count(b"\n")
        if self._file.path.suffix == ".gz":
            self._form.allow(self._file, self._bytes)
        # A mark alone is no content, but no end of the file either.
        return (found.removeprefix(_BOM) or b"\n") if first else found

    def _decode(self, found: bytes) -> None:
        pending = self._decoder.getstate()[0]
        if found.isascii() and found and not pending:
            return
        try:
            self._decoder.decode(found, final=not found)
        except UnicodeDecodeError as error:
            place = error.start - len(pending)
            line = self._lines + found[: max(place, 0)].count(b"\n")
            where = f"{self._file.name}: line {line}, byte {self._bytes + place}"
            hint = "Convert it, e.g. with iconv -f latin1 -t utf-8"
            raise DataError(where, "must be UTF-8", f"0x{error.object[error.start]:02x}", hint) from None
