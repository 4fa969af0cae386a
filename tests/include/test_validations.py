"""What became of every expectation, asked over time."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from airworthy import validations
from airworthy.errors import DataError, Problems
from airworthy.partitions import Partition
from airworthy.stages.ingest import ingest
from airworthy.stages.validate import validate
from airworthy.validations import over_time
from parcels import DAY, NEXT_DAY, World, parcels, world

__all__ = ["world"]

CHECKS = {
    "allowed_bad_share": 0.2,
    "expectations": [
        {"expect_column_values_to_be_between": {"column": "weight", "max_value": 5}},
        {"expect_column_mean_to_be_between": {"column": "weight", "max_value": 3, "severity": "warning"}},
        {"expect_table_columns_to_match_set": {"column_set": ["id"], "exact_match": False}},
        {"expect_column_pair_values_a_to_be_greater_than_b": {"column_A": "weight", "column_B": "late"}},
    ],
}


def check(world: World, partition: Partition = DAY, checks: object = CHECKS) -> None:
    pipeline = world.pipeline(checks=checks)
    validate(pipeline, partition, ingest(pipeline, partition, world.store), world.store, world.reports)


def two_days(world: World) -> pd.DataFrame:
    """Returns the rows of a good day and of one that is blocked."""
    world.rows = parcels(late=0, weight=[6.0, 1.0, *[2.0] * 8])
    check(world)
    world.rows = parcels(partition=NEXT_DAY, weight=6.0)
    with pytest.raises(Problems):
        check(world, NEXT_DAY)
    return over_time(world.store)


def test_there_is_a_row_for_each_expectation_and_partition(world: World) -> None:
    rows = two_days(world)
    assert rows["partition"].tolist() == [DAY.key] * 7 + [NEXT_DAY.key] * 7
    assert rows.groupby("partition")["blocked"].unique().map(list).to_dict() == {DAY.key: [False], NEXT_DAY.key: [True]}
    light = rows[rows["expectation"] == "expect_column_values_to_be_between"]
    assert light["unexpected"].tolist() == [1, 10] and light["unexpected_share"].tolist() == [0.1, 1.0]
    assert light["rows"].tolist() == [10, 10]
    raw = {write.partition: write.digest for write in world.store.history("raw")}
    assert dict(zip(rows["partition"], rows["raw_digest"], strict=True)) == raw
    assert json.loads(light["kwargs"].iloc[0]) == {"column": "weight", "max_value": 5}
    mean = rows[rows["expectation"] == "expect_column_mean_to_be_between"]
    assert mean["observed"].tolist() == pytest.approx([2.3, 6.0]) and set(mean["severity"]) == {"warning"}
    assert mean["status"].tolist() == ["passed", "failed"] and mean["unexpected"].isna().all()
    pair = rows[rows["expectation"].str.contains("pair")]
    assert set(pair["columns"]) == {"weight, late"}


def test_a_rerun_changes_nothing_and_a_correction_replaces_the_partition(world: World) -> None:
    two_days(world)
    version = world.store.version("validations")
    world.rows = parcels(late=0, weight=[6.0, 1.0, *[2.0] * 8])
    check(world)
    assert world.store.version("validations") == version
    world.rows = parcels(partition=NEXT_DAY, weight=2.0)
    check(world, NEXT_DAY)
    rows = over_time(world.store)
    assert len(rows) == 14 and not rows["blocked"].any()


def test_rows_are_chosen_by_expectation_and_by_result(world: World) -> None:
    two_days(world)
    assert set(over_time(world.store, "pair")["expectation"]) == {"expect_column_pair_values_a_to_be_greater_than_b"}
    assert set(over_time(world.store, "be_between(weight)")["columns"]) == {"weight"}
    failed = over_time(world.store, failed=True)
    assert failed["partition"].value_counts().to_dict() == {DAY.key: 1, NEXT_DAY.key: 2}
    assert over_time(world.store, "nothing like it").empty


def test_one_that_could_not_be_judged_is_an_error_without_counts(world: World) -> None:
    misspelt = {"expectations": [{"expect_column_values_to_be_between": {"column": "weight", "max_valu": 5}}]}
    with pytest.raises(Problems):
        check(world, checks=misspelt)
    (row,) = over_time(world.store, failed=True).to_dict("records")
    assert row["status"] == "error" and pd.isna(row["unexpected"]) and "max_valu" in row["reason"] and row["blocked"]


def test_the_command_prints_a_table_over_time(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "config" / "pipelines"
    folder.mkdir(parents=True)
    (folder / "parcels.yaml").write_text(
        world.pipeline(checks=CHECKS).model_dump_json(exclude={"name"}, exclude_none=True)
    )
    monkeypatch.setenv("AIRWORTHY_CONFIG", str(tmp_path / "config"))
    places = {"AIRWORTHY_STORE_URI": str(world.folder / "store"), "AIRWORTHY_HOME": str(world.folder)}
    for name in ("AIRWORTHY_LEDGER_URL", "MLFLOW_TRACKING_URI", "AIRWORTHY_SERVING_URL", "AIRWORTHY_AIRFLOW_URL"):
        places[name] = "http://127.0.0.1:1"
    with pytest.raises(DataError, match="validations: must exist"):
        validations.run("parcels", places)
    two_days(world)
    validations.run("parcels", places, "be_between(weight)", failed=True)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["partition", DAY.key, NEXT_DAY.key, NEXT_DAY.key]
    assert lines[1].split()[1:4] == ["expect_column_values_to_be_between(weight)", "failed", "10.00%"]
    assert "failed, blocked  100.00%" in lines[2] and "observed 6.0" in lines[3]
    validations.run("parcels", places, "nothing like it")
    assert capsys.readouterr().out == "Nothing was found\n"
