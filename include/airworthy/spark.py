"""Spark for pipelines that say `engine: spark`: the session of this process, and work that is spread over its tasks."""

from __future__ import annotations

import importlib.util
import logging
import os
import pickle
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyarrow import fs

from airworthy.errors import AirworthyError, ConfigError, DataError, ServiceError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from airworthy.store import Store

_WHERE = "engine: spark"
_DEFAULTS = {
    "spark.master": "local[*]",
    "spark.app.name": "airworthy",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
}
# Without these the rows would not be what they are locally, or errors would be logged with the values they are about.
_FIXED = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.caseSensitive": "true",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    "spark.sql.dataFrameQueryContext.enabled": "false",
    "spark.python.sql.dataFrameDebugging.enabled": "false",
}
_PACKED = pa.ipc.IpcWriteOptions(compression="lz4")


def session(settings: Mapping[str, str] | None = None) -> SparkSession:
    """Returns the Spark session of this process, started by the first who asks for it.

    Args:
        settings: The `spark` mapping of the profile; Spark's own keys.

    Raises:
        ConfigError: PySpark or Java is missing.
        ServiceError: Spark does not start, or its master does not answer.
    """
    _require_installed()
    from pyspark.logger import PySparkLogger
    from pyspark.sql import SparkSession

    chosen = {**_DEFAULTS, **(settings or {}), **_FIXED}
    if chosen["spark.master"].startswith("local"):
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder
    for key, value in chosen.items():
        builder = builder.config(key, value)
    try:
        found = builder.getOrCreate()
    except Exception as error:
        hint = str(error).partition("\n")[0]
        raise ServiceError(_WHERE, "must be able to start Spark", chosen["spark.master"], hint) from error
    # Errors come back as exceptions, which are masked; Spark's log would quote personal values.
    found.sparkContext.setLogLevel("OFF")
    logging.getLogger("py4j").setLevel(logging.WARNING)  # else each connection that ends has a line
    for name in ("DataFrameQueryContextLogger", "SQLQueryContextLogger"):
        PySparkLogger.getLogger(name).disabled = True
    return found


def address(uri: str) -> str:
    """Returns the address of a table's folder as Spark's own readers take it."""
    if "://" not in uri:
        return f"file://{Path(uri).absolute()}"
    return f"s3a://{uri.removeprefix('s3://')}" if uri.startswith("s3://") else uri


def spread(
    session: SparkSession, count: int, work: Callable[[range], Iterator[pa.Table]], store: Store, table: str
) -> Iterator[pa.Table]:
    """Yields the tables that `work` yields for the numbers from 0 to `count`, in their order.

    Each task is given some of the numbers, and leaves what it makes of them in files beside the table, where no
    reader of the table looks. So no table passes through Spark's memory, or is in memory here with others.

    Args:
        work: Is run by Spark's workers, which must have this package, its needs, and the store within reach.
        table: Whose folder to use; nothing is left there.

    Raises:
        AirworthyError: What `work` raised for the first of the numbers for which it did.
        ServiceError: Spark could not run it.
    """
    tasks = min(count, session.sparkContext.defaultParallelism)
    folder, path = f".spark-{uuid.uuid4()}", list(sys.path)

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        sys.path += [entry for entry in path if entry not in sys.path]
        for batch in batches:
            for task in batch["id"].to_pylist():
                numbers = range(task * count // tasks, (task + 1) * count // tasks)
                found = _tried(work, numbers, store.filesystem(table), folder)
                yield pa.record_batch({"id": [task], "found": [pickle.dumps(found)]})

    files = store.filesystem(table)
    files.create_dir(folder)
    try:
        for _, found in sorted(_collected(session.range(0, tasks, 1, tasks).mapInArrow(run, "id long, found binary"))):
            made = pickle.loads(found)
            if isinstance(made, Exception):
                raise made
            for file in made:
                with files.open_input_file(file) as source:
                    yield pa.ipc.open_file(source).read_all()
    finally:
        files.delete_dir(folder)


def _collected(frame: Any) -> list[tuple[int, bytes]]:
    try:
        return [(row["id"], bytes(row["found"])) for row in frame.collect()]
    except Exception as error:
        lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise ServiceError(_WHERE, "must run the tasks it is given", hint=lines[-1].strip()) from error


def _tried(
    work: Callable[[range], Iterator[pa.Table]], numbers: range, files: fs.FileSystem, folder: str
) -> list[str] | AirworthyError:
    """Returns the files with what work makes of the numbers, in order; or why it does not.

    An error is returned, because Spark would log what is raised, with the values it speaks of.
    """
    made = []
    try:
        for position, rows in enumerate(work(numbers)):
            made.append(f"{folder}/{numbers.start}-{position}.arrow")
            with files.open_output_stream(made[-1]) as sink, pa.ipc.new_file(sink, rows.schema, options=_PACKED) as out:
                out.write_table(rows)
    except AirworthyError as error:
        return error
    except Exception as error:
        return DataError(_WHERE, f"failed with {type(error).__name__}: {error}")
    return made


def _require_installed() -> None:
    if importlib.util.find_spec("pyspark") is None:
        raise ConfigError(_WHERE, "needs PySpark", hint="Install the extra `spark`: pip install 'airworthy[spark]'")
    home = os.environ.get("JAVA_HOME")
    if shutil.which(f"{home}/bin/java" if home else "java") is None:
        hint = "Install it, e.g. `apt install openjdk-17-jre-headless`, or set JAVA_HOME"
        raise ConfigError(_WHERE, "needs Java 17 or newer", hint=hint)
