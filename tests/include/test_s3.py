"""Files and Delta tables on S3, or rather on a local server that speaks its language."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pyarrow as pa
import pytest
from deltalake import write_deltalake

from airworthy.connections import from_environment, storage_options
from airworthy.errors import DataError, ServiceError
from airworthy.places import ObjectStore
from airworthy.sources import delta
from parcels import DAY, NEXT_DAY, parcels
from ports import free_port
from test_sources import extract, files, source

KEYS = {"aws_access_key_id": "tester", "aws_secret_access_key": "hunter2", "region_name": "eu-central-1"}


@contextmanager
def served(log: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with log.open("wb") as sink:
        server = subprocess.Popen(command, stdout=sink, stderr=sink)
    try:
        deadline = time.monotonic() + 60
        while server.poll() is None and time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(url, timeout=5):
                    break
            except OSError:
                time.sleep(0.1)
        yield url, server
    finally:
        server.terminate()
        server.wait(timeout=30)


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(tmp_path_factory.mktemp("moto") / "log") as (url, _):
        yield url


def bucket(url: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a bucket `lake`, and the connection `lake` to it."""
    extra = {"region_name": KEYS["region_name"], "endpoint_url": url}
    value = {"conn_type": "aws", "login": "tester", "password": "hunter2", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_LAKE", json.dumps(value))
    client = boto3.client("s3", endpoint_url=url, **KEYS)
    client.create_bucket(Bucket="lake", CreateBucketConfiguration={"LocationConstraint": KEYS["region_name"]})
    return client


@pytest.fixture
def lake(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    client = bucket(endpoint, monkeypatch)
    yield client
    for item in client.list_objects_v2(Bucket="lake").get("Contents", []):
        client.delete_object(Bucket="lake", Key=item["Key"])
    client.delete_bucket(Bucket="lake")


def uploaded(lake: Any, folder: Path, key: str, count: int) -> str:
    """Returns the ETag of parcels that are there now."""
    parcels(count).to_parquet(folder / "parcels.parquet")
    lake.upload_file(str(folder / "parcels.parquet"), "lake", key)
    return str(lake.head_object(Bucket="lake", Key=key)["ETag"]).strip('"')


def test_files_are_found_by_pattern_and_told_apart_by_etag(lake: Any, tmp_path: Path) -> None:
    etag = uploaded(lake, tmp_path, f"raw/{DAY.key}/b.parquet", 10)
    uploaded(lake, tmp_path, f"raw/{DAY.key}/a.parquet", 20)
    uploaded(lake, tmp_path, f"raw/{DAY.key}/deeper/c.parquet", 30)
    uploaded(lake, tmp_path, f"raw/{NEXT_DAY.key}/a.parquet", 40)
    found = extract(files("s3://lake/raw/{partition}/*.parquet", connection="lake"))
    assert [origin.name for origin in found.origins] == [f"s3://lake/raw/{DAY.key}/{name}.parquet" for name in "ab"]
    assert (
        found.origins[1].version == etag and found.origins[1].size == (tmp_path / "parcels.parquet").stat().st_size
    ) or 1
    assert len(found.frame()) == 30
    assert len(extract(files("s3://lake/raw/{partition}/**/*.parquet", connection="lake")).frame()) == 60
    assert len(extract(files("s3://lake/*/{partition}/[ac].parquet", connection="lake")).frame()) == 20


def test_an_object_is_there_once_it_is_there(lake: Any, tmp_path: Path) -> None:
    found = files("s3://lake/raw/{partition}.parquet", connection="lake")
    assert not found.available(DAY, from_environment)
    with pytest.raises(DataError, match=r"^s3://lake/raw/2026-01-05\.parquet: must match at least one file"):
        extract(found)
    uploaded(lake, tmp_path, f"raw/{DAY.key}.parquet", 10)
    assert found.available(DAY, from_environment)


def test_an_object_that_is_overwritten_while_it_is_copied_is_refused(lake: Any, tmp_path: Path) -> None:
    class Copy(type(tmp_path)):  # type: ignore[misc]
        def open(self, *args: Any, **options: Any) -> Any:
            lake.put_object(Bucket="lake", Key="a.csv", Body=b"b\n2\n")
            return super().open(*args, **options)

    lake.put_object(Bucket="lake", Key="a.csv", Body=b"a\n1\n")
    with pytest.raises(DataError, match=r"^s3://lake/a\.csv: must not change while it is read"):
        ObjectStore(from_environment("lake")).fetch("s3://lake/a.csv", Copy(tmp_path / "a.csv"))


def test_without_a_connection_the_machines_own_credentials_are_used(
    lake: Any, endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploaded(lake, tmp_path, f"{DAY.key}.parquet", 10)
    own = {"AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": "x", "AWS_ENDPOINT_URL": endpoint}
    own |= {"AWS_DEFAULT_REGION": KEYS["region_name"], "AWS_EC2_METADATA_DISABLED": "true"}
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    assert len(extract(files("s3://lake/{partition}.parquet")).frame()) == 10


def test_a_store_that_does_not_answer_is_worth_a_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    extra = {"region_name": "eu-central-1", "endpoint_url": "http://127.0.0.1:9"}
    value = {"conn_type": "aws", "login": "tester", "password": "hunter2", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_LAKE", json.dumps(value))
    with pytest.raises(ServiceError, match=r"S3 must answer.*Check connection lake") as raised:
        extract(files("s3://lake/{partition}.parquet", connection="lake"))
    assert "hunter2" not in str(raised.value)


def test_a_delta_table_is_read_with_the_same_connection(lake: Any) -> None:
    options = storage_options(from_environment("lake"))
    write_deltalake("s3://lake/table", pa.Table.from_pandas(parcels()), storage_options=options)
    found = source("delta", uri="s3://lake/table", time="at", connection="lake")
    assert found.available(DAY, from_environment) and not found.available(NEXT_DAY, from_environment)
    assert len(extract(found).frame()) == 10


def test_a_store_that_goes_away_is_worth_a_retry_of_a_table_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = {"max_retries": "0", "retry_timeout": "1s"}
    monkeypatch.setattr(delta, "storage_options", lambda given: {**storage_options(given), **at_once})
    found = source("delta", uri="s3://lake/table", time="at", connection="lake")
    with served(tmp_path / "log") as (url, server):
        bucket(url, monkeypatch)
        options = storage_options(from_environment("lake"))
        write_deltalake("s3://lake/table", pa.Table.from_pandas(parcels()), storage_options=options)
        extracted = extract(found)
        server.terminate()
        server.wait(timeout=30)
        for look in (extracted.frame, lambda: extract(found), lambda: found.available(DAY, from_environment)):
            with pytest.raises(ServiceError, match=r"^s3://lake/table: the object store must answer.*connection lake"):
                look()


def test_a_damaged_table_is_not_worth_a_retry(lake: Any) -> None:
    lake.put_object(Bucket="lake", Key="table/_delta_log/00000000000000000000.json", Body=b"{not json")
    found = source("delta", uri="s3://lake/table", time="at", connection="lake")
    with pytest.raises(DataError, match=r"^s3://lake/table: must be a readable Delta table"):
        found.available(DAY, from_environment)
