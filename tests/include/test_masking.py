"""Values of personal columns: where they may be, and that they are nowhere else."""

from __future__ import annotations

import io
import logging
import random
import traceback
import uuid
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from airworthy.config import Pipeline
from airworthy.errors import AirworthyError, DataError, Problems
from airworthy.masking import MASK, UNSAID, masked_errors, scrub
from airworthy.partitions import Partition, parse_key
from airworthy.stages.drift import drift
from airworthy.stages.evaluate import evaluate, judge
from airworthy.stages.ingest import ingest
from airworthy.stages.monitor import score
from airworthy.stages.performance import performance
from airworthy.stages.process import process
from airworthy.stages.validate import Validation, validate
from airworthy.store import Store
from parcels import DAY, World, parcels, world
from serving_process import MARCH, promote, trained
from toy_pipeline import Toy

__all__ = ["world"]

MONTHS = [parse_key("month", f"2013-0{month}-01") for month in (1, 2, 3)]
APRIL = parse_key("month", "2013-04-01")

SOURCE = """
import pandas as pd
def extract(start, end):
    rows = pd.read_parquet({file!r})
    return rows[(rows["time"] >= start) & (rows["time"] < end)]
def features(frame):
    return frame.drop(columns=["flight", "day", "person", "time"], errors="ignore")
def raising(frame):
    name = pd.read_parquet({file!r}, columns=["name"])["name"].iloc[-9]
    raise KeyError(name)
def asking(frame):
    return frame[["name", "distance"]]
"""
EXPECTATIONS = [
    {"expect_column_values_to_match_regex": {"column": "name", "regex": "^a"}},
    {"expect_column_values_to_be_in_set": {"column": "person", "value_set": ["nobody"]}},
    {"expect_column_values_to_be_between": {"column": "salary", "max_value": 10}},
    {"expect_column_pair_values_to_be_equal": {"column_A": "carrier_name", "column_B": "name"}},
    {"expect_select_column_values_to_be_unique_within_record": {"column_list": ["name", "nickname"]}},
    {"expect_column_values_to_be_unique": {"column": "nickname"}},
    {"expect_column_max_to_be_between": {"column": "salary", "max_value": 1e12}},
    {"expect_column_median_to_be_between": {"column": "salary", "max_value": 1e12}},
    {"expect_column_most_common_value_to_be_in_set": {"column": "name", "value_set": ["x"], "severity": "warning"}},
    {"expect_column_distinct_values_to_be_in_set": {"column": "salary", "value_set": [1], "severity": "warning"}},
]
RAISING = [
    {"expect_column_mean_to_be_between": {"column": "name", "max_value": 5}},
    {"expect_column_distinct_values_to_be_in_set": {"column": "name", "value_set": ["x"]}},
]


@dataclass
class Canaries:
    """The toy pipeline with personal columns whose values occur nowhere else.

    Attributes:
        token: In every text of theirs.
        number: What every `salary` begins with.
        seen: All that was said of errors.
    """

    toy: Toy
    mlflow: Path
    pii: list[str]
    token: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    number: str = field(default_factory=lambda: str(random.randrange(10**8, 10**9)))
    seen: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        rows = self.toy.rows(days=110)
        numbers = pd.Series(range(len(rows))).map("{:05d}".format)
        person = f"canary-{self.token}-person-" + numbers
        name = f"canary-{self.token} O'Neil \\" + numbers
        salary = float(f"{self.number}000") + np.arange(len(rows)) * 0.5
        rows = rows.assign(person=person, name=name, nickname=name.where(rows.index % 50 > 0, name[0]), salary=salary)
        self.file = self.toy.folder / "rows.parquet"
        rows.to_parquet(self.file)
        self.module = f"source_{self.token}"
        (self.toy.folder / "code" / f"{self.module}.py").write_text(SOURCE.format(file=str(self.file)))
        self.store = Store(self.toy.profile.store_uri, self.toy.name)

    def pipeline(self, features: str = "features", *, checks: list[dict[str, object]] | None = None) -> Pipeline:
        return self.toy.pipeline(
            source={"python": {"function": f"{self.module}:extract"}},
            key=["person"],
            pii=self.pii,
            features=f"{self.module}:{features}",
            checks={"allowed_bad_share": 1, "expectations": checks or []},
            gates=["servable"],
        )

    def check(self, pipeline: Pipeline, partition: Partition) -> Validation:
        raw = ingest(pipeline, partition, self.store)
        return validate(pipeline, partition, raw, self.store, self.toy.profile.reports_dir)

    def hear(self, raised: BaseException) -> str:
        """Keeps what a log would show of an error, with its causes."""
        self.seen += ["".join(traceback.format_exception(raised)), str(raised), repr(raised)]
        return str(raised)

    def places(self) -> Iterator[tuple[str, str]]:
        """Yields every place a person or a model looks at, and its whole content as text."""
        for number, text in enumerate(self.seen):
            yield f"said {number}", text
        begun = self.file.stat().st_mtime_ns  # what was written before may be anything: other tests share the server
        for folder in (self.toy.profile.reports_dir, self.toy.folder / "config", self.mlflow):
            for file in folder.rglob("*"):
                if file.is_file() and file.stat().st_mtime_ns >= begun:
                    yield from _texts(str(file.relative_to(folder.parent)), file.read_bytes())
        for table in self.store_tables() - {"raw", "quarantine"}:
            rows = self.store.read(table)
            yield table, rows.drop(columns="person", errors="ignore").to_csv() + " ".join(rows.columns)

    def store_tables(self) -> set[str]:
        return {path.name for path in (self.toy.folder / "store" / self.toy.name).iterdir() if path.is_dir()}

    def found(self) -> list[str]:
        return [
            place
            for place, text in self.places()
            if f"canary-{self.token}" in text or self.number in text.replace(",", "")
        ]


def _texts(name: str, content: bytes) -> Iterator[tuple[str, str]]:
    yield name, content.decode("utf-8", "replace")
    if name.endswith(".parquet"):
        yield f"{name} (rows)", pq.read_table(io.BytesIO(content)).to_pandas().to_csv()
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for member in archive.namelist():
                yield from _texts(f"{name}/{member}", archive.read(member))


def go_through_everything(canaries: Canaries) -> None:
    """Ingest, validate (also a blocked partition), process (also one that raises), train, evaluate, monitor."""
    toy, store = canaries.toy, canaries.store
    pipeline = canaries.pipeline(checks=EXPECTATIONS)
    for partition in [*MONTHS, APRIL]:
        found = canaries.check(pipeline, partition)
        canaries.seen.append(found.model_dump_json())
        none = found.model_copy(update={"quarantine": None, "bad_rows": 0, "good_rows": found.rows})
        process(pipeline, partition, none, store)
    with pytest.raises(Problems) as blocked:
        canaries.check(canaries.pipeline(checks=RAISING), APRIL)
    canaries.hear(blocked.value)
    for function in ("asking", "raising") if canaries.pii else ("raising",):
        with pytest.raises(AirworthyError) as raised:
            process(canaries.pipeline(function), APRIL, none, store)
        canaries.hear(raised.value)
    pipeline = canaries.pipeline(checks=EXPECTATIONS)
    challenger = trained(toy, pipeline, MARCH)
    evaluation = evaluate(pipeline, challenger, None, toy.profile)
    verdicts = judge(pipeline, challenger, evaluation, toy.profile)
    assert all(verdict.status == "passed" for verdict in verdicts), verdicts
    promote(toy, challenger)
    predictions = score(pipeline, APRIL, toy.profile)
    drift(pipeline, APRIL, predictions, toy.profile)
    performance(pipeline, APRIL, predictions, toy.profile)


@pytest.fixture
def artifacts(tmp_path_factory: pytest.TempPathFactory, mlflow_uri: str) -> Path:
    """The folder of the MLflow server that all tests share; each test looks for a token of its own."""
    return tmp_path_factory.getbasetemp() / "mlflow0"  # as `mlflow_uri` makes it


def test_canaries_are_nowhere_but_in_raw_quarantine_and_keys(
    toy: Toy, artifacts: Path, caplog: pytest.LogCaptureFixture
) -> None:
    canaries = Canaries(toy, artifacts, pii=["person", "name", "nickname", "salary"])
    with caplog.at_level(logging.DEBUG):
        go_through_everything(canaries)
    canaries.seen.append(caplog.text)
    assert canaries.found() == []
    kept_in = {"raw", "quarantine", "features", "predictions", "labels", "metrics", "kpis", "validations"}
    assert canaries.store_tables() == kept_in
    for table in ("raw", "quarantine"):
        kept = canaries.store.read(table)
        assert kept["name"].str.contains(canaries.token).all() and (kept["salary"] > 1e10).all()
    for table in ("features", "predictions"):
        assert canaries.store.read(table)["person"].str.contains(canaries.token).all()


def test_the_search_finds_the_canaries_when_nothing_is_declared(
    toy: Toy, artifacts: Path, caplog: pytest.LogCaptureFixture
) -> None:
    canaries = Canaries(toy, artifacts, pii=[])
    with caplog.at_level(logging.DEBUG):
        go_through_everything(canaries)
    found = canaries.found()
    for place in ("validate/2013-04-01.html", "validate/2013-04-01.json", "data_docs/2013-04-01.html", "said 0"):
        assert any(place in one for one in found), (place, "\n".join(found))
    for place in (
        "profile/2013-04-01.html",
        "requests.json",
        "reference.parquet (rows)",
        "sketches.json",
        "airworthy.json",
        "validations",
        "features",
    ):
        assert any(place in one for one in found), (place, found)
    assert [one for one in found if one.startswith("said")][-1] == f"said {len(canaries.seen) - 1}"  # the KeyError


def test_a_function_that_asks_for_a_personal_column_is_told_why_it_is_not_there(world: World) -> None:
    pipeline = world.pipeline("def features(frame):\n    return frame[['service', 'weight']]\n", pii=["service"])
    raw = ingest(pipeline, DAY, world.store)
    found = validate(pipeline, DAY, raw, world.store, world.reports)
    with pytest.raises(DataError) as raised:
        process(pipeline, DAY, found, world.store)
    assert "must do without service, because a column named in `pii` is never given to it" in str(raised.value)
    assert "return frame[['service', 'weight']]" in str(raised.value)


def test_a_personal_column_that_cannot_be_stored_is_named_without_its_values(world: World) -> None:
    ingest(world.pipeline(pii=["weight"]), DAY, world.store)
    world.rows = parcels(late="canary", weight="canary")
    with pytest.raises(Problems) as raised:
        ingest(world.pipeline(pii=["weight"]), DAY, world.store)
    about_late, about_weight = sorted(str(raised.value).splitlines())
    assert about_weight.startswith("raw[2026-01-05]: weight: must hold float64") and UNSAID in about_weight
    assert "canary" not in about_weight and "late: must hold int64" in about_late and "e.g. 'canary'" in about_late
    assert "canary" not in "".join(traceback.format_exception(raised.value)).replace(about_late, "")


def test_what_an_extract_function_raises_is_not_repeated(world: World) -> None:
    code = "def extract(start, end):\n    person = 'can' + 'ary'\n    raise ValueError(f'no street for {person}')\n"
    with pytest.raises(DataError) as raised:
        ingest(world.pipeline(code, pii=["name"]), DAY, world.store)
    text = "".join(traceback.format_exception(raised.value))
    assert "canary" not in text and "raised ValueError" in text and "raise ValueError(f'no street" in text
    with pytest.raises(DataError, match="no street for canary"):
        ingest(world.pipeline(code), DAY, world.store)


def test_other_exceptions_keep_their_kind_and_those_of_the_machine_stay_as_they_are(world: World) -> None:
    pipeline = world.pipeline(pii=["service"])
    with (
        pytest.raises(DataError, match=r"parcels: failed with TypeError: \(not shown") as raised,
        masked_errors(pipeline),
    ):
        raise TypeError("canary")
    assert raised.value.__suppress_context__
    with pytest.raises(FileNotFoundError), masked_errors(pipeline):
        raise FileNotFoundError("rows.csv")
    with pytest.raises(TypeError, match="canary"), masked_errors(world.pipeline()):
        raise TypeError("canary")


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("KeyError: 'Ada Byron'", f"KeyError: '{MASK}'"),
        ("no Ada Byron, no Ada", f"no {MASK}, no Ada"),
        ("sex M or F, May or Fall", f"sex {MASK} or {MASK}, May or Fall"),
        ('"O\'Neil \\\\ \\"x\\""', f'"{MASK}"'),
        ("'O\\'Neil \\\\ \"x\"'", f"'{MASK}'"),
        ("Zürich, Z\\u00fcrich", f"{MASK}, {MASK}"),
        ("12,345.50 or 12345.5 of 99", f"{MASK} or {MASK} of 99"),
        ("born 1815-12-10T00:00:00 or 1815-12-11", f"born {MASK} or 1815-12-11"),
        ("nothing of theirs", "nothing of theirs"),
    ],
)
def test_values_are_found_however_they_are_written(text: str, masked: str) -> None:
    names = pa.array(["Ada Byron", "M", "F", 'O\'Neil \\ "x"', "Zürich", "", None])
    born = pa.array([pd.Timestamp("1815-12-10", tz="UTC"), None], pa.timestamp("us", tz="UTC"))
    numbers = pa.array([12345.5, *[None] * 6])
    born = pa.concat_arrays([born] * 3 + [born[:1]])
    rows = ds.dataset(pa.table({"name": names, "number": numbers, "born": born, "other": ["theirs"] * 7}))
    assert scrub(text, rows, ["name", "number", "born", "gone"]) == masked


def test_the_search_for_values_does_not_grow_with_the_text() -> None:
    rows = ds.dataset(pa.table({"name": [f"person {number}" for number in range(100_000)]}))
    text = scrub("person 99999 " * 10_000, rows, ["name"])
    assert len(text) < 3_000 and "99999" not in text


@pytest.mark.parametrize("column", ["at", "late"])
def test_time_and_label_cannot_be_personal(world: World, column: str) -> None:
    with pytest.raises(ValueError, match=r"must not name the (time|label)"):
        world.pipeline(pii=[column])


@pytest.mark.parametrize("types", [{"type_": "int"}, {"type_list": ["int", "float"]}])
def test_types_of_personal_text_are_judged_without_a_value(world: World, types: dict[str, object]) -> None:
    world.rows = parcels(service="canary")
    kind = f"expect_column_values_to_be_{'of_type' if 'type_' in types else 'in_type_list'}"
    checks = {"allowed_bad_share": 1, "expectations": [{kind: {"column": "service", **types}}]}
    pipeline = world.pipeline(checks=checks, pii=["service"])
    found = validate(pipeline, DAY, ingest(pipeline, DAY, world.store), world.store, world.reports)
    assert [failure.reason for failure in found.failures] == ["10 of 10 rows fail"]
    files = [file for file in world.reports.rglob("*") if file.is_file()]
    assert files and [file for file in files if b"canary" in file.read_bytes()] == []


def test_pages_show_how_many_personal_values_fail_and_none_of_them(world: World) -> None:
    world.rows = parcels(service=["fast"] * 7 + ["canary"] * 2 + [None])
    known = {"expect_column_values_to_be_in_set": {"column": "service", "value_set": ["fast"]}}
    light = {"expect_column_values_to_be_between": {"column": "weight", "max_value": 5}}
    complete = {"expect_column_values_to_not_be_null": {"column": "service"}}
    distinct = {"expect_column_unique_value_count_to_be_between": {"column": "service", "max_value": 9}}
    checks = {"allowed_bad_share": 1, "expectations": [known, light, complete, distinct]}
    pipeline = world.pipeline(checks=checks, pii=["service"])
    found = validate(pipeline, DAY, ingest(pipeline, DAY, world.store), world.store, world.reports)
    page = (world.reports / found.page).read_text()
    assert "2 of 10 rows fail<" in page and "1 of 10 rows fail, e.g. 6.0" in page and "canary" not in page
    assert page.count(f"<td>{MASK}</td>") == 3 and "observed 2" in page
    assert world.store.read("quarantine")["service"].tolist()[-2:] == ["canary", None]
