"""Fifty expectations on one partition of 50 columns: here, plain Great Expectations on pandas, and SQL written by hand.

`AIRWORTHY_BENCHMARK_ROWS` says how many rows. Each side runs alone in a process of its own, reads the same Delta
partition, and must come to the same verdicts and the same failing rows. Seconds are those after imports; those
of the CPU say more where other programs run. `AIRWORTHY_BENCHMARK_WITHOUT` names sides to leave out, by commas.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

ROWS = int(os.environ.get("AIRWORTHY_BENCHMARK_ROWS", "500000"))
CHUNK = 100_000
WORDS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta"]
WRONG = 1000  # one row in so many breaks the rules that are broken
DAY = "2026-01-05"

INTEGERS = [f"i{number}" for number in range(14)]
FLOATS = [f"f{number}" for number in range(16)]
TEXTS = [f"s{number}" for number in range(12)]
MEANS = FLOATS[8:11]
BOOLEANS = [f"b{number}" for number in range(3)]
TIMES = [f"t{number}" for number in range(3)]

SUITE: list[tuple[str, dict[str, Any]]] = [
    ("expect_table_row_count_to_be_between", {"min_value": 1}),
    ("expect_column_values_to_be_unique", {"column": "id"}),
    *(("expect_column_values_to_not_be_null", {"column": name}) for name in ["id", "n", *TIMES]),
    *(("expect_column_values_to_be_between", {"column": name, "min_value": 0, "max_value": 999}) for name in INTEGERS),
    *(("expect_column_values_to_be_between", {"column": name, "min_value": -90}) for name in FLOATS[:8]),
    *(("expect_column_values_to_be_in_set", {"column": name, "value_set": WORDS}) for name in TEXTS[:6]),
    *(("expect_column_values_to_match_regex", {"column": name, "regex": "^[a-z]+$"}) for name in TEXTS[7:9]),
    ("expect_column_value_lengths_to_be_between", {"column": "s9", "min_value": 4, "max_value": 7}),
    ("expect_column_pair_values_a_to_be_greater_than_b", {"column_A": "t1", "column_B": "t0"}),
    *(("expect_column_mean_to_be_between", {"column": name, "min_value": 40, "max_value": 60}) for name in MEANS),
    ("expect_column_stdev_to_be_between", {"column": "f11", "min_value": 5, "max_value": 15}),
    ("expect_column_median_to_be_between", {"column": "f12", "min_value": 40, "max_value": 60}),
    ("expect_column_max_to_be_between", {"column": "f13", "max_value": 1000}),
    ("expect_column_sum_to_be_between", {"column": "n", "min_value": 0}),
    ("expect_column_unique_value_count_to_be_between", {"column": "s10", "min_value": 6, "max_value": 6}),
    ("expect_column_distinct_values_to_be_in_set", {"column": "s11", "value_set": WORDS}),
    ("expect_column_proportion_of_non_null_values_to_be_between", {"column": "f14", "min_value": 0.9}),
    ("expect_column_values_to_be_increasing", {"column": "n"}),
]  # fmt: skip


def chunks(rows: int) -> Iterator[Any]:
    """Yields the partition, the same every time; some columns miss values, and some break a rule now and then."""
    import numpy as np
    import pyarrow as pa

    words = np.array(WORDS, object)
    for start in range(0, rows, CHUNK):
        rng = np.random.default_rng(start)
        size = min(CHUNK, rows - start)
        n = np.arange(start, start + size)
        wrong = rng.random(size) < 1 / WRONG
        some = rng.random(size) < 0.04
        columns = {"id": pa.array([f"row-{number:09}" for number in n]), "n": pa.array(n)}
        for number, name in enumerate(INTEGERS):
            found = rng.integers(0, 1000, size)
            columns[name] = pa.array(
                np.where(wrong, -1, found) if number == 3 else found, mask=some if number % 3 else None
            )
        for number, name in enumerate(FLOATS):
            found = rng.normal(50, 10, size)
            columns[name] = pa.array(
                np.where(wrong, -99, found) if number == 2 else found, mask=some if number % 3 else None
            )
        for number, name in enumerate(TEXTS):
            found = words[rng.integers(0, len(words), size)]
            found = np.where(wrong, "Eta", found) if number in (1, 8) else found
            columns[name] = pa.array(found, pa.string(), mask=some if number % 3 else None)
        for name in BOOLEANS:
            columns[name] = pa.array(rng.random(size) < 0.5)
        at = 1_767_571_200_000_000 + rng.integers(0, 10**10, size)
        for number, name in enumerate(TIMES):
            later = np.where(wrong, -1, 1) * number * 10**6
            columns[name] = pa.array(at + later, pa.timestamp("us", tz="UTC"))
        yield pa.table(columns)


def store(folder: str) -> Any:
    from airworthy.store import Store

    return Store(folder, "bench")


def write(folder: str) -> None:
    from airworthy.partitions import Partition

    day = Partition(key=DAY, start=datetime(2026, 1, 5, tzinfo=UTC), end=datetime(2026, 1, 6, tzinfo=UTC))
    store(folder).write("raw", day, chunks(ROWS))


Verdicts = list[tuple[bool, int | None, int | None]]  # passed, failing rows, sum of their positions


def ours(folder: str) -> Verdicts:
    import pyarrow as pa

    from airworthy.config import Expectation
    from airworthy.expectations import run

    rows = store(folder).scan("raw", partitions=[DAY])
    rows = rows.replace_schema(pa.schema([field for field in rows.schema if field.name != "partition"]))
    outcomes = run(rows, [Expectation(type=name, kwargs=kwargs) for name, kwargs in SUITE], listed=ROWS)
    return [
        (one.status == "passed", one.unexpected, int(one.rows.sum()))
        if one.rows is not None
        else (one.status == "passed", None, None)
        for one in outcomes
    ]


def plain(folder: str, result_format: str) -> Verdicts:
    import great_expectations as gx

    frame = store(folder).read("raw", partitions=[DAY])
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    asset = context.data_sources.add_pandas("memory").add_dataframe_asset("raw")
    suite = gx.ExpectationSuite(name="suite")
    for number, (name, kwargs) in enumerate(SUITE):
        implementation = gx.expectations.registry.get_expectation_impl(name)
        suite.expectations.append(implementation(**kwargs, meta={"number": number}))
    batch = asset.add_batch_definition_whole_dataframe("whole").get_batch(batch_parameters={"dataframe": frame})
    found = {}
    for one in batch.validate(suite, result_format={"result_format": result_format}).results:
        rows = one.result.get("unexpected_index_list")
        failing = (one.result["unexpected_count"], sum(rows)) if rows else (None, None)
        found[one.expectation_config.meta["number"]] = (bool(one.success), *failing)
    return [found[number] for number in range(len(SUITE))]


def by_hand(folder: str) -> Verdicts:
    """What an engineer who knows these rules would write: one query for the counts, then one per kind of work."""
    import duckdb

    files = sorted(Path(folder).glob("bench/raw/partition=*/*.parquet"))
    connection = duckdb.connect(config={"memory_limit": "512MB", "temp_directory": f"{folder}/spill"})
    rows = f"read_parquet({[str(one) for one in files]!r}, file_row_number = true)"
    words = ", ".join(f"'{word}'" for word in WORDS)
    bad = {
        **{f"i{number}": f"i{number} < 0 OR i{number} > 999" for number in range(14)},
        **{name: f"{name} < -90 OR isnan({name})" for name in FLOATS[:8]},
        **{name: f"{name} NOT IN ({words})" for name in TEXTS[:6]},
        **{name: f"NOT regexp_matches({name}, '^[a-z]+$')" for name in TEXTS[7:9]},
        "s9": "length(s9) NOT BETWEEN 4 AND 7",
        "pair": "t1 <= t0 AND (t0 IS NOT NULL OR t1 IS NOT NULL)",
    }
    present = ["id", "n", *TIMES]
    one_pass = ", ".join(
        [
            "count(*)",
            *(f"count(*) - count({name})" for name in present),
            *(f"count_if({condition})" for condition in bad.values()),
            *(f"avg({name})" for name in FLOATS[8:11]),
            "stddev_samp(f11), max(f13), sum(n), count(f14) / count(*)",
        ]
    )

    def first(text: str) -> Any:
        return connection.execute(text).fetchall()[0]

    total, *values = first(f"SELECT {one_pass} FROM {rows}")
    nulls, values = values[: len(present)], values[len(present) :]
    counts, (m0, m1, m2, deviation, most, added, share) = dict(zip(bad, values, strict=False)), values[len(bad) :]
    broken = [name for name, count in counts.items() if count]
    starts = {}
    start = 0
    for file in files:
        starts[file.name] = start
        start += first(f"SELECT count(*) FROM '{file}'")[0]
    flags = ", ".join(f"({bad[name]}) AS bad_{name}" for name in broken)
    where = " OR ".join(f"({bad[name]})" for name in broken)
    numbered = rows.replace("= true)", "= true, filename = true)")
    failing = connection.sql(
        f"SELECT filename, file_row_number, {flags} FROM {numbered} WHERE {where}"
    ).to_arrow_table()
    import numpy as np

    offset = np.array([starts[Path(name).name] for name in failing["filename"].to_pylist()])
    position = offset + failing["file_row_number"].to_numpy()
    listed = {}
    for name in broken:
        flag = np.array(failing[f"bad_{name}"].to_numpy(zero_copy_only=False) == True)  # noqa: E712
        listed[name] = (False, int(flag.sum()), int(position[flag].sum()))
    rule = {name: listed.get(name, (True, None, None)) for name in bad}
    (repeated,) = first(f"SELECT count(*) FROM (SELECT 1 FROM {rows} GROUP BY id HAVING count(*) > 1)")
    (median,) = first(f"SELECT median(f12) FROM {rows}")
    words_of = {
        name: {word for (word,) in connection.execute(f"SELECT DISTINCT {name} FROM {rows}").fetchall()} - {None}
        for name in ("s10", "s11")
    }
    order = f"SELECT count(*) FROM (SELECT n < lag(n) OVER () AS falls FROM {rows}) WHERE falls"
    (falls,) = first(order)
    whole = [40 <= mean <= 60 for mean in (m0, m1, m2)]
    whole += [5 <= deviation <= 15, 40 <= median <= 60, most <= 1000, added >= 0, len(words_of["s10"]) == 6]
    whole += [words_of["s11"] <= set(WORDS), share >= 0.9, not falls]
    simple = [(total >= 1), not repeated, *(not count for count in nulls)]
    return [
        *((passed, None, None) for passed in simple),
        *rule.values(),
        *((bool(passed), None, None) for passed in whole),
    ]


SIDES = {
    "write": write,
    "ours": ours,
    "plain SUMMARY": lambda folder: plain(folder, "SUMMARY"),
    "plain COMPLETE": lambda folder: plain(folder, "COMPLETE"),
    "by hand": by_hand,
}
IMPORTS = {"ours": "great_expectations", "plain SUMMARY": "great_expectations", "plain COMPLETE": "great_expectations"}


def side(name: str, folder: Path) -> dict[str, Any]:
    ran = subprocess.run([sys.executable, __file__, name, str(folder)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, f"{name}: {ran.stderr[-2000:]}"
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return found


@pytest.mark.timeout(7200)
def test_validation_against_plain_great_expectations_and_sql_by_hand(tmp_path: Path) -> None:
    """Prints seconds, peak memory and ratios; the verdicts must be the same."""
    side("write", tmp_path)
    without = os.environ.get("AIRWORTHY_BENCHMARK_WITHOUT", "").split(",")
    found = {name: side(name, tmp_path) for name in SIDES if name != "write" and name not in without}
    assert len(SUITE) == 50 and sum(not passed for passed, *_ in found["ours"]["verdicts"]) == 5
    base = found["ours"]
    ratio = f"{'ours / it':>11}"
    print(f"\n{ROWS} rows x 50 columns, 50 expectations\n{'':16}{'seconds':>10}{ratio}{'CPU':>8}{ratio}{'peak MB':>10}")
    for name, one in found.items():
        times = "".join(f"{one[key]:>9.1f}{base[key] / one[key]:>11.2f}" for key in ("seconds", "cpu"))
        print(f"{name:16} {times}{one['megabytes']:>10.0f}")
    for name, one in found.items():
        if name == "plain SUMMARY":  # it has no rows
            assert [passed for passed, *_ in one["verdicts"]] == [passed for passed, *_ in base["verdicts"]]
        else:
            assert one["verdicts"] == base["verdicts"], name


def main(name: str, folder: str) -> None:
    import duckdb  # noqa: F401
    import pyarrow.dataset  # noqa: F401

    if name in IMPORTS:
        __import__(IMPORTS[name])
    started, worked = time.perf_counter(), time.process_time()
    verdicts = SIDES[name](folder)
    seconds, cpu = time.perf_counter() - started, time.process_time() - worked
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "cpu": cpu, "megabytes": megabytes, "verdicts": verdicts}))


if __name__ == "__main__":
    main(*sys.argv[1:])
