from __future__ import annotations

from datetime import timedelta

import pandas as pd
import pytest

from airworthy.errors import DataError, Problems
from airworthy.stages.ingest import ingest
from parcels import DAY, NEXT_DAY, World, parcels, world

__all__ = ["world"]


def test_the_rows_of_the_source_become_a_partition(world: World) -> None:
    ref = ingest(world.pipeline(), DAY, world.store)
    assert (ref.table, ref.partition, ref.rows, ref.changed) == ("raw", DAY.key, 10, True)
    pd.testing.assert_frame_equal(world.store.read("raw"), parcels(), check_dtype=False)


def test_a_rerun_changes_nothing(world: World) -> None:
    pipeline = world.pipeline()
    first = ingest(pipeline, DAY, world.store)
    assert ingest(pipeline, DAY, world.store) == first.model_copy(update={"changed": False})


def test_times_of_any_kind_become_utc(world: World) -> None:
    plain = ingest(world.pipeline(), DAY, world.store)
    at = parcels()["at"]
    for same in (at.dt.tz_localize(None), at.dt.tz_convert("Asia/Tokyo"), at.map(lambda moment: moment.isoformat())):
        world.rows = parcels(at=same)
        assert ingest(world.pipeline(), DAY, world.store).digest == plain.digest


def test_every_missing_column_is_named_with_what_there_is(world: World) -> None:
    world.rows = parcels().drop(columns=["at", "late", "id"])
    with pytest.raises(Problems) as raised:
        ingest(world.pipeline(), DAY, world.store)
    assert str(raised.value).splitlines() == [
        f"raw[2026-01-05]: {name}: must be a column, because it is the {role} of parcels. "
        "The source gives weight, service."
        for name, role in (("at", "time"), ("id", "key"), ("late", "label"))
    ]
    assert world.store.version("raw") is None


def test_a_column_that_was_there_before_is_missed(world: World) -> None:
    ingest(world.pipeline(), DAY, world.store)
    world.rows = parcels(partition=NEXT_DAY).drop(columns="weight")
    with pytest.raises(Problems, match=r"raw\[2026-01-06\]: weight: must be a column, as the schema contract says"):
        ingest(world.pipeline(), NEXT_DAY, world.store)


def test_an_empty_partition_is_refused(world: World) -> None:
    world.rows = parcels().iloc[:0]
    with pytest.raises(
        DataError, match=r"raw\[2026-01-05\]: must have rows.*from 2026-01-05 00:00 to 2026-01-06 00:00"
    ):
        ingest(world.pipeline(), DAY, world.store)


@pytest.mark.parametrize("moment", [DAY.start - timedelta(seconds=1), DAY.end])
def test_rows_outside_the_partition_are_refused(world: World, moment: object) -> None:
    at = parcels()["at"]
    at.iloc[3] = moment
    world.rows = parcels(at=at)
    with pytest.raises(DataError, match=r"at: must be in \[2026-01-05 00:00, 2026-01-06 00:00\) UTC.*1 of 10 rows"):
        ingest(world.pipeline(), DAY, world.store)


def test_the_first_moment_of_a_partition_belongs_to_it(world: World) -> None:
    world.rows = parcels(at=DAY.start)
    assert ingest(world.pipeline(), DAY, world.store).rows == 10


@pytest.mark.parametrize(
    ("at", "message"),
    [
        ("yesterday", "must hold times, as timestamps or in ISO 8601"),
        (["2026-01-05"] * 9 + [None], "must not be missing in any row. Got '1 rows without'"),
    ],
)
def test_times_that_are_none_are_refused(world: World, at: object, message: str) -> None:
    world.rows = parcels(at=at)
    with pytest.raises(DataError, match=message):
        ingest(world.pipeline(), DAY, world.store)


def test_names_the_tables_need_are_refused(world: World) -> None:
    world.rows = parcels(row=1, failed="")
    with pytest.raises(Problems) as raised:
        ingest(world.pipeline(), DAY, world.store)
    assert [problem.where for problem in raised.value.problems] == ["raw[2026-01-05]: row", "raw[2026-01-05]: failed"]
