"""Labels of online answers that come early, late, twice, under a wrong key, or never: the right numbers each time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.metrics import accuracy_score, roc_auc_score

from airworthy.columns import TIMESTAMP
from airworthy.partitions import Partition, partition_at
from airworthy.stages.online_performance import OnlinePerformance, online_of, online_performance
from labelled_months import APRIL, AUGUST, IDENTITY, JULY, JUNE, MAY, Months
from serving_process import DEEPER, promote, trained
from toy_pipeline import toy_at


@dataclass
class World(Months):
    """Two versions that were champions, and months whose labels come as the test says."""

    def ask(self, rows: pd.DataFrame, version: str = "1", seed: int = 0) -> pd.DataFrame:
        """Leaves one captured answer a row, on the morning of the event; returns keys and predictions."""
        answers = rows[IDENTITY].assign(
            prediction=np.random.default_rng(seed).random(len(rows)).round(3), version=version
        )
        asked = rows["time"].dt.floor("D") + pd.Timedelta(seconds=seed)
        table = pa.Table.from_pandas(answers, preserve_index=False)
        table = table.set_column(2, "time", table["time"].cast(TIMESTAMP))
        beside = {
            "captured_at": pa.array(asked, TIMESTAMP),
            "captured_request": [f"{seed}-{number}" for number in range(len(rows))],
            "captured_row": [0] * len(rows),
        }
        for name, values in beside.items():
            table = table.append_column(name, [values])
        self.store.append("captured", [partition_at("hour", moment).key for moment in asked], table)
        return answers

    def look(self, partition: Partition) -> list[OnlinePerformance]:
        return online_performance(self.pipeline, partition, self.toy.profile)

    def require(self, found: OnlinePerformance, answers: pd.DataFrame, known: pd.DataFrame) -> None:
        """Fails unless what was found, and is kept, is what scikit-learn says of these answers and labels."""
        joined = answers.merge(known[["flight", "day", "late"]], on=["flight", "day"])
        label, guess = joined["late"].to_numpy(), joined["prediction"].to_numpy()
        assert (found.answered, found.known) == (len(answers), len(joined))
        truth = {"accuracy": accuracy_score(label, guess >= 0.5), "roc_auc": roc_auc_score(label, guess)}
        assert {name: found.metrics[name] for name in truth} == pytest.approx(truth)
        kept = online_of(self.pipeline, self.store)
        (row,) = kept[(kept["partition"] == found.partition) & (kept["version"] == found.version)].to_dict("records")
        assert row["value"] == pytest.approx(truth["roc_auc"])
        assert (row["rows"], row["answered"]) == (len(joined), len(answers))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, mlflow_uri: str) -> Iterator[World]:
    with pytest.MonkeyPatch.context() as patched:
        toy = toy_at(tmp_path_factory.mktemp("online"), mlflow_uri, patched)
        pipeline = toy.pipeline(monitor={"labels": {"enough": 0.8}})
        rows = toy.rows(days=243).astype({"late": "float64"})
        toy.fill(pipeline, rows[rows["day"] < 90])
        first = promote(toy, trained(toy, pipeline))
        promote(toy, trained(toy, toy.pipeline(model=DEEPER)), first)
        yield World(toy, pipeline, rows)


def test_without_answers_or_labels_there_is_nothing_to_say(world: World) -> None:
    assert world.look(APRIL) == []
    assert online_of(world.pipeline, world.store).empty


def test_early_labels_count_with_the_version_that_answered(world: World) -> None:
    rows = world.month(APRIL)
    world.ingest(APRIL, rows)  # before anything is asked
    by_first, by_second = world.ask(rows.head(300), "1", 1), world.ask(rows.tail(200), "2", 2)
    first, second = world.look(APRIL)
    assert (first.version, second.version) == ("1", "2")
    world.require(first, by_first, rows)
    world.require(second, by_second, rows)
    assert world.look(APRIL) == [first, second]


def test_late_labels_are_waited_for_and_counted_again_when_more_come(world: World) -> None:
    rows = world.month(MAY)
    answers = world.ask(rows.head(400))
    late = np.random.default_rng(1).random(len(rows))
    for share, enough in ((0.0, False), (0.5, False), (0.9, True), (1.0, True)):
        some = rows.assign(late=rows["late"].where(late < share))
        world.ingest(MAY, some)
        (found,) = world.look(MAY)
        if enough:
            world.require(found, answers, some.dropna(subset=["late"]))
        else:
            assert found.metrics == {} and not world.store.has("online_metrics", MAY.key)
    world.ingest(MAY, rows.assign(late=rows["late"].where(late < 0.5)))  # a source that takes labels back
    world.look(MAY)
    assert not world.store.has("online_metrics", MAY.key)


def test_labels_and_answers_that_come_twice_count_once(world: World) -> None:
    rows = world.month(JUNE)
    first, last = world.ask(rows.head(300), "1", 3), world.ask(rows.head(100), "1", 4)
    opposite = rows.head(7).assign(late=1 - rows["late"].head(7))
    world.ingest(JUNE, pd.concat([rows, rows.tail(20), opposite], ignore_index=True))
    (found,) = world.look(JUNE)
    answers = pd.concat([last, first.iloc[100:]])  # who asks again gets the last answer
    contradicted = set(map(tuple, opposite[["flight", "day"]].to_numpy()))
    known = rows[[key not in contradicted for key in map(tuple, rows[["flight", "day"]].to_numpy())]]
    world.require(found, answers, known)
    assert found.known == 293


def test_labels_under_a_wrong_key_do_not_count(world: World) -> None:
    rows = world.month(JULY)
    answers = world.ask(rows.head(300))
    wrong = rows.copy()
    wrong.loc[:49, "flight"] += 1_000
    world.ingest(JULY, wrong)
    (found,) = world.look(JULY)
    assert found.known == 250
    world.require(found, answers, wrong)


def test_labels_that_never_come_leave_no_number(world: World) -> None:
    rows = world.month(AUGUST)
    world.ask(rows)
    world.ingest(AUGUST, rows.assign(late=np.nan))
    (found,) = world.look(AUGUST)
    assert (found.answered, found.known, found.metrics) == (len(rows), 0, {})
    assert not world.store.has("online_metrics", AUGUST.key)


def test_answers_whose_key_is_personal_or_not_captured_are_left_alone(world: World) -> None:
    hidden = world.pipeline.model_copy(update={"pii": ("flight",)})
    assert online_performance(hidden, APRIL, world.toy.profile) == []
    absent = world.pipeline.model_copy(update={"key": ("ticket",)})
    assert online_performance(absent, APRIL, world.toy.profile) == []
