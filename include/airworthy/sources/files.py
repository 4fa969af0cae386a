"""`files: {glob: "data/orders/{partition}.parquet"}`: raw rows from Parquet or CSV files."""

from __future__ import annotations

import glob
import zlib
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import field_validator

from airworthy.connections import Connections
from airworthy.errors import DataError
from airworthy.partitions import Partition
from airworthy.profile import ROOT
from airworthy.sources import Extracted, Origin, Source

if TYPE_CHECKING:
    import pandas as pd

_PLACE = "{partition}"
_SUFFIXES = (".parquet", ".csv", ".csv.gz")


class Files(Source):
    """Reads the files that match `glob`, in order of their names, one below the other.

    Attributes:
        glob: Relative to the repository; `{partition}` stands for the partition's key, e.g. 2013-01-07.
    """

    glob: str

    @field_validator("glob")
    @classmethod
    def _readable(cls, value: str) -> str:
        if _PLACE not in value:
            raise ValueError(f"must contain {_PLACE}, so that each partition has files of its own")
        if not value.endswith(_SUFFIXES):
            raise ValueError(f"must end with {', '.join(_SUFFIXES[:-1])} or {_SUFFIXES[-1]}")
        return value

    def extract(self, partition: Partition, connections: Connections) -> Extracted:
        import pandas as pd
        import pyarrow as pa

        pattern = self.glob.replace(_PLACE, glob.escape(partition.key))
        files = sorted(glob.glob(pattern, root_dir=ROOT, recursive=True))
        if not files:
            raise DataError(pattern, "must match at least one file", hint="Has the partition been delivered?")
        frames = {file: _read(file) for file in files}
        first = list(frames[files[0]].columns)
        for file, frame in frames.items():
            if differing := sorted(set(first) ^ set(map(str, frame.columns))):
                rule = f"must have the same columns as {files[0]}"
                raise DataError(file, rule, differing, "These are in one of the two only")
        whole = pa.Table.from_pandas(pd.concat(frames.values(), ignore_index=True), preserve_index=False)
        origins = tuple(Origin(file, sha256((ROOT / file).read_bytes()).hexdigest()) for file in files)
        return Extracted(iter([whole]), origins)


def _read(file: str) -> pd.DataFrame:
    import pandas as pd
    import pyarrow as pa

    path, kind = ROOT / file, "Parquet" if Path(file).suffix == ".parquet" else "CSV"
    try:
        return pd.read_parquet(path) if kind == "Parquet" else pd.read_csv(path)
    except (pa.ArrowException, ValueError, OSError, EOFError, zlib.error) as error:  # a ParserError is a ValueError
        hint = "Write it again in that format, or correct `glob`; nothing was ingested"
        raise DataError(file, f"must be a {kind} file", str(error), hint) from error
