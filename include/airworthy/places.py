"""Where files are: on this machine, or on S3. Both find files by a pattern and make them readable here."""

from __future__ import annotations

import fnmatch
import glob
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from airworthy.connections import Connection, s3
from airworthy.errors import DataError, ServiceError
from airworthy.profile import ROOT

_BLOCK = 8 << 20
_S3 = "s3://"


class Found(NamedTuple):
    """One file.

    Attributes:
        name: As a person knows it.
        path: Where its bytes are on this machine.
        version: Its SHA-256, or on S3 its ETag.
        size: Its bytes.
        stamp: When the bytes that `version` is about were written.
    """

    name: str
    path: Path
    version: str
    size: int
    stamp: int

    def require_unchanged(self) -> None:
        """Raises DataError if the file was written meanwhile."""
        now = self.path.stat()
        if (now.st_size, now.st_mtime_ns) != (self.size, self.stamp):
            raise _changed(self.name)


class Place(Protocol):
    """Somewhere files are."""

    def find(self, pattern: str) -> list[str]:
        """Returns the names of the files that match a pattern, sorted."""

    def fetch(self, name: str, copy: Path) -> Found:
        """Returns a file, which is copied to `copy` if it is not on this machine."""


class Here:
    """Files on this machine; patterns are relative to the repository."""

    def find(self, pattern: str) -> list[str]:
        found = glob.glob(pattern, root_dir=ROOT, recursive=True)
        return sorted(name for name in found if (ROOT / name).is_file())

    def fetch(self, name: str, copy: Path) -> Found:
        path = ROOT / name
        try:
            before = path.stat()
            with path.open("rb") as file:
                version = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            hint = "See that it is there, and may be read by the user who runs the task"
            raise DataError(name, "must be a readable file", error.strerror, hint) from None
        return Found(name, path, version, before.st_size, before.st_mtime_ns)


class ObjectStore:
    """Files on S3, or on what speaks its language."""

    def __init__(self, connection: Connection | None) -> None:
        self._connection = connection

    @cached_property
    def _files(self) -> Any:
        return s3(self._connection)

    def find(self, pattern: str) -> list[str]:
        bucket, *parts = pattern.removeprefix(_S3).split("/")
        with self._answering(pattern):
            return sorted(f"{_S3}{path}" for path in self._walk(bucket, parts))

    def fetch(self, name: str, copy: Path) -> Found:
        with self._answering(name), self._files.open_input_stream(name.removeprefix(_S3)) as source:
            etag = _etag(source)
            with copy.open("wb") as sink:
                while block := source.read(_BLOCK):
                    sink.write(block)
        written = copy.stat()
        # Each block was a request of its own, which answers with what was there at that moment.
        with self._answering(name), self._files.open_input_file(name.removeprefix(_S3)) as now:
            if (_etag(now), now.size()) != (etag, written.st_size):
                raise _changed(name)
        return Found(name, copy, etag, written.st_size, written.st_mtime_ns)

    def _walk(self, folder: str, parts: list[str]) -> Iterator[str]:
        """Yields the files below a folder whose path matches the rest of a pattern, part by part."""
        from pyarrow.fs import FileSelector, FileType

        part, *rest = parts
        if rest and not glob.has_magic(part):
            yield from self._walk(f"{folder}/{_plain(part)}", rest)
            return
        if part == "**":
            yield from self._walk(folder, rest)
        for info in self._files.get_file_info(FileSelector(folder, allow_not_found=True)):
            is_folder = info.type == FileType.Directory
            if part == "**" and is_folder:
                yield from self._walk(info.path, parts)
            elif fnmatch.fnmatchcase(info.base_name, part):
                if rest and is_folder:
                    yield from self._walk(info.path, rest)
                elif not rest and info.type == FileType.File:
                    yield info.path

    @contextmanager
    def _answering(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            known = "the machine's own credentials" if self._connection is None else f"connection {self._connection.id}"
            hint = f"Check {known}: key, region, endpoint_url and the rights on that bucket"
            raise ServiceError(name, "S3 must answer", str(error), hint) from None


def _etag(source: Any) -> str:
    described = {str(key).lower(): str(value) for key, value in source.metadata().items()}
    return described.get("etag", "").strip('"')


def _changed(name: str) -> DataError:
    return DataError(name, "must not change while it is read", hint="Run the task again once it is complete")


def _plain(part: str) -> str:
    """Undoes glob.escape."""
    return part.replace("[[]", "[").replace("[*]", "*").replace("[?]", "?")
