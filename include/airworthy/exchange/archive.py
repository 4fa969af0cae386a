"""The file: a zip with a manifest that names every other file in it with its SHA-256 and size."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from airworthy.config import Strict
from airworthy.errors import ModelError, Problems
from airworthy.explain import explain

MANIFEST = "manifest.json"
MOST_BYTES = 2 * 1024**3

_MOST_FILES = 10_000
_MANIFEST_BYTES = 4 * 1024**2
_CHUNK = 1024**2
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same content is the same file, whenever it is written
_PART = r"(?!\.{1,2}(?:/|$))[^/\\:\x00-\x1f\x7f]{1,200}"
_NAME = re.compile(rf"{_PART}(/{_PART}){{0,20}}")

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class File(Strict):
    """What a file in the archive must be."""

    sha256: Digest
    bytes: Annotated[int, Field(ge=0)]


class Manifest(Strict):
    """What is in an archive, and what it is.

    Attributes:
        registry: Address of the MLflow server it comes from, without credentials.
        version: Its version there.
        run_id: Its run there.
        training_key: Of the training that made the model, wherever that was.
        digest: SHA-256 of the model's files (`model_files.digest_of`).
    """

    format: Literal["airworthy model"] = "airworthy model"
    format_version: Literal[1] = 1
    pipeline: str
    registry: Annotated[str, Field(pattern=r"^[\x20-\x7e]*$", max_length=500)]
    version: Annotated[str, Field(pattern=r"^[1-9]\d{0,8}$")]
    run_id: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    training_key: Digest
    digest: Digest
    files: dict[str, File]


def write(file: Path, manifest: Manifest, folder: Path) -> Manifest:
    """Returns the manifest of the archive it leaves, whole or not at all; the same files give the same bytes.

    Args:
        file: Where; what is there is replaced.
        manifest: Its `files` are filled in here.
        folder: What goes in.
    """
    found = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    files = {name: File(sha256=sha256(path), bytes=path.stat().st_size) for name, path in sorted(found.items())}
    whole = manifest.model_copy(update={"files": files})
    with tempfile.NamedTemporaryFile(dir=file.parent, prefix=f".{file.name}.", delete=False) as half:
        try:
            with zipfile.ZipFile(half, "w") as archive:
                archive.writestr(_entry(MANIFEST), whole.model_dump_json(indent=1))
                for name in files:
                    with found[name].open("rb") as opened, archive.open(_entry(name), "w", force_zip64=True) as entry:
                        shutil.copyfileobj(opened, entry, _CHUNK)
            os.chmod(half.name, 0o644)
            os.replace(half.name, file)
        except BaseException:
            os.unlink(half.name)
            raise
    return whole


def read(file: Path, folder: Path, *, most_bytes: int = MOST_BYTES) -> Manifest:
    """Returns the manifest once every file is in `folder`, exactly as the manifest says; nothing else is written.

    Args:
        file: The archive, which may come from anybody.
        folder: Gets the files.
        most_bytes: How large all of them may be together.

    Raises:
        ModelError: It is no archive, is damaged, or has names, sizes or content that the manifest does not.
        Problems: The manifest is none of this format.
    """
    where = str(file)
    with _intact(where), zipfile.ZipFile(file) as archive:
        entries = _entries(where, archive)
        manifest = _manifest(where, archive, entries.pop(MANIFEST, None))
        _require_named(where, manifest, entries)
        total = sum(one.bytes for one in manifest.files.values())
        if total > most_bytes:
            hint = "If that is meant, allow more with --most-bytes"
            raise ModelError(where, f"must not hold more than {most_bytes:,} bytes", f"{total:,}", hint)
        for name, wanted in manifest.files.items():
            _extract(where, archive, entries[name], wanted, folder / name)
    return manifest


@contextmanager
def _intact(where: str) -> Iterator[None]:
    """Turns what a damaged zip raises, anywhere in it, into a ModelError."""
    damaged = "It was cut off or changed on its way; export it again"
    try:
        yield
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):  # what zipfile makes of an offset that is nonsense
            raise ModelError(where, "must be readable, and its files must fit on this disk", str(error)) from None
        raise ModelError(where, "must be a whole archive", str(error), damaged) from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise ModelError(where, "must be a whole archive", f"{type(error).__name__}: {error}", damaged) from None


def _entries(where: str, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Returns what the zip holds by name; refuses names that lead elsewhere or come twice."""
    found = archive.infolist()
    if len(found) > _MOST_FILES:
        raise ModelError(where, f"must not hold more than {_MOST_FILES:,} files", f"{len(found):,}")
    # `orig_filename` is what stands in the file; `filename` is what zipfile made of it.
    if bad := [one.orig_filename for one in found if not _NAME.fullmatch(one.orig_filename)]:
        raise ModelError(where, "must name its files by plain paths below one folder", bad[0], "Do not trust it")
    if odd := [one.filename for one in found if one.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)]:
        raise ModelError(where, "must be compressed as zip files are by default", odd[0])
    entries = {one.filename: one for one in found}
    if len({name.casefold() for name in entries}) < len(found):
        raise ModelError(where, "must name each file once", hint="Do not trust it")
    return entries


def _manifest(where: str, archive: zipfile.ZipFile, entry: zipfile.ZipInfo | None) -> Manifest:
    if entry is None:
        raise ModelError(where, f"must hold {MANIFEST}", hint="It is not what `airworthy export` writes")
    with archive.open(entry) as opened:
        content = opened.read(_MANIFEST_BYTES + 1)
    if len(content) > _MANIFEST_BYTES:
        raise ModelError(where, f"must have a {MANIFEST} of at most {_MANIFEST_BYTES:,} bytes")
    try:
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        where = f"{where}: {MANIFEST}"
        raise Problems(where, explain(where, error)) from None


def _require_named(where: str, manifest: Manifest, entries: Mapping[str, zipfile.ZipInfo]) -> None:
    if odd := sorted(entries.keys() ^ manifest.files.keys()):
        there = "is not in" if odd[0] in entries else "is only in"
        raise ModelError(where, f"must hold exactly the files of {MANIFEST}", f"{odd[0]}, which {there} it")


def _extract(where: str, archive: zipfile.ZipFile, entry: zipfile.ZipInfo, wanted: File, file: Path) -> None:
    """Leaves one file in place, read no further than it may be long."""
    file.parent.mkdir(parents=True, exist_ok=True)
    found, left = hashlib.sha256(), wanted.bytes
    with archive.open(entry) as opened, file.open("xb") as copied:
        while chunk := opened.read(min(_CHUNK, left + 1)):
            left -= len(chunk)
            if left < 0:
                break
            found.update(chunk)
            copied.write(chunk)
    if left or found.hexdigest() != wanted.sha256:
        rule = f"must hold {entry.filename} with the recorded SHA-256 {wanted.sha256[:12]}…"
        got = "more bytes" if left < 0 else "fewer bytes" if left else f"{found.hexdigest()[:12]}…"
        raise ModelError(where, rule, got, "It was changed on its way; export it again")


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.create_system = 3  # Unix, wherever it is written
    entry.external_attr = 0o644 << 16
    return entry


def sha256(file: Path) -> str:
    """Returns the SHA-256 of a file's content."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
