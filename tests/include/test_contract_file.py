from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from airworthy.cli import main
from airworthy.columns import from_frame
from airworthy.config import load_pipeline
from airworthy.contracts import command
from airworthy.contracts.changes import compare, evolve, learn
from airworthy.contracts.enforce import Enforcement, new_summary
from airworthy.contracts.file import SchemaContract, load, publish, write
from airworthy.contracts.summary import Summary, summarise
from airworthy.errors import ConfigError, DataError, Problems
from airworthy.partitions import partitions_between
from airworthy.profile import ROOT
from contract_world import MONDAY, TUESDAY, ContractWorld, chunked, contract_world, rows

__all__ = ["contract_world"]


def test_the_file_reads_back_as_the_contract_it_was_written_from(contract_world: ContractWorld) -> None:
    world = contract_world
    world.ingest(world.pipeline(), MONDAY, rows().assign(**{"on": "yes", "a: b": "NO", "ünï": "'{#}'", "7": 1e-05}))
    world.ingest(world.pipeline("evolve"), TUESDAY, rows(TUESDAY).assign(colour=float("inf")))
    text = world.file.read_text()
    contract = load(world.pipeline())
    assert contract is not None and SchemaContract.model_validate(yaml.safe_load(text)) == contract
    assert write(contract) == text
    head = [line for line in text.splitlines() if line.startswith("#")]
    assert len(head) > 8 and all(len(line) <= 120 for line in text.splitlines())
    assert "airworthy contract accept parcels PARTITION" in text


def edited(world: ContractWorld, old: str, new: str) -> str:
    """Returns what is said of the file after an edit by hand."""
    world.ingest(world.pipeline(), MONDAY, rows())
    text = world.file.read_text()
    assert old in text
    world.file.write_text(text.replace(old, new))
    with pytest.raises(Problems) as raised:
        world.ingest(world.pipeline(), TUESDAY, rows(TUESDAY))
    return str(raised.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "{type: bool}",
            "{type: boolean}",
            "columns.insured.type must be one of int64, float64, string, bool, timestamp. ",
        ),
        ("{type: bool}", "{typ: bool}", "columns.insured.typ is not a known key"),
        ("{type: bool}", "bool", "columns.insured must be a mapping of keys. Got 'bool'"),
        ("[fast, slow]", "[fast, no]", "columns.service.categories[1] must be text. Got False"),
        ("[fast, slow]", "fast", "columns.service.categories must be a list. Got 'fast'"),
        ("[0.1, 0.1]", "[0.1, 1.5]", "columns.weight.nulls[1] must be at most 1. Got 1.5"),
        ("[0.1, 0.1]", "[0.5, 0.1]", "columns.weight.nulls must be the least share, then the largest. Got [0.5, 0.1]"),
        (
            "{type: bool}",
            "{type: bool, categories: [a]}",
            "columns.insured.categories must be left out, unless type is",
        ),
        ("  insured: {type: bool}", "  insured: {type: bool}\n  insured: {type: bool}", "must be YAML"),
        ("columns:", "columns: [", "must be YAML"),
        ("pipeline: parcels", "pipeline: letters", "pipeline must be parcels, as the file's name says. Got 'letters'"),
        ("  late: {type", "  lat: {type", "columns.late must be there, and not optional, because it is the label"),
        (
            "  at: {type: timestamp}",
            "  at: {type: string}",
            "columns.at.type must be timestamp, because it is the time",
        ),
        ("  id: {type: string}", "  id: {type: string, optional: true}", "columns.id must be there, and not optional"),
        ("  insured: {", "  failed: {", "columns.failed must have another name; the tables use it themselves"),
        ("  email: {type: string}", "  email: {type: string, categories: [a]}", "columns.email must not list values"),
    ],
)
def test_mistakes_of_an_edit_are_told_like_those_of_a_pipeline(
    contract_world: ContractWorld, old: str, new: str, message: str
) -> None:
    told = edited(contract_world, old, new)
    assert told.startswith("config/contracts/parcels.yaml: ") and message in told
    assert contract_world.store.partitions("raw") == [MONDAY.key]


def test_all_mistakes_are_told_at_once(contract_world: ContractWorld) -> None:
    told = edited(contract_world, "type: bool", "type: boolean, nulls: [2, 1], colour: red")
    assert len(told.splitlines()) == 3


def test_what_people_change_is_what_is_enforced(contract_world: ContractWorld) -> None:
    world = contract_world
    world.ingest(world.pipeline(), MONDAY, rows())
    text = world.file.read_text()
    world.file.write_text(
        text.replace("[fast, slow]", "[fast, slow, express]").replace("bool}", "bool, optional: true}")
    )
    world.ingest(world.pipeline(), TUESDAY, rows(TUESDAY).assign(service="express").drop(columns="insured"))
    assert world.kinds == []


def test_a_folder_that_cannot_be_written_is_named_with_the_remedy(contract_world: ContractWorld) -> None:
    world = contract_world
    world.file.parent.parent.mkdir(parents=True)
    world.file.parent.write_text("a file is in the way")
    with pytest.raises(ConfigError, match=r"config/contracts/parcels.yaml: must be written.*Learn and commit"):
        publish(world.pipeline(), learn(world.pipeline(), {MONDAY.key: summary_of(world, rows())}))


def summary_of(world: ContractWorld, frame: pd.DataFrame) -> Summary:
    return summarise("x", chunked(frame, 7), new_summary(world.pipeline(), None), "at")


def test_what_is_usual_is_told_from_few_values_however_they_are_cut() -> None:
    values = pa.table({"a": np.random.default_rng(7).normal(size=50_000)})
    found = []
    for size in (7, 1000, 50_000):
        summary = Summary()
        for chunk in values.to_batches(max_chunksize=size):
            summary.add(pa.Table.from_batches([chunk]))
        column = summary.columns["a"]
        assert 2000 < sum(map(len, column.sample)) <= 4096
        found.append(column.usual)
    assert len(set(found)) == 1 and found[0] == pytest.approx((-1.645, 1.645), abs=0.1)


def test_a_contract_learnt_from_several_partitions_holds_for_each(contract_world: ContractWorld) -> None:
    world = contract_world
    monday = summary_of(world, rows().assign(weight=1.5, pieces=1.5))
    tuesday = summary_of(world, rows(TUESDAY).assign(service="express").drop(columns="insured"))
    contract = learn(world.pipeline(), {"2026-01-05": monday, "2026-01-06": tuesday})
    assert contract.columns["service"].categories == ("express", "fast", "slow")
    assert contract.columns["weight"].nulls == (0.0, 0.1) and contract.columns["pieces"].type == "float64"
    assert contract.columns["insured"].optional and "80 rows of 2 partitions" in contract.learnt
    assert compare(contract, monday) == []


NAMES = st.text(string.ascii_lowercase + string.digits + " _-:#é", min_size=1, max_size=8)
CELLS: dict[str, Any] = {
    "Int64": st.integers(-(2**53), 2**53),
    "float64": st.floats(allow_nan=False),
    "boolean": st.booleans(),
    "string": st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
}


@st.composite
def partitions(draw: st.DrawFn) -> pd.DataFrame:
    """Returns rows with some more columns, of any type and with missing values anywhere."""
    count = draw(st.integers(1, 40))
    frame = rows(count=count)
    taken = {*frame.columns, "partition", "row", "failed"}
    for name in draw(st.lists(NAMES.filter(lambda name: name not in taken), unique=True, max_size=4)):
        kind = draw(st.sampled_from(list(CELLS)))
        few = draw(st.lists(CELLS[kind], min_size=1, max_size=4))
        cells = draw(st.lists(st.sampled_from([*few, None]), min_size=count, max_size=count))
        cells[draw(st.integers(0, count - 1))] = few[0]
        frame[name] = pd.Series(cells, dtype=kind)
    return frame


@settings(max_examples=30)
@given(partitions(), st.integers(1, 50))
def test_a_contract_accepts_the_partition_it_was_learnt_from(
    tmp_path_factory: pytest.TempPathFactory, frame: pd.DataFrame, size: int
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        folder = tmp_path_factory.mktemp("any")
        patched.setenv("AIRWORTHY_CONFIG", str(folder / "config"))
        world = ContractWorld(folder)
        strict = world.pipeline(contract={"null_tolerance": 0})
        ref = world.ingest(strict, MONDAY, frame)
        assert world.ingest(strict, MONDAY, chunked(frame, size)) == ref.model_copy(update={"changed": False})
        assert world.kinds == []
        assert write(world.contract()) == world.file.read_text()


@settings(max_examples=30)
@given(partitions(), partitions())
def test_what_evolved_from_any_partition_accepts_it(
    tmp_path_factory: pytest.TempPathFactory, first: pd.DataFrame, second: pd.DataFrame
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        folder = tmp_path_factory.mktemp("any")
        patched.setenv("AIRWORTHY_CONFIG", str(folder / "config"))
        world = ContractWorld(folder)
        world.ingest(world.pipeline(), MONDAY, first)
        evolving = world.pipeline(contract={"on_change": "evolve", "null_tolerance": 0})
        try:
            ref = world.ingest(evolving, MONDAY, second)
        except Problems:
            assert "retyped" in world.kinds  # two columns of one name and of different types
            return
        assert world.ingest(evolving, MONDAY, second) == ref.model_copy(update={"changed": False})
        assert set(world.kinds) <= {"reordered"}


def test_evolving_from_nothing_new_changes_nothing(contract_world: ContractWorld) -> None:
    found = summary_of(contract_world, rows())
    contract = learn(contract_world.pipeline(), {MONDAY.key: found})
    assert evolve(contract, compare(contract, found), found, MONDAY.key) is contract


def test_the_shipped_contract_holds_for_all_weeks_of_2013(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flights = pytest.importorskip("pipelines.flight_delays")
    monkeypatch.setenv("AIRWORTHY_HOME", str(tmp_path))
    monkeypatch.setenv("AIRWORTHY_CONFIG", str(ROOT / "config"))
    pipeline = load_pipeline(ROOT / "config" / "pipelines" / "flight_delays.yaml")
    assert pipeline.contract.on_change == "block" and pipeline.end is not None
    weeks = list(partitions_between(pipeline.partition, pipeline.start, pipeline.end))
    for week in weeks:
        enforcement = Enforcement(pipeline, week)
        frame = flights.extract(week.start, week.end)
        passed = sum(len(chunk) for chunk in enforcement.conform([from_frame("flights", frame)]))
        assert passed == len(frame) and enforcement.changes == []
    assert len(weeks) == 53


class Said(list[str]):
    def __call__(self, text: str) -> None:
        self.append(text)


@pytest.fixture
def said() -> Said:
    return Said()


def places(world: ContractWorld) -> dict[str, str]:
    names = ("MLFLOW_TRACKING_URI", "AIRWORTHY_LEDGER_URL", "AIRWORTHY_SERVING_URL", "AIRWORTHY_AIRFLOW_URL")
    return {"AIRWORTHY_STORE_URI": str(world.folder / "store"), **dict.fromkeys(names, "http://127.0.0.1:1")}


def deliver(world: ContractWorld, frame: pd.DataFrame) -> None:
    """Leaves a file where the pipeline's source looks for Tuesday's."""
    frame.to_parquet(world.folder / f"{TUESDAY.key}.parquet")


def test_a_contract_is_learnt_from_the_raw_table(contract_world: ContractWorld, said: Said) -> None:
    world, pipeline = contract_world, contract_world.pipeline()
    with pytest.raises(ConfigError, match=r"must exist.*airworthy contract learn parcels"):
        command.show(pipeline, said)
    with pytest.raises(DataError, match="raw: must hold the partitions to learn from"):
        command.learn_from_raw(pipeline, [], places(world), said)
    world.ingest(pipeline, MONDAY, rows())
    by_ingest = world.contract()
    with pytest.raises(ConfigError, match=r"must not exist yet.*--force"):
        command.learn_from_raw(pipeline, [], places(world), said)
    command.learn_from_raw(pipeline, [MONDAY.key], places(world), said, force=True)
    assert world.contract() == by_ingest and "8 columns" in said[-1]
    with pytest.raises(DataError, match="Got '2026-01-06'"):
        command.learn_from_raw(pipeline, [TUESDAY.key], places(world), said, force=True)
    command.show(pipeline, said)
    assert said[-1] == world.file.read_text().rstrip()


def test_a_person_sees_the_difference_and_accepts_it(contract_world: ContractWorld, said: Said) -> None:
    world, pipeline = contract_world, contract_world.pipeline()
    world.ingest(pipeline, MONDAY, rows())
    changed = rows(TUESDAY).assign(service="express", colour=1)
    deliver(world, changed)
    before = world.contract()
    assert command.diff(pipeline, TUESDAY.key, said)
    assert "new categories  service" in said[-1] and "added           colour" in said[-1]
    assert world.contract() == before
    command.accept(pipeline, TUESDAY.key, said)
    assert "added: colour: int64" in said and world.contract().history[0].partition == TUESDAY.key
    assert not command.diff(pipeline, TUESDAY.key, said)
    world.ingest(pipeline, TUESDAY, changed)
    assert world.store.read("raw")["colour"].count() == 40
    accepted = world.contract()
    command.accept(pipeline, TUESDAY.key, said)
    assert world.contract() == accepted and said[-1].endswith("as the contract says, 40 rows")


def test_what_no_table_can_follow_is_not_accepted(contract_world: ContractWorld, said: Said) -> None:
    world, pipeline = contract_world, contract_world.pipeline()
    world.ingest(pipeline, MONDAY, rows())
    before = world.contract()
    deliver(world, rows(TUESDAY).assign(pieces="many", colour=1).drop(columns="late"))
    assert command.diff(pipeline, TUESDAY.key, said) and said[-1].count("cannot be accepted") == 2
    with pytest.raises(Problems) as raised:
        command.accept(pipeline, TUESDAY.key, said)
    assert [problem.where for problem in raised.value.problems] == ["raw[2026-01-06]: pieces", "raw[2026-01-06]: late"]
    assert world.contract() == before


def test_the_command_compares_and_accepts(
    contract_world: ContractWorld, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world, pipeline = contract_world, contract_world.pipeline()
    declared = world.file.parent.parent / "pipelines" / "parcels.yaml"
    declared.parent.mkdir(parents=True)
    declared.write_text(yaml.safe_dump(pipeline.model_dump(mode="json", exclude={"name"}, exclude_defaults=True)))
    for name, value in places(world).items():
        monkeypatch.setenv(name, value)
    assert main(["contract", "show", "parcels"]) == 1
    assert capsys.readouterr().err.startswith("config/contracts/parcels.yaml: must exist.")
    world.ingest(pipeline, MONDAY, rows())
    rows().to_parquet(world.folder / f"{MONDAY.key}.parquet")
    deliver(world, rows(TUESDAY).assign(colour=1))
    assert main(["contract", "diff", "parcels"]) == 0  # the newest in the raw table
    assert main(["contract", "diff", "parcels", TUESDAY.key]) == 1
    assert main(["contract", "accept", "parcels", TUESDAY.key]) == 0
    assert main(["contract", "diff", "parcels", TUESDAY.key]) == 0
    assert main(["contract", "learn", "parcels", "--force"]) == 0 and "colour" not in world.contract().columns
    assert main(["contract", "diff", "parcels", "2026-13-01"]) == 1
    assert capsys.readouterr().err.startswith("partition: must match")
