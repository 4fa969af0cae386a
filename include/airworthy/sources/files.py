"""`files: {glob: "data/orders/{partition}.parquet"}`: raw rows from Parquet, CSV or JSON lines, here or on S3."""

from __future__ import annotations

import glob
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Self

from pydantic import Field, field_validator, model_validator

from airworthy.connections import Connections
from airworthy.errors import DataError
from airworthy.explain import problem
from airworthy.partitions import Partition
from airworthy.places import Here, ObjectStore, Place
from airworthy.sources import Extracted, Origin, Source

if TYPE_CHECKING:
    import pyarrow as pa

    from airworthy.formats import Format

_PLACE = "{partition}"
_SUFFIXES = (".parquet", ".csv", ".csv.gz", ".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz")
_S3 = "s3://"


class Files(Source):
    """Reads the files that match `glob`, in order of their names, one below the other.

    Attributes:
        glob: Relative to the repository, or `s3://bucket/...`; `{partition}` stands for the partition's key, e.g.
            2013-01-07.
        connection: The id of the Airflow connection with the credentials for S3. Default: the machine's own.
        ready: A file whose being there says that the others are complete, e.g. `data/{partition}/_SUCCESS`.
        missing: The texts that mean a missing value in a CSV file.
        max_cell: The most bytes a single value may have; a row of CSV or JSON lines counts as one.
        max_ratio: How many times its size a file may unpack to, once that is more than 256 MiB.
    """

    glob: str
    connection: str | None = None
    ready: str | None = None
    missing: tuple[str, ...] = ("", "NA", "N/A", "NaN", "nan", "NULL", "null")
    max_cell: int = Field(default=16 << 20, ge=1 << 10, le=128 << 20)
    max_ratio: float = Field(default=200, ge=1)

    @field_validator("glob")
    @classmethod
    def _readable(cls, value: str) -> str:
        if not value.endswith(_SUFFIXES):
            raise ValueError(f"must end with {', '.join(_SUFFIXES[:-1])} or {_SUFFIXES[-1]}")
        return value

    @field_validator("glob", "ready")
    @classmethod
    def _partitioned(cls, value: str | None) -> str | None:
        if value is not None and _PLACE not in value:
            raise ValueError(f"must contain {_PLACE}, so that each partition has files of its own")
        return value

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if self.connection is not None and not self.glob.startswith(_S3):
            raise problem("is for files on s3://", self.connection, loc=("connection",), hint="Leave it out")
        return self

    def extract(self, partition: Partition, connections: Connections) -> Extracted:
        from airworthy.formats import File

        place = self._place(connections)
        names = place.find(self._pattern(self.glob, partition))
        if not names:
            where = self.glob.replace(_PLACE, partition.key)
            raise DataError(where, "must match at least one file", hint="Has the partition been delivered?")
        copies = TemporaryDirectory(prefix="airworthy-")
        found = [
            place.fetch(name, Path(copies.name, f"{number}-{Path(name).name}")) for number, name in enumerate(names)
        ]
        form = self._format()
        schema = form.survey([File(one.name, one.path) for one in found])

        def rows() -> Iterator[pa.Table]:
            yield schema.empty_table()  # so that the columns are known also where there is no row
            with copies:
                for one in found:
                    yield from form.read(File(one.name, one.path), schema)
                    one.require_unchanged()

        return Extracted(rows(), tuple(Origin(one.name, one.version, one.size) for one in found))

    def available(self, partition: Partition, connections: Connections) -> bool:
        return bool(self._place(connections).find(self._pattern(self.ready or self.glob, partition)))

    def awaited(self, partition: Partition) -> str:
        return f"a file {(self.ready or self.glob).replace(_PLACE, partition.key)}"

    def connection_ids(self) -> tuple[str, ...]:
        return () if self.connection is None else (self.connection,)

    def _place(self, connections: Connections) -> Place:
        if not self.glob.startswith(_S3):
            return Here()
        return ObjectStore(None if self.connection is None else connections(self.connection))

    def _pattern(self, pattern: str, partition: Partition) -> str:
        return pattern.replace(_PLACE, glob.escape(partition.key))

    def _format(self) -> Format:
        from airworthy.formats import Limits
        from airworthy.formats.csv import Csv
        from airworthy.formats.jsonl import JsonLines
        from airworthy.formats.parquet import Parquet

        plain = self.glob.removesuffix(".gz")
        kind: type[Format] = Parquet if plain.endswith(".parquet") else Csv if plain.endswith(".csv") else JsonLines
        return kind(Limits(self.max_cell, self.max_ratio), self.missing)
