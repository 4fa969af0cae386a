"""Labels that come early, late, twice, under a wrong key, or never: the right numbers each time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, roc_auc_score

from airworthy.errors import ServiceError
from airworthy.partitions import Partition
from airworthy.stages.monitor import score
from airworthy.stages.performance import Performance, labels_of, matured, metrics_of, overdue, performance
from airworthy.store import TableRef
from labelled_months import APRIL, AUGUST, JULY, JUNE, MAY, OCTOBER, SEPTEMBER, Months
from serving_process import promote, trained
from toy_pipeline import TOY_START, Toy, toy_at


@dataclass
class World(Months):
    """A champion as of April, and months after it whose labels come as the test says."""

    def score(self, partition: Partition) -> TableRef:
        return score(self.pipeline, partition, self.toy.profile)

    def performance(self, partition: Partition, predictions: TableRef) -> Performance:
        return performance(self.pipeline, partition, predictions, self.toy.profile)

    def truth(self, partition: Partition, known: pd.DataFrame) -> dict[str, float]:
        """Returns accuracy and AUC as scikit-learn has them, on the rows given."""
        joined = self.store.read("predictions", partitions=[partition.key]).merge(known, on=["flight", "day"])
        label, guess = joined["late"].to_numpy(), joined["prediction"].to_numpy()
        return {"accuracy": accuracy_score(label, guess > 0.5), "roc_auc": roc_auc_score(label, guess)}

    def require_counted_once(self, partition: Partition, known: pd.DataFrame, measured: Performance) -> None:
        truth = self.truth(partition, known)
        assert {name: measured.metrics[name] for name in truth} == pytest.approx(truth)
        kept = self.store.read("metrics", partitions=[partition.key])
        assert dict(zip(kept["metric"], kept["value"], strict=True)) == measured.metrics
        assert set(kept["rows"]) == {len(known)} and set(kept["labels"]) == {measured.labels.digest}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, mlflow_uri: str) -> Iterator[World]:
    with pytest.MonkeyPatch.context() as patched:
        toy = toy_at(tmp_path_factory.mktemp("labels"), mlflow_uri, patched)
        pipeline = toy.pipeline(monitor={"labels": {"enough": 0.8, "deadline": "3 days"}})
        rows = toy.rows(days=273).astype({"late": "float64"})
        toy.fill(pipeline, rows[rows["day"] < 90])
        promote(toy, trained(toy, pipeline))
        yield World(toy, pipeline, rows)


def test_early_labels_are_counted_at_the_first_look(world: World) -> None:
    rows = world.month(APRIL)
    world.ingest(APRIL, rows)
    measured = world.performance(APRIL, world.score(APRIL))
    assert (measured.labels.predicted, measured.labels.known, measured.labels.mature) == (600, 600, True)
    world.require_counted_once(APRIL, rows, measured)


def test_late_labels_are_waited_for_counted_when_enough_and_again_when_more(world: World) -> None:
    rows, store = world.month(MAY), world.store
    late = np.random.default_rng(1).random(len(rows))
    some, most = rows.assign(late=rows["late"].where(late < 0.5)), rows.assign(late=rows["late"].where(late < 0.9))
    world.ingest(MAY, some)
    first = world.performance(MAY, world.score(MAY))
    assert (first.metrics, first.table, first.labels.mature) == ({}, None, False)
    assert not store.has("metrics", MAY.key)
    for known in (most, rows):
        world.ingest(MAY, known)
        (measured,) = matured(world.pipeline, JULY, world.toy.profile)
        world.require_counted_once(MAY, known.dropna(subset=["late"]), measured)
        assert matured(world.pipeline, JULY, world.toy.profile) == []
    assert matured(world.pipeline, MAY, world.toy.profile) == []  # what came before May has not changed
    world.ingest(MAY, some)  # a source that takes labels back leaves no number that rests on them
    assert matured(world.pipeline, JULY, world.toy.profile)[0].metrics == {}
    assert not store.has("metrics", MAY.key)


def test_a_look_that_fails_is_made_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = world.month(SEPTEMBER)
    world.ingest(SEPTEMBER, rows.assign(late=np.nan))
    world.performance(SEPTEMBER, world.score(SEPTEMBER))
    world.ingest(SEPTEMBER, rows)
    with monkeypatch.context() as down:
        down.setattr("airworthy.stages.performance.loaded", raising)
        with pytest.raises(ServiceError, match="must answer"):
            matured(world.pipeline, OCTOBER, world.toy.profile)
    (measured,) = matured(world.pipeline, OCTOBER, world.toy.profile)
    world.require_counted_once(SEPTEMBER, rows, measured)


def raising(*_: object) -> None:
    raise ServiceError("MLflow", "must answer")


def test_metrics_that_are_no_number_are_left_out(toy: Toy) -> None:
    pipeline = toy.pipeline(label={"column": "late", "task": "regression", "matures_after": "1 day"})
    one = pd.DataFrame({"late": [1.0], "prediction": [0.5]})
    assert metrics_of(pipeline, (), one).keys() == {"rmse", "mae"}  # r2 needs more rows


def test_labels_that_come_twice_count_once(world: World) -> None:
    rows = world.month(JUNE)
    world.ingest(JUNE, rows)
    predictions = world.score(JUNE)
    first = world.performance(JUNE, predictions)
    world.ingest(JUNE, rows.sample(frac=1, random_state=0))  # the same, in another order
    again = world.performance(JUNE, predictions)
    assert again.metrics == first.metrics and again.labels.digest == first.labels.digest
    assert again.table is not None and not again.table.changed
    opposite = rows.head(7).assign(late=1 - rows["late"].head(7))
    world.ingest(JUNE, pd.concat([rows, rows.tail(20), opposite], ignore_index=True))
    third = world.performance(JUNE, predictions)
    assert (third.labels.known, third.labels.contradicted) == (593, 7)
    assert "593 of 600 labels are known, 7 contradict each other" in third.labels.told
    world.require_counted_once(JUNE, rows.iloc[7:], third)


def test_labels_under_a_wrong_key_are_reported_and_do_not_count(world: World) -> None:
    rows = world.month(JULY)
    world.ingest(JULY, rows.assign(late=np.nan))
    predictions = world.score(JULY)
    wrong = rows.copy()
    wrong.loc[:49, "flight"] += 1_000
    world.ingest(JULY, wrong)
    measured = world.performance(JULY, predictions)
    assert (measured.labels.known, measured.labels.wrong_keys) == (len(rows) - 50, 50)
    assert measured.labels.told.endswith("50 have a key that was not predicted")
    world.require_counted_once(JULY, rows.iloc[50:], measured)
    found = next(one for one in labels_of(world.pipeline, world.store) if one.partition == JULY.key)
    assert found == measured.labels


def test_labels_that_never_come_are_overdue_after_the_deadline(world: World) -> None:
    world.ingest(AUGUST, world.month(AUGUST).assign(late=np.nan))
    measured = world.performance(AUGUST, world.score(AUGUST))
    due = AUGUST.end + timedelta(days=1 + 3)  # label.matures_after, and the deadline
    assert (measured.metrics, measured.labels.known, measured.labels.due) == ({}, 0, due)

    def late_in_time(moment: timedelta) -> list[str]:
        return [one.partition for one in overdue(world.pipeline, world.toy.profile, due + moment)]

    assert AUGUST.key not in late_in_time(timedelta(hours=-1))
    assert AUGUST.key in late_in_time(timedelta(hours=1))
    assert APRIL.key not in late_in_time(timedelta(days=999))


def test_labels_without_a_deadline_are_never_overdue(world: World) -> None:
    patient = world.pipeline.model_copy(
        update={"monitor": world.toy.pipeline(monitor={"labels": {"deadline": None}}).monitor}
    )
    world.ingest(AUGUST, world.month(AUGUST).assign(late=np.nan))
    found = performance(patient, AUGUST, world.score(AUGUST), world.toy.profile)
    assert found.labels.due is None and not found.labels.overdue(TOY_START + timedelta(days=9_999))
    kept = next(one for one in labels_of(patient, world.store) if one.partition == AUGUST.key)
    assert kept.due is None
