"""An archive comes out as it went in, or not at all."""

from __future__ import annotations

import json
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airworthy.errors import AirworthyError, ModelError, Problems
from airworthy.exchange.archive import MANIFEST, Manifest, read, write

SAID = Manifest(
    pipeline="churn",
    registry="http://127.0.0.1:5000",
    version="3",
    run_id="a" * 32,
    training_key="b" * 64,
    digest="c" * 64,
    files={},
)
CONTENT = {"run.json": b"{}", "model/model.ubj": bytes(range(256)) * 40, "artifacts/evidence/1/empty.json": b""}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    file = tmp_path / "v3.zip"
    write(file, SAID, folder_of(tmp_path / "content"))
    return file


def folder_of(folder: Path) -> Path:
    for name, content in CONTENT.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def held(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_what_went_in_comes_out(archive: Path, tmp_path: Path) -> None:
    manifest = read(archive, tmp_path / "out")
    assert held(tmp_path / "out") == CONTENT
    assert manifest.model_copy(update={"files": {}}) == SAID
    assert {name: one.bytes for name, one in manifest.files.items()} == {n: len(c) for n, c in CONTENT.items()}


def test_the_same_content_gives_the_same_bytes(archive: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.zip"
    write(again, SAID, folder_of(tmp_path / "other place"))
    assert again.read_bytes() == archive.read_bytes()


def test_an_archive_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folder_of(tmp_path / "content")
    before = set(tmp_path.iterdir())

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", full)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path / "v3.zip", SAID, folder)
    assert set(tmp_path.iterdir()) == before


def test_a_cut_archive_is_refused(archive: Path, tmp_path: Path) -> None:
    content = archive.read_bytes()
    for length in range(0, len(content), 23):
        archive.write_bytes(content[:length])
        with pytest.raises(ModelError, match="must be a whole archive"):
            read(archive, tmp_path / f"out{length}")


def test_a_changed_byte_is_found_or_changes_nothing(archive: Path, tmp_path: Path) -> None:
    content = archive.read_bytes()
    refused = 0
    for position in range(0, len(content), 3):
        changed = bytearray(content)
        changed[position] ^= 0x41
        archive.write_bytes(changed)
        out = tmp_path / f"out{position}"
        try:
            read(archive, out)
        except AirworthyError:
            refused += 1
        else:  # e.g. the moment a file was written, or a name of the manifest's own
            assert held(out) == CONTENT
    assert refused > len(content) / 3 * 0.7
    assert {path.name for path in tmp_path.iterdir() if not path.name.startswith("out")} == {"content", "v3.zip"}


Entries = list[tuple[str, bytes]]


def rewritten(archive: Path, change: Callable[[Entries], None], compression: int = zipfile.ZIP_DEFLATED) -> None:
    with zipfile.ZipFile(archive) as opened:
        entries = [(name, opened.read(name)) for name in opened.namelist()]
    change(entries)
    with zipfile.ZipFile(archive, "w", compression) as opened, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about names that come twice
        for name, content in entries:
            opened.writestr(zipfile.ZipInfo(name), content, compress_type=compression)


def said(entries: Entries, **changes: Any) -> None:
    """Changes the manifest."""
    number = next(number for number, (name, _) in enumerate(entries) if name == MANIFEST)
    manifest = json.loads(entries[number][1])
    entries[number] = (MANIFEST, json.dumps({**manifest, **changes}).encode())


def renamed(to: str) -> Callable[[Entries], None]:
    def change(entries: Entries) -> None:
        number = next(number for number, (name, _) in enumerate(entries) if name == "run.json")
        content = entries[number][1]
        entries[number] = (to, content)
        manifest = json.loads(next(c for n, c in entries if n == MANIFEST))
        said(entries, files={**{n: f for n, f in manifest["files"].items() if n != "run.json"}, to: FILE})

    return change


FILE = {"sha256": "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a", "bytes": 2}


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "/tmp/evil",
        "a/../../evil",
        "a//b",
        "a/",
        "./a",
        "a/.",
        "..",
        "C:/evil",
        "a\\..\\b",
        "a\nb",
        "x" * 300,
    ],
)
def test_a_name_that_leads_elsewhere_is_refused(archive: Path, tmp_path: Path, name: str) -> None:
    rewritten(archive, renamed(name))
    before = set(tmp_path.rglob("*"))
    with pytest.raises(ModelError, match="must name its files by plain paths below one folder"):
        read(archive, tmp_path / "out")
    assert set(tmp_path.rglob("*")) == before


def test_a_renamed_file_is_fine_when_the_manifest_says_so(archive: Path, tmp_path: Path) -> None:
    rewritten(archive, renamed("source/..run.json"))
    read(archive, tmp_path / "out")
    assert (tmp_path / "out" / "source" / "..run.json").read_bytes() == b"{}"


def test_a_folder_cannot_be_a_file_too(archive: Path, tmp_path: Path) -> None:
    rewritten(archive, renamed("model"))
    with pytest.raises(ModelError, match="must be readable"):
        read(archive, tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda entries: entries.append(("more.json", b"{}")), "more.json, which is not in it"),
        (lambda entries: entries.pop(), "which is only in it"),
        (lambda entries: entries.append(("RUN.json", b"{}")), "must name each file once"),
        (lambda entries: entries.append(("run.json", b"{}")), "must name each file once"),
        (lambda entries: entries.remove(next(e for e in entries if e[0] == MANIFEST)), "must hold manifest.json"),
        (lambda entries: said(entries, format_version=2), r"format_version must be one of 1\. Got 2"),
        (lambda entries: said(entries, format="a box"), r"format must be one of airworthy model\. Got 'a box'"),
        (lambda entries: said(entries, digest="no"), r"manifest.json: digest must match"),
        (lambda entries: said(entries, colour="red"), r"manifest.json: colour is not a known key"),
        (lambda entries: said(entries, files={"run.json": {"sha256": "0" * 64, "bytes": -1}}), "must be at least 0"),
        (
            lambda entries: entries.extend((f"{n}.json", b"") for n in range(10_001)),
            "must not hold more than 10,000 files",
        ),
    ],
)
def test_what_the_manifest_does_not_say_is_refused(
    archive: Path, tmp_path: Path, change: Callable[[Entries], None], told: str
) -> None:
    rewritten(archive, change)
    with pytest.raises((ModelError, Problems), match=told):
        read(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("registry", ["http://a/\x1b[2J", "http://a\n", "http://ä", "x" * 501])
def test_an_address_that_would_change_a_terminal_is_refused(archive: Path, tmp_path: Path, registry: str) -> None:
    rewritten(archive, lambda entries: said(entries, registry=registry))
    with pytest.raises(Problems, match=r"manifest\.json: registry"):
        read(archive, tmp_path / "out")


def test_more_than_is_allowed_is_refused_before_it_is_unpacked(archive: Path, tmp_path: Path) -> None:
    total = sum(map(len, CONTENT.values()))
    with pytest.raises(ModelError, match=r"must not hold more than 100 bytes\. Got '10,242'.*--most-bytes"):
        read(archive, tmp_path / "out", most_bytes=100)
    assert not (tmp_path / "out").exists()
    read(archive, tmp_path / "out", most_bytes=total)


def test_a_file_that_unpacks_to_more_than_it_says_is_read_no_further(archive: Path, tmp_path: Path) -> None:
    def bomb(entries: Entries) -> None:
        number = next(number for number, (name, _) in enumerate(entries) if name == "run.json")
        entries[number] = ("run.json", bytes(50_000_000))

    rewritten(archive, bomb)
    assert archive.stat().st_size < 200_000
    with pytest.raises(
        ModelError, match=r"must hold run.json with the recorded SHA-256 44136fa355b3…\. Got 'more bytes'"
    ):
        read(archive, tmp_path / "out")
    assert sum(len(content) for content in held(tmp_path / "out").values()) < 20_000


def test_other_compression_and_encryption_are_refused(archive: Path, tmp_path: Path) -> None:
    plain = archive.read_bytes()
    rewritten(archive, lambda entries: None, zipfile.ZIP_LZMA)
    with pytest.raises(ModelError, match="must be compressed as zip files are by default"):
        read(archive, tmp_path / "out")
    central = plain.index(b"PK\x01\x02")
    flags = struct.unpack_from("<H", plain, central + 8)[0] | 1
    archive.write_bytes(plain[: central + 8] + struct.pack("<H", flags) + plain[central + 10 :])
    with pytest.raises(ModelError, match=r"must be a whole archive.*password"):
        read(archive, tmp_path / "out")


def test_what_is_not_there_or_no_archive_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none.zip: must be readable"):
        read(tmp_path / "none.zip", tmp_path / "out")
    (tmp_path / "text.zip").write_text("no zip at all")
    with pytest.raises(
        ModelError, match=r"text.zip: must be a whole archive\. Got 'BadZipFile: File is not a zip file'"
    ):
        read(tmp_path / "text.zip", tmp_path / "out")
