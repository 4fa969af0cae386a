from __future__ import annotations

from datetime import timedelta

import numpy as np
import pandas as pd
import pytest

from airworthy.config import Pipeline
from airworthy.errors import DataError
from airworthy.stages.ingest import ingest
from airworthy.stages.process import process
from airworthy.stages.validate import validate
from airworthy.store import TableRef
from parcels import DAY, World, parcels, world

__all__ = ["world"]

FEATURES = "def features(frame):\n    return frame[['service']].assign(heavy=frame['weight'] > 2)\n"
CHECKS = {
    "allowed_bad_share": 1,
    "expectations": [{"expect_column_values_to_be_between": {"column": "weight", "max_value": 5}}],
}


def run(world: World, pipeline: Pipeline) -> TableRef:
    raw = ingest(pipeline, DAY, world.store)
    validation = validate(pipeline, DAY, raw, world.store, world.reports)
    return process(pipeline, DAY, validation, world.store)


def test_key_time_label_and_features_are_published(world: World) -> None:
    ref = run(world, world.pipeline(FEATURES))
    found = world.store.read("features", version=ref.version)
    assert list(found.columns) == ["id", "at", "late", "service", "heavy"]
    expected = parcels()[["id", "at", "late", "service"]].assign(heavy=parcels()["weight"] > 2)
    pd.testing.assert_frame_equal(found, expected, check_dtype=False)


def test_rows_in_quarantine_are_left_out(world: World) -> None:
    ref = run(world, world.pipeline(FEATURES, checks=CHECKS))
    kept = parcels()[parcels()["weight"] <= 5]
    assert 0 < len(kept) < 10 and ref.rows == len(kept)
    assert world.store.read("features")["id"].tolist() == kept["id"].tolist()


def test_rows_come_back_when_they_are_mended(world: World) -> None:
    run(world, world.pipeline(FEATURES, checks=CHECKS))
    world.rows = parcels(weight=1.0)
    assert run(world, world.pipeline(FEATURES, checks=CHECKS)).rows == 10


def test_an_old_run_does_not_undo_a_newer_one(world: World) -> None:
    pipeline = world.pipeline(FEATURES, checks=CHECKS)
    raw = ingest(pipeline, DAY, world.store)
    validation = validate(pipeline, DAY, raw, world.store, world.reports)
    world.store.write("quarantine", DAY, world.store.read("quarantine").iloc[:0])  # it reads what was validated
    assert process(pipeline, DAY, validation, world.store).rows == (parcels()["weight"] <= 5).sum()
    world.rows = parcels(3)
    assert run(world, world.pipeline(FEATURES, checks=CHECKS)).rows == 3
    with pytest.raises(DataError, match=r"must not have been ingested again since. Got 'version 1, and"):
        process(pipeline, DAY, validation, world.store)
    with pytest.raises(DataError, match="clear its tasks and not those of an older run"):
        validate(pipeline, DAY, raw, world.store, world.reports)
    assert len(world.store.read("features")) == 3


def test_a_rerun_changes_nothing(world: World) -> None:
    pipeline = world.pipeline(FEATURES, checks=CHECKS)
    first = run(world, pipeline)
    assert run(world, pipeline) == first.model_copy(update={"changed": False})


@pytest.mark.parametrize("unknown", [np.nan, None])
def test_a_label_that_is_not_known_stays_missing(world: World, unknown: object) -> None:
    world.rows = parcels(late=[unknown] * 5 + [0, 1] * 2 + [1])
    run(world, world.pipeline(FEATURES))
    assert world.store.read("features")["late"].isna().tolist() == [True] * 5 + [False] * 5


def test_no_good_row_is_an_error(world: World) -> None:
    world.rows = parcels(weight=9.0)
    with pytest.raises(
        DataError, match=r"features\[2026-01-05\]: must have rows\. All 10 rows of raw are in quarantine"
    ):
        run(world, world.pipeline(FEATURES, checks=CHECKS))


def test_features_that_raise_publish_nothing(world: World) -> None:
    with pytest.raises(DataError, match="must not raise"):
        run(world, world.pipeline("def features(frame):\n    return 1 / 0\n"))
    assert world.store.version("features") is None


VIEW = """
import pandas

def fees(start, end):
    return pandas.read_pickle({file!r})

def features(frame):
    return frame[["fee"]]
"""


def test_features_are_made_of_what_a_view_knew_at_each_rows_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRWORTHY_HOME", str(world.folder / "home"))
    file = world.folder / "fees.pickle"
    fees = pd.DataFrame({"service": "slow", "since": [DAY.start, DAY.start + timedelta(minutes=4)], "fee": [1.0, 2.0]})
    fees.to_pickle(file)
    code = VIEW.format(file=str(file))
    module = world.module(code)
    view = {
        "source": {"python": {"function": f"{module}:fees"}},
        "key": ["service"],
        "time": "since",
        "columns": ["fee"],
    }
    pipeline = world.pipeline(features=f"{module}:features", views={"fees": view})
    run(world, pipeline)

    def expected(from_minute: int) -> list[float | None]:
        return [None if row % 3 == 0 else 1.0 if row < from_minute else 2.0 for row in range(10)]

    found = world.store.read("features")
    assert found["fee"].astype(object).where(found["fee"].notna(), None).tolist() == expected(4)
    (write,) = world.store.history("features")
    assert write.facts["views"] == {"view_fees": world.store.version("view_fees")}
    fees.assign(since=[DAY.start, DAY.start + timedelta(minutes=2)]).to_pickle(file)  # it was known earlier after all
    assert run(world, pipeline).changed
    found = world.store.read("features")
    assert found["fee"].astype(object).where(found["fee"].notna(), None).tolist() == expected(2)
    assert not run(world, pipeline).changed
