"""The bytes of a text file: unpacked, checked to be UTF-8, and no more of them than allowed."""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from typing import Any

from airworthy.errors import DataError
from airworthy.formats import File, Format

BOM = b"\xef\xbb\xbf"


class Text(io.RawIOBase):
    """A file of UTF-8 text, to be read once from its beginning.

    Raises:
        DataError: (from `read`) Where the file is not UTF-8, not whole, or unpacks to more than is allowed.
    """

    def __init__(self, file: File, form: Format) -> None:
        self._file = file
        self._form = form
        self._packed = file.path.suffix == ".gz"
        self._source: Any = gzip.open(file.path) if self._packed else file.path.open("rb")  # noqa: SIM115
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._bytes = 0
        self._lines = 1
        self.quotes = 0

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._source.close()
        super().close()

    def read(self, size: int = -1) -> bytes:
        try:
            found: bytes = self._source.read(size)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            hint = "Deliver the file again; nothing was ingested"
            raise DataError(self._file.name, "must be a whole gzip file", str(error), hint) from None
        if not self._bytes and not found and size:
            hint = "Deliver the file again, or none at all if the partition has no rows"
            raise DataError(self._file.name, "must not be empty", hint=hint)
        self._check(found)
        return found

    def _check(self, found: bytes) -> None:
        pending = self._decoder.getstate()[0]
        if pending or not found.isascii():
            try:
                self._decoder.decode(found, final=not found)
            except UnicodeDecodeError as error:
                place = error.start - len(pending)
                line = self._lines + found[: max(place, 0)].count(b"\n")
                where = f"{self._file.name}: line {line}, byte {self._bytes + place}"
                hint = "Convert it, e.g. with iconv -f latin1 -t utf-8"
                raise DataError(where, "must be UTF-8", f"0x{error.object[error.start]:02x}", hint) from None
        self._bytes += len(found)
        self._lines += found.count(b"\n")
        self.quotes += found.count(b'"')
        if self._packed:
            self._form.allow(self._file, self._bytes)
