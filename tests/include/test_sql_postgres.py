"""The SQL source on a real PostgreSQL, which has types and time zones of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
import sqlalchemy as sa

from airworthy.errors import DataError, ServiceError
from parcels import DAY
from postgres_process import postgres_server
from test_sources import extract, rows, source


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with postgres_server() as found:
        with sa.create_engine(found).begin() as open_:
            open_.execute(sa.text(TABLE))
            open_.execute(sa.text("ALTER DATABASE postgres SET timezone TO 'Asia/Tokyo'"))
        yield found


# Every quarter of an hour for three days around the partition, in UTC in both kinds of column.
TABLE = """
CREATE TABLE events AS
SELECT n::int4 AS id, at, at AT TIME ZONE 'UTC' AS plain, (n / 4.0)::numeric(9, 2) AS price, n::float4 AS part,
       n % 2 = 0 AS even, 'row ' || n AS text, at::date AS day, CASE WHEN n > 140 THEN n END AS late_id
FROM (SELECT n, timestamptz '2026-01-04 00:00+00' + n * interval '15 minutes' AS at
      FROM generate_series(0, 287) AS n) AS numbers
"""


@pytest.mark.parametrize("column", ["at", "plain"])
def test_times_are_compared_in_utc_whatever_the_servers_zone(url: str, column: str) -> None:
    query = f"select * from events where {column} >= :start and {column} < :end order by id"
    for size in (7, 1000):
        chunks = list(extract(source("sql", url=url, query=query, chunk_rows=size)).rows)
        assert [row["id"] for chunk in chunks for row in chunk.to_pylist()] == list(range(96, 192))
        first = chunks[0].to_pylist()[0]
        assert first["at"] == first["plain"] == first["day"] == DAY.start
        schema = pa.unify_schemas([chunk.schema for chunk in chunks])
        types = {name: str(kind) for name, kind in zip(schema.names, schema.types, strict=True)}
        times = dict.fromkeys(("at", "plain", "day"), "timestamp[us, tz=UTC]")
        numbers = {"id": "int64", "price": "double", "part": "double", "late_id": "int64"}
        assert types == times | numbers | {"even": "bool", "text": "string"}


def test_a_bound_parameter_is_never_sql(url: str) -> None:
    found = rows(source("sql", url=url, query="select :partition as key, '\\:start' as text, 1::int8 as one"))
    assert found.iloc[0].tolist() == [DAY.key, ":start", 1]


def test_a_server_that_refuses_is_worth_a_retry_and_a_wrong_query_is_not(url: str) -> None:
    with pytest.raises(DataError, match=r"sql.2026-01-05.: the database must understand the query.*nowhere"):
        rows(source("sql", url=url, query="select * from nowhere where :start < :end"))
    with pytest.raises(ServiceError, match="the database must answer"):
        rows(source("sql", url="postgresql+psycopg2://127.0.0.1:9/x", query="select :start"))


LIMITED = """
import re, sys
from pathlib import Path
from airworthy import kinds
from airworthy.connections import from_environment
from parcels import DAY

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) >> 10

query = "select n, repeat('x', 1000) || n as text from generate_series(1, {rows}) as n where :start < :end"
fields = {"url": sys.argv[1], "query": query.replace("{rows}", sys.argv[2]), "chunk_rows": 5000}
found = kinds.parse("sources", {"sql": fields})
rows = sum(chunk.num_rows for chunk in found.extract(DAY, from_environment).rows)
print(rows, peak())
"""


def test_the_memory_depends_on_the_chunk_and_not_on_the_rows(url: str) -> None:
    peaks = {}
    for count in (5_000, 300_000):
        command = [sys.executable, "-c", LIMITED, url, str(count)]
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        found = re.fullmatch(r"(\d+) (\d+)\n", done.stdout)
        assert found and int(found[1]) == count
        peaks[count] = int(found[2])
    assert peaks[300_000] < peaks[5_000] + 150, peaks  # of 300 MB of rows
