from __future__ import annotations

import json
import logging
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from airworthy.config import Expectation, Pipeline
from airworthy.errors import Problems
from airworthy.expectations import Outcome, run
from airworthy.partitions import Partition
from airworthy.stages.ingest import ingest
from airworthy.stages.validate import Validation, page_path, validate
from parcels import DAY, NEXT_DAY, World, parcels, world

__all__ = ["world"]

LIGHT = {"expect_column_values_to_be_between": {"column": "weight", "max_value": 5}}
KNOWN = {"expect_column_values_to_be_in_set": {"column": "service", "value_set": ["fast", "slow"]}}


def checked(world: World, *expectations: dict[str, Any], share: float = 0.5, **changes: Any) -> Pipeline:
    return world.pipeline(checks={"allowed_bad_share": share, "expectations": expectations}, **changes)


def check(world: World, pipeline: Pipeline, partition: Partition = DAY) -> Validation:
    raw = ingest(pipeline, partition, world.store)
    return validate(pipeline, partition, raw, world.store, world.reports)


def blocked(world: World, pipeline: Pipeline) -> list[str]:
    with pytest.raises(Problems) as raised:
        check(world, pipeline)
    return str(raised.value).splitlines()


def outcome(frame: pd.DataFrame, expectation: Expectation, *, listed: int) -> Outcome:
    return run(ds.dataset(pa.Table.from_pandas(frame)), [expectation], listed=listed)[0]


def page(world: World, pipeline: Pipeline) -> str:
    return (world.reports / page_path(pipeline, DAY)).read_text()


def test_good_rows_pass_and_make_no_quarantine(world: World) -> None:
    pipeline = checked(world, {"expect_column_values_to_be_between": {"column": "weight", "max_value": 6}}, KNOWN)
    found = check(world, pipeline)
    assert (found.rows, found.bad_rows, found.failures, found.quarantine) == (10, 0, (), None)
    assert world.store.version("quarantine") is None


def test_bad_rows_go_to_quarantine_with_the_expectations_they_fail(world: World) -> None:
    world.rows = parcels(service=["fast"] * 6 + ["lost"] * 4)
    found = check(world, checked(world, LIGHT, KNOWN))
    assert found.bad_rows == 4 and found.quarantine is not None and found.quarantine.rows == 4
    bad = world.store.read("quarantine", version=found.quarantine.version)
    assert list(bad.columns) == [*parcels().columns, "row", "failed", "decision"]
    assert bad["row"].tolist() == [6, 7, 8, 9]
    both = "expect_column_values_to_be_between(weight), expect_column_values_to_be_in_set(service)"
    assert bad["failed"].tolist() == [both] + ["expect_column_values_to_be_in_set(service)"] * 3
    assert bad["id"].tolist() == parcels()["id"].tolist()[6:]
    assert {(failure.expectation, failure.rows) for failure in found.failures} == {
        ("expect_column_values_to_be_between(weight)", 1),
        ("expect_column_values_to_be_in_set(service)", 4),
    }


def test_pairs_and_several_columns_are_row_level_too(world: World) -> None:
    world.rows = parcels(limit=5.5, copy=["x", "x"] + [str(number) for number in range(8)])
    pipeline = checked(
        world,
        {"expect_column_pair_values_a_to_be_greater_than_b": {"column_A": "limit", "column_B": "weight"}},
        {"expect_compound_columns_to_be_unique": {"column_list": ["copy", "limit"]}},
    )
    assert check(world, pipeline).bad_rows == 3
    failed = world.store.read("quarantine").set_index("row")["failed"].to_dict()
    assert failed == {
        0: "expect_compound_columns_to_be_unique(copy, limit)",
        1: "expect_compound_columns_to_be_unique(copy, limit)",
        6: "expect_column_pair_values_a_to_be_greater_than_b(limit, weight)",
    }


def test_more_bad_rows_than_allowed_block(world: World) -> None:
    world.rows = parcels(service=["fast"] * 7 + ["lost"] * 3)
    pipeline = checked(world, KNOWN, share=0.2)
    assert blocked(world, pipeline) == [
        "raw[2026-01-05]: at most 20.00% of the rows may fail (checks.allowed_bad_share). Got '3 of 10'. "
        'expect_column_values_to_be_in_set(service): 3 of 10 rows fail, e.g. "lost".'
    ]
    assert "blocked" in page(world, pipeline)


def test_exactly_the_allowed_share_passes(world: World) -> None:
    world.rows = parcels(service=["fast"] * 8 + ["lost"] * 2)
    assert check(world, checked(world, KNOWN, share=0.2)).bad_rows == 2


def test_a_share_that_floats_cannot_hold_is_still_exact(world: World) -> None:
    world.rows = parcels(100, service=["lost"] * 29 + ["fast"] * 71)
    assert check(world, checked(world, KNOWN, share=0.29)).bad_rows == 29


def test_rows_that_fail_different_expectations_add_up(world: World) -> None:
    world.rows = parcels(service=["lost"] + ["fast"] * 9)
    assert check(world, checked(world, LIGHT, KNOWN, share=0.2)).bad_rows == 2
    blocked(world, checked(world, LIGHT, KNOWN, share=0.1))


def test_column_and_table_level_failures_block_whatever_the_share(world: World) -> None:
    pipeline = checked(
        world,
        {"expect_column_mean_to_be_between": {"column": "weight", "min_value": 10}},
        {"expect_table_row_count_to_be_between": {"min_value": 11}},
        {"expect_table_columns_to_match_set": {"column_set": ["id", "at"], "exact_match": True}},
        {"expect_column_to_exist": {"column": "colour"}},
        share=1,
    )
    lines = blocked(world, pipeline)
    assert lines[0].startswith("raw[2026-01-05]: expect_column_mean_to_be_between(weight) must hold: observed 2.4")
    assert lines[1] == "raw[2026-01-05]: expect_table_row_count_to_be_between must hold: observed 10."
    assert lines[2].startswith("raw[2026-01-05]: expect_table_columns_to_match_set must hold: observed [")
    assert lines[3] == "raw[2026-01-05]: expect_column_to_exist(colour) must hold: it does not."
    assert len(lines) == 4


@pytest.mark.parametrize(
    ("expectation", "reason"),
    [
        (
            {"expect_column_values_to_be_between": {"column": "wieght", "max_value": 5}},
            "expect_column_values_to_be_between(wieght) could not be judged: the column wieght does not exist; "
            "there are id, at, weight, service, late.",
        ),
        (
            {"expect_column_values_to_be_between": {"column": "weight", "max_valu": 5}},
            "expect_column_values_to_be_between(weight) could not be judged: max_valu",
        ),
        (
            {"expect_column_mean_to_be_between": {"column": "service", "max_value": 5}},
            "expect_column_mean_to_be_between(service) could not be judged: ",
        ),
    ],
)
def test_an_expectation_that_cannot_be_judged_blocks(world: World, expectation: dict[str, Any], reason: str) -> None:
    lines = blocked(world, checked(world, expectation, share=1))
    assert len(lines) == 1 and reason in lines[0]


def test_a_duplicate_or_missing_key_is_found_without_being_asked(world: World) -> None:
    ids = parcels()["id"].tolist()
    world.rows = parcels(id=[ids[0], ids[0], None, *ids[3:]])
    found = check(world, checked(world))
    assert found.bad_rows == 3
    failed = world.store.read("quarantine").set_index("row")["failed"].to_dict()
    assert failed == {
        0: "expect_column_values_to_be_unique(id)",
        1: "expect_column_values_to_be_unique(id)",
        2: "expect_column_values_to_not_be_null(id)",
    }


def test_a_key_of_two_columns_is_unique_as_a_whole(world: World) -> None:
    world.rows = parcels(id=["a"] * 10)
    assert check(world, checked(world, key=["id", "at"])).bad_rows == 0
    blocked(world, checked(world))


def test_a_tolerance_of_the_expectation_itself_keeps_rows(world: World) -> None:
    mostly = {"expect_column_values_to_be_between": {"column": "weight", "max_value": 5, "mostly": 0.9}}
    assert check(world, checked(world, mostly)).bad_rows == 0


def test_a_warning_is_shown_but_changes_nothing(world: World) -> None:
    warnings = [{name: {**kwargs, "severity": "warning"} for name, kwargs in one.items()} for one in (LIGHT,)]
    mean = {"expect_column_mean_to_be_between": {"column": "weight", "min_value": 10, "severity": "warning"}}
    pipeline = checked(world, *warnings, mean)
    found = check(world, pipeline)
    assert found.bad_rows == 0 and found.quarantine is None and len(found.failures) == 2
    assert page(world, pipeline).count('<td class="warn">warning</td>') == 2


def test_a_rerun_changes_nothing(world: World) -> None:
    pipeline = checked(world, LIGHT)
    first = check(world, pipeline)
    before = page(world, pipeline)
    second = check(world, pipeline)
    assert first.quarantine is not None and second.quarantine is not None
    assert second.quarantine == first.quarantine.model_copy(update={"changed": False})
    assert page(world, pipeline) == before


def test_mended_rows_leave_quarantine_and_other_partitions_stay(world: World) -> None:
    check(world, checked(world, LIGHT))
    world.rows = parcels(partition=NEXT_DAY)
    check(world, checked(world, LIGHT), NEXT_DAY)
    world.rows = parcels(weight=1.0)
    found = check(world, checked(world, LIGHT))
    assert found.quarantine is not None and found.quarantine.rows == 0
    assert world.store.partitions("quarantine") == [NEXT_DAY.key]


def test_quarantine_knows_the_types_of_columns_without_a_value(world: World) -> None:
    world.rows = parcels(note=[None if number % 7 == 6 else "fragile" for number in range(10)])
    assert check(world, checked(world, LIGHT)).bad_rows == 1
    world.rows = parcels(partition=NEXT_DAY, note="fragile")
    check(world, checked(world, LIGHT), NEXT_DAY)
    assert world.store.read("quarantine")["note"].tolist() == [None, "fragile"]


def test_page_and_json_say_what_was_found(world: World) -> None:
    world.rows = parcels(service=["<script>alert(1)</script>"] + ["fast"] * 9)
    pipeline = checked(world, LIGHT, KNOWN)
    found = check(world, pipeline)
    text = page(world, pipeline)
    assert "<script>" not in text and "&lt;script&gt;" in text
    for shown in ("expect_column_values_to_be_in_set(service)", "max_value=5", "1 of 10 rows fail", DAY.key):
        assert shown in text
    stored = json.loads((world.reports / found.page).with_suffix(".json").read_text())
    assert Validation.model_validate(stored["validation"]) == found
    assert len(stored["results"]) == 5


def test_personal_values_are_only_in_the_tables(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.rows = parcels(service=["canary"] + ["fast"] * 9)
    pipeline = checked(world, LIGHT, KNOWN, share=0.5, pii=["service"])
    with caplog.at_level(logging.DEBUG):
        found = check(world, pipeline)
        assert "canary" in world.store.read("quarantine")["service"].tolist()
        reason = "\n".join(blocked(world, checked(world, KNOWN, share=0, pii=["service"])))
    told = page(world, pipeline) + caplog.text + reason + found.model_dump_json()
    told += "".join(path.read_text() for path in world.reports.rglob("*.json"))
    assert "canary" not in told and "[masked]" in told


def test_a_blocked_partition_leaves_its_results(world: World) -> None:
    pipeline = checked(world, KNOWN, {"expect_table_row_count_to_be_between": {"min_value": 11}})
    blocked(world, pipeline)
    assert "expect_table_row_count_to_be_between must hold" in page(world, pipeline)
    assert (world.reports / page_path(pipeline, DAY)).with_suffix(".json").exists()


def test_rows_are_listed_only_up_to_the_limit() -> None:
    light = Expectation(type="expect_column_values_to_be_between", kwargs={"column": "weight", "max_value": 2})
    few, many = (outcome(parcels(14), light, listed=listed) for listed in (8, 7))
    assert few.rows is not None and few.rows.tolist() == [3, 4, 5, 6, 10, 11, 12, 13]
    assert many.rows is None and many.unexpected == 8


def test_an_empty_frame_passes_no_row_count() -> None:
    some = Expectation(type="expect_table_row_count_to_be_between", kwargs={"min_value": 1})
    assert outcome(parcels().iloc[:0], some, listed=0).status == "failed"


def test_great_expectations_is_quiet(world: World, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        check(world, checked(world, LIGHT))
    assert {record.name.partition(".")[0] for record in caplog.records} == {"airworthy"}
