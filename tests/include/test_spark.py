"""`engine: spark` does what `engine: local` does: same outcomes, same rows in quarantine, same features."""

from __future__ import annotations

import importlib.util
import math
import pickle
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from airworthy import content, spark
from airworthy.config import Expectation, Pipeline, load_pipeline
from airworthy.errors import AirworthyError, ConfigError, DataError, Problems
from airworthy.expectations import Outcome, run
from airworthy.partitions import parse_key
from airworthy.profile import ROOT
from airworthy.stages.ingest import ingest
from airworthy.stages.process import process
from airworthy.stages.question import decide, question
from airworthy.stages.validate import Validation, validate
from airworthy.store import Store, TableRef
from parcels import DAY, World, parcels, world

__all__ = ["world"]

SETTINGS = {
    "spark.master": "local[2]",
    "spark.sql.shuffle.partitions": "2",
    # Of few rows, compiling code takes longer than running it.
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.sql.codegen.wholeStage": "false",
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1",
}
HAS_SPARK = importlib.util.find_spec("pyspark") is not None and shutil.which("java") is not None
needs_spark = pytest.mark.skipif(
    not HAS_SPARK, reason="PySpark or Java is not installed; `make test` runs this with both in .venv"
)


@pytest.fixture(scope="module")
def session() -> Iterator[Any]:
    found = spark.session(SETTINGS)
    yield found
    found.stop()


def outcome(found: Outcome) -> dict[str, Any]:
    """Returns what must be the same on both engines; which failing rows are shown as examples need not."""
    rows = None if found.rows is None else found.rows.tolist()
    same = (found.title, found.status, found.unexpected, found.is_row_level, found.is_warning)
    return {"same": same, "rows": rows, "kwargs": found.result.get("expectation_config", {}).get("kwargs")}


def column(name: str, of: str, **kwargs: Any) -> Expectation:
    return Expectation(type=f"expect_column_{name}", kwargs={"column": of, **kwargs})


DAYS = [datetime(2020, 1, 1, 3, tzinfo=UTC) + timedelta(days=number) for number in range(3)]
ROWS = pa.table(
    {
        "n": pa.array([1, 2, None, 4, 2, 9], pa.int64()),
        "m": pa.array([1, 1, 2, 2, 3, 9], pa.int64()),
        "k": pa.array([0, 2, None, 3, 5, 9], pa.int64()),  # missing where n is
        "f": pa.array([0.5, math.nan, math.inf, -math.inf, None, 2.5]),
        "s": pa.array(["a", "é", "日本", "a\n", None, "\u0661"]),
        "t": pa.array(["x", "x", "y", "y", "z", "z"]),
        "b": pa.array([True, False, None, True, True, False]),
        "d": pa.array([DAYS[0], DAYS[1], None, DAYS[2], DAYS[0], DAYS[1]], pa.timestamp("us", tz="UTC")),
        'or"der; --': pa.array([1, 2, 3, 4, 5, None], pa.int64()),
    }
)
ALIKE = [
    *(column("values_to_not_be_null", name) for name in ("n", "f", "b", 'or"der; --')),
    column("values_to_not_be_null", "n", mostly=0.8),
    column("values_to_be_between", "f", min_value=0, max_value=1, severity="warning"),
    column("values_to_be_between", "d", min_value=DAYS[1].isoformat()),
    column("values_to_be_in_set", "s", value_set=["a", "é"]),
    column("values_to_be_in_set", "b", value_set=[True]),
    column("values_to_be_unique", "n"),
    column("values_to_be_unique", "d"),
    column("values_to_match_regex", "s", regex=r"^\w+$"),
    column("values_to_match_regex", "s", regex=r"^a$|\d"),
    column("value_lengths_to_equal", "s", value=1),
    column("value_z_scores_to_be_less_than", "m", threshold=1, double_sided=True),
    column("mean_to_be_between", "n", min_value=3, max_value=4),
    column("max_to_be_between", "m", max_value=8),
    column("unique_value_count_to_be_between", "t", max_value=3),
    column("distinct_values_to_equal_set", "t", value_set=["x", "y"]),
    column("to_exist", "none"),
    column("values_to_be_null", "none"),
    column("values_to_be_unique", "t", row_condition='col("m") > 1', condition_parser="great_expectations"),
    Expectation(type="expect_compound_columns_to_be_unique", kwargs={"column_list": ["m", "t"]}),
    Expectation(
        type="expect_column_pair_values_a_to_be_greater_than_b",
        kwargs={"column_A": "m", "column_B": "n", "or_equal": True, "ignore_row_if": "either_value_is_missing"},
    ),
    Expectation(type="expect_column_pair_values_a_to_be_greater_than_b", kwargs={"column_A": "n", "column_B": "k"}),
    Expectation(
        type="expect_multicolumn_sum_to_equal",
        kwargs={"column_list": ["n", "k"], "sum_total": 7},
    ),
    Expectation(type="expect_table_row_count_to_be_between", kwargs={"max_value": 5}),
    Expectation(type="expect_table_column_count_to_equal", kwargs={"value": 9}),
    Expectation(type="expect_table_columns_to_match_set", kwargs={"column_set": ["n"], "exact_match": False}),
]
REFUSED = [
    (
        column("quantile_values_to_be_between", "m", quantile_ranges={"quantiles": [0.5], "value_ranges": [[0, 9]]}),
        "rank",
    ),
    (column("values_to_match_regex", "s", regex="^(?!b)"), "a regular expression cannot be judged"),
    (column("values_to_match_regex_list", "s", regex_list=["a", r"\bb"]), "a regular expression cannot be judged"),
    (column("values_to_be_increasing", "m"), "rows have no order on Spark"),
    (column("values_to_match_regex", "m", regex="1"), "judged on text only"),
    (column("values_to_be_in_set", "s", value_set=["a", None]), "not None"),
    (column("values_to_be_between", "b", min_value=0), "not 0"),
    (column("values_to_be_between", "d", min_value="2020-01-02"), "not '2020-01-02'"),
    (
        Expectation(type="expect_column_pair_values_a_to_be_greater_than_b", kwargs={"column_A": "n", "column_B": "m"}),
        "ignore_row_if: either_value_is_missing",
    ),
    (
        Expectation(
            type="expect_column_pair_values_a_to_be_greater_than_b",
            kwargs={"column_A": "n", "column_B": "k", "ignore_row_if": "neither"},
        ),
        "ignore_row_if: either_value_is_missing",
    ),
    (
        Expectation(type="expect_multicolumn_sum_to_equal", kwargs={"column_list": ["n", "m"], "sum_total": 2}),
        "ignore_row_if: any_value_is_missing",
    ),
    (column("values_to_be_unique", "t", row_condition="m > 1", condition_parser="pandas"), "words of pandas"),
    (
        column(
            "values_to_be_unique",
            "t",
            row_condition={"type": "comparison", "column": {"name": "n"}, "operator": "!=", "parameter": 2},
        ),
        "would be left out",
    ),
    (column("values_to_be_dateutil_parseable", "s"), "No provider found"),
    (column("values_to_be_of_type", "n", type_="int64"), "No recognized spark types"),
    (column("type_to_be", "n", type_="int64"), "Unrecognized spark type"),
    (column("values_to_match_like_pattern", "s", like_pattern="a%"), "No provider found"),
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    pq.write_table(ROWS, tmp_path / "rows.parquet", row_group_size=2)
    return tmp_path / "rows.parquet"


def on_spark(session: Any, files: list[Path], expectations: list[Expectation], listed: int = 10) -> list[Outcome]:
    from airworthy.expectations import spark_engine

    return spark_engine.run(session, ds.dataset(list(map(str, files))), "file://", expectations, listed=listed)


@needs_spark
@pytest.mark.filterwarnings("ignore")
def test_outcomes_are_those_of_the_local_engine(session: Any, file: Path) -> None:
    local = run(ds.dataset(file), ALIKE, listed=10)
    assert {one.status for one in local} == {"passed", "failed", "error"}
    assert list(map(outcome, on_spark(session, [file], ALIKE))) == list(map(outcome, local))


@needs_spark
@pytest.mark.filterwarnings("ignore")
def test_regular_expressions_mean_what_they_mean_in_python(session: Any, tmp_path: Path) -> None:
    texts = ["a", "b", "a\n", "a\r", "\x1c", "\u0301", "\u00b2", "\u0661", "é", "日\n本", "\U0001f600", "e]", "x"]
    pq.write_table(pa.table({"s": texts}), tmp_path / "texts.parquet")
    patterns = (
        r"^a$",
        r"\Aa\Z",
        r"^[a-z&&[aeiou]x]$",
        r"^[^a&&[b]]?$",
        r"^\s$",
        r"^\S$",
        r"^\w$",
        r"^\d$",
        "^.{1,2}$",
        r"(?s)^.{3}$",
    )
    checks = [column("values_to_match_regex", "s", regex=pattern) for pattern in patterns]
    checks += [column("values_to_not_match_regex_list", "s", regex_list=list(patterns[:3]))]
    local = run(ds.dataset(tmp_path / "texts.parquet"), checks, listed=99)
    assert list(map(outcome, on_spark(session, [tmp_path / "texts.parquet"], checks, 99))) == list(map(outcome, local))


@needs_spark
@pytest.mark.filterwarnings("ignore")
def test_what_would_be_judged_otherwise_is_an_error_and_says_why(session: Any, file: Path) -> None:
    found = on_spark(session, [file], [expectation for expectation, _ in REFUSED])
    assert [one.status for one in found] == ["error"] * len(REFUSED)
    assert [one.title for one, (_, reason) in zip(found, REFUSED, strict=True) if reason not in one.reason] == []


@needs_spark
@pytest.mark.filterwarnings("ignore")
def test_positions_go_on_from_file_to_file_and_too_many_are_only_counted(session: Any, file: Path) -> None:
    second = Path(shutil.copy(file, file.with_name("second.parquet")))
    checks = [column("values_to_not_be_null", "n"), column("values_to_be_unique", "m")]
    few, many = on_spark(session, [file, second], checks)
    assert few.rows is not None and few.rows.tolist() == [2, 8]
    assert many.status == "failed" and many.unexpected == 12 and many.rows is None


class Both:
    """One day's rows through both engines, in stores of their own."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world = world
        self.stores = {engine: Store(str(world.folder / engine), "parcels") for engine in ("local", "spark")}
        monkeypatch.setattr(content, "CHUNK", 4)  # rows of a row group

    def pipeline(self, engine: str, code: str, **changes: Any) -> Pipeline:
        return self.world.pipeline(code, engine=engine, **changes)

    def validated(self, code: str, **changes: Any) -> dict[str, tuple[Pipeline, Validation]]:
        found = {}
        for engine, store in self.stores.items():
            pipeline = self.pipeline(engine, code, **changes)
            raw = ingest(pipeline, DAY, store)
            found[engine] = (
                pipeline,
                validate(pipeline, DAY, raw, store, self.world.folder / f"{engine}_reports", spark=SETTINGS),
            )
        return found

    def processed(self, code: str, **changes: Any) -> dict[str, TableRef]:
        return {
            engine: process(pipeline, DAY, found, self.stores[engine], spark=SETTINGS)
            for engine, (pipeline, found) in self.validated(code, **changes).items()
        }


@pytest.fixture
def both(world: World, monkeypatch: pytest.MonkeyPatch, session: Any) -> Both:
    return Both(world, monkeypatch)


FEATURES = """
def features(frame):
    assert len(frame) <= 4, "a row group at a time"
    return frame[["service", "weight", "count", "flag"]].assign(
        text=frame["count"].astype(str), hour=frame["at"].dt.hour, kind=str(frame["at"].dtype)
    )
"""
HEAVY = {
    "allowed_bad_share": 1,
    "expectations": [{"expect_column_values_to_be_between": {"column": "weight", "max_value": 5}}],
}
CHECKS = {
    "allowed_bad_share": 1,
    "expectations": [
        {"expect_column_values_to_be_between": {"column": "weight", "min_value": 0, "max_value": 5}},
        {"expect_column_values_to_not_be_null": {"column": "count"}},
    ],
}


def mixed() -> pd.DataFrame:
    """Returns rows of all types: several fail, a key is there twice, and a chunk has no missing count."""
    rows = parcels(22).assign(
        weight=[*(float(number % 7) for number in range(19)), math.inf, -math.inf, math.nan],
        count=pd.array([None if number in (9, 13) else number for number in range(22)], "Int64"),
        flag=pd.array([None if number == 17 else number % 2 == 0 for number in range(22)], "boolean"),
        service=["日本", "é\n", ""] * 7 + [None],
    )
    rows.loc[[5, 16], "id"] = rows.loc[0, "id"]
    return rows


@needs_spark
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("key", [["id"], ["id", "late"]])
def test_features_and_quarantine_are_the_same(both: Both, key: list[str]) -> None:
    both.world.rows = mixed()
    refs = both.processed(FEATURES, checks=CHECKS, key=key)
    assert refs["spark"] == refs["local"]
    assert 0 < refs["local"].rows < 22
    local, on_spark = (both.stores[engine].read("quarantine") for engine in ("local", "spark"))
    pd.testing.assert_frame_equal(on_spark, local)
    assert len(local) + refs["local"].rows == 22
    folders = [path.name for path in (both.world.folder / "spark/parcels/features").iterdir()]
    assert not [name for name in folders if name.startswith(".spark")]


@needs_spark
@pytest.mark.filterwarnings("ignore")
def test_repaired_rows_are_put_in_place(both: Both) -> None:
    both.world.rows = parcels(10, weight=[float(number) for number in range(10)])
    repair = "def lighter(rows):\n    return rows.assign(weight=rows['weight'] / 10)\n\n"
    module = both.world.module(repair + "def features(frame):\n    return frame[['weight']]\n")
    changes = {"features": f"{module}:features", "quarantine": {"repairs": {"lighter": f"{module}:lighter"}}}
    for engine, (pipeline, _) in both.validated("", checks=HEAVY, **changes).items():
        asked = question(pipeline, DAY, both.stores[engine])
        assert asked is not None and asked.rows == 4
        decide(pipeline, DAY, asked, "repair: lighter", both.stores[engine], who="ann", at=DAYS[0], reason="", run="")
    refs = both.processed("", checks=HEAVY, **changes)
    assert refs["spark"] == refs["local"]
    weights = both.stores["spark"].read("features")["weight"].tolist()
    assert weights == pytest.approx([0, 1, 2, 3, 4, 5, 0.6, 0.7, 0.8, 0.9])


@needs_spark
@pytest.mark.filterwarnings("ignore")
def test_a_week_of_flights_gives_the_same_features(
    session: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pipelines.flight_delays")
    monkeypatch.setenv("AIRWORTHY_HOME", str(tmp_path))
    monkeypatch.setattr(content, "CHUNK", 2000)
    flights, week = load_pipeline(ROOT / "config/pipelines/flight_delays.yaml"), parse_key("week", "2013-02-04")
    found = {}
    for engine in ("local", "spark"):
        pipeline, store = flights.model_copy(update={"engine": engine}), Store(str(tmp_path / engine), flights.name)
        checked = validate(pipeline, week, ingest(pipeline, week, store), store, tmp_path / "reports", spark=SETTINGS)
        failures = [(one.expectation, one.status, one.rows) for one in checked.failures]
        found[engine] = (failures, checked.bad_rows, process(pipeline, week, checked, store, spark=SETTINGS))
    assert found["spark"] == found["local"]


@needs_spark
def test_a_check_that_cannot_be_judged_blocks(both: Both) -> None:
    checks = {"expectations": [{"expect_column_values_to_be_increasing": {"column": "at"}}]}
    with pytest.raises(Problems, match=r"increasing\(at\) could not be judged: rows have no order on Spark"):
        both.validated("", checks=checks)


@needs_spark
@pytest.mark.parametrize(
    "line", ["return 1 / int(frame['late'].iloc[0] - 1)", "return frame.iloc[:1]", "return frame[['id']].values"]
)
def test_features_that_fail_tell_the_same(both: Both, line: str) -> None:
    told = {}
    pipelines = both.validated(f"def features(frame):\n    {line}\n")
    for engine, (pipeline, found) in pipelines.items():
        with pytest.raises((DataError, Problems)) as raised:
            process(pipeline, DAY, found, both.stores[engine], spark=SETTINGS)
        told[engine] = str(raised.value).replace(str(pipeline.features), "module:features")
        assert both.stores[engine].version("features") is None
    module = str(pipelines["spark"][0].features).partition(":")[0]
    other = str(pipelines["local"][0].features).partition(":")[0]
    assert told["spark"].replace(module, "") == told["local"].replace(other, "")


VIEW = """
import pandas

def fees(start, end):
    return pandas.read_pickle({file!r})

def features(frame):
    return frame[["fee"]]
"""


@needs_spark
def test_views_are_joined(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRWORTHY_HOME", str(both.world.folder / "home"))
    file = both.world.folder / "fees.pickle"
    since = [DAY.start + timedelta(minutes=minute) for minute in (0, 4)]
    pd.DataFrame({"service": "slow", "since": since, "fee": [1.0, 2.0]}).to_pickle(file)
    code = VIEW.format(file=str(file))
    module = both.world.module(code)
    source = {"python": {"function": f"{module}:fees"}}
    view = {"source": source, "key": ["service"], "time": "since", "columns": ["fee"]}
    refs = both.processed("", features=f"{module}:features", views={"fees": view})
    assert refs["spark"] == refs["local"]
    assert both.stores["spark"].read("features")["fee"].nunique() == 2


@needs_spark
def test_a_value_of_a_personal_column_is_in_no_error(both: Both) -> None:
    both.world.rows = parcels(secret=[f"canary-{number}" for number in range(10)])
    code = "def features(frame):\n    raise ValueError('canary-3')\n"
    for engine, (pipeline, found) in both.validated(code, pii=["secret"]).items():
        with pytest.raises(DataError, match=r"ValueError: \[masked\]"):
            process(pipeline, DAY, found, both.stores[engine], spark=SETTINGS)


@pytest.mark.parametrize(
    "error",
    [DataError("raw[1]: x", "must be 1", 2, "Do"), Problems("raw", [DataError("a", "b"), ConfigError("c", "d")])],
)
def test_an_error_crosses_processes_whole(error: AirworthyError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error) and str(again) == str(error)
    assert vars(again).keys() == vars(error).keys()


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"engine: spark: needs PySpark\. Install the extra `spark`"):
        spark.session()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(ConfigError, match=r"engine: spark: needs Java 17"):
        spark.session()


def test_addresses_are_sparks_own(tmp_path: Path) -> None:
    assert spark.address(str(tmp_path)) == f"file://{tmp_path}"
    assert spark.address("s3://lake/parcels/raw") == "s3a://lake/parcels/raw"
    assert spark.address("hdfs://lake/raw") == "hdfs://lake/raw"
