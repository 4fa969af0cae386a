"""File formats: how a partition's files become chunks of rows, in bounded memory whatever is in the files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from airworthy.errors import DataError, Problems

if TYPE_CHECKING:
    import pyarrow as pa


class File(NamedTuple):
    """A file as errors name it, and where its bytes are on this machine."""

    name: str
    path: Path


class Limits(NamedTuple):
    """What a file may ask of memory and disk.

    Attributes:
        cell: The most bytes of a single value.
        ratio: How many times its own size a compressed file may unpack to.
    """

    cell: int
    ratio: float


# Below this a file may unpack to any multiple of its size: repetitive small files compress well.
_HARMLESS = 256 << 20


class Format(ABC):
    """One format of files."""

    def __init__(self, limits: Limits, missing: Sequence[str]) -> None:
        self.limits = limits
        self.missing = tuple(missing)

    @abstractmethod
    def survey(self, files: Sequence[File]) -> pa.Schema:
        """Returns the columns and types of the rows of all files together, however they are cut into files.

        Raises:
            DataError: A file cannot be read.
            Problems: The files do not fit each other; every difference is named.
        """

    @abstractmethod
    def read(self, file: File, schema: pa.Schema) -> Iterator[pa.Table]:
        """Yields a file's rows in chunks of the schema that `survey` returned.

        Raises:
            DataError: The file cannot be read.
        """

    def allow(self, file: File, unpacked: int) -> None:
        """Raises DataError once a file has unpacked to more than is allowed."""
        size = file.path.stat().st_size
        if unpacked > max(_HARMLESS, self.limits.ratio * size):
            rule = f"must not unpack to more than {self.limits.ratio:g} times its size of {size:,} bytes"
            raise DataError(file.name, rule, f"over {unpacked:,} bytes", "Raise `max_ratio` if the file is in order")

    def too_large(self, file: File, what: str) -> DataError:
        rule = f"must not have a value of more than {self.limits.cell:,} bytes"
        hint = "Raise `max_cell` if the file is in order, or leave that column out of it"
        return DataError(file.name, rule, what, hint)


def require_same_columns(files: Sequence[File], columns: Sequence[Sequence[str]]) -> None:
    """Raises Problems that name every file whose columns are not those of the first one."""
    problems = []
    for file, names in zip(files, columns, strict=True):
        if differing := sorted(set(columns[0]) ^ set(names)):
            rule = f"must have the same columns as {files[0].name}"
            hint = "These are in one of the two only; write both alike"
            problems.append(DataError(file.name, rule, differing, hint))
    if problems:
        raise Problems(files[0].name, problems)


def require_names(file: File, names: Sequence[str]) -> None:
    """Raises DataError if a column has no name, or not one of its own."""
    if repeated := sorted({name for name in names if names.count(name) > 1} - {""}):
        raise DataError(file.name, "must have each column once", repeated, "Rename or remove the others")
    if "" in names:
        rule = "must give every column a name"
        hint = "An index that was written along has none; write the file without it"
        raise DataError(file.name, rule, f"none for column {list(names).index('') + 1} of {len(names)}", hint)
