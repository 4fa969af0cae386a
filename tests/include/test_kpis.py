"""Key figures over time: 30 normal days are quiet, and a migration is told within two windows, with what changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.metrics import accuracy_score

from airworthy.config import Pipeline
from airworthy.drift import Drift
from airworthy.errors import Problems
from airworthy.formatting import text_change
from airworthy.kpis import KpiFinding, judge
from airworthy.partitions import Grain, partition_at
from airworthy.sketches import CategorySketch, sketch_frame
from airworthy.stages.drift import drift
from airworthy.stages.kpis import declared
from airworthy.stages.monitor import score
from airworthy.store import Store
from serving_process import promote, trained
from toy_pipeline import TOY_START, Toy, toy_at

SERIES = ("rows", "accuracy", "missing", "prediction")


def normal_days(seed: int, days: int) -> dict[str, np.ndarray]:
    """Returns a series each of daily values: quiet weekends, noise, and rates that are measured on the rows."""
    rng = np.random.default_rng(seed)
    weekend = np.arange(days) % 7 >= 5
    rows = rng.poisson(240_000 * np.where(weekend, 0.6, 1) * np.exp(rng.normal(0, 0.05, days)))
    return {
        "rows": rows,
        "accuracy": rng.binomial(rows, 0.98) / rows,
        "missing": rng.binomial(rows, 0.03) / rows,
        "prediction": 0.3 + 0.01 * weekend + rng.normal(0, 0.005, days),
    }


def judged(name: str, series: dict[str, np.ndarray], at: int, grain: Grain = "day") -> KpiFinding:
    scale = "amount" if name == "rows" else "share"
    return judge(
        name, float(series[name][at]), series[name][:at], grain=grain, scale=scale, rows=int(series["rows"][at]),
        alarms=0.01 / len(SERIES),
    )  # fmt: skip


def test_thirty_normal_days_are_quiet() -> None:
    for seed in range(3):
        series = normal_days(seed, 60)
        found = [judged(name, series, day) for day in range(30, 60) for name in SERIES]
        assert len(found) == 120
        assert all(one.expected is not None for one in found)
        assert [one.reason for one in found if one.alarm] == []


def test_the_first_two_weeks_are_learned_from_and_not_judged() -> None:
    series = normal_days(0, 14)
    found = judged("rows", series, 13)
    assert (found.expected, found.alarm, found.windows) == (None, False, 13)
    assert "too few" in found.reason


def normal_hours(seed: int, days: int) -> dict[str, np.ndarray]:
    """Returns a series each of hourly values: quiet nights and weekends, a model that errs more by night, and noise."""
    rng = np.random.default_rng(seed)
    hour = np.arange(24 * days)
    night = np.cos(2 * np.pi * hour / 24)
    weekend = hour // 24 % 7 >= 5
    rows = rng.poisson(
        10_000 * np.exp(-0.8 * night) * np.where(weekend, 0.6, 1) * np.exp(rng.normal(0, 0.04, len(hour)))
    )
    return {
        "rows": rows,
        "accuracy": rng.binomial(rows, 0.98 - 0.004 * night) / rows,
    }


def test_thirty_normal_days_by_the_hour_are_quiet() -> None:
    series = normal_hours(0, 51)
    found = [judged(name, series, at, "hour") for at in range(21 * 24, 51 * 24) for name in series]
    assert len(found) == 2 * 720
    assert all(one.expected is not None for one in found)
    assert [one.reason for one in found if one.alarm] == []
    night = found[2 * 3]  # of rows at three in the morning
    assert night.expected == pytest.approx(10_000 * np.exp(-0.8 * np.cos(np.pi / 4)), rel=0.2)


def migrated(series: dict[str, np.ndarray], at: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Returns the series with a migration in the hours from `at` on."""
    rows = np.concatenate([series["rows"][:at], [10_000, 30_000, 50_000, 60_000]])
    rate = [0.98, 0.95, 0.90, 0.85]
    return {
        "rows": rows,
        "accuracy": np.concatenate([series["accuracy"][:at], rng.binomial(rows[at:], rate) / rows[at:]]),
    }


def written(carriers: pd.DataFrame) -> CategorySketch:
    found = sketch_frame(carriers, {"carrier": "category"})["carrier"]
    assert isinstance(found, CategorySketch)
    return found


@pytest.mark.parametrize("seasonal", [True, False])
def test_a_migration_by_the_hour_is_caught_within_two_windows_with_the_formatting_it_changed(seasonal: bool) -> None:
    """Accuracy 98 % -> 95 % -> 90 % -> 85 % while the rows of an hour go 10,000 -> 30,000 -> 50,000 -> 60,000."""
    rng, at = np.random.default_rng(0), 21 * 24 + 6  # at six, when 10,000 rows are usual
    steady = rng.poisson(10_000, at)
    quiet = normal_hours(0, 22) if seasonal else {"rows": steady, "accuracy": rng.binomial(steady, 0.98) / steady}
    series = migrated(quiet, at, rng)
    assert [one.reason for one in (judged(name, series, at, "hour") for name in series) if one.alarm] == []
    carriers = pd.DataFrame({"carrier": rng.choice(["AA", "B6", "UA"], 10_000)})
    trained_on = written(carriers)
    for window in (at + 1, at + 2):
        told = {name: judged(name, series, window, "hour") for name in series}
        assert all(one.alarm and one.remedy for one in told.values())
        assert told["accuracy"].expected == pytest.approx(0.98, abs=0.01)
        assert told["rows"].expected is not None and told["rows"].expected < 16_000
        now = written(carriers.assign(carrier=carriers["carrier"].str.lower()))
        changed = text_change("carrier", trained_on, now)
        assert changed is not None and changed.change == "values came in lower case"
    assert text_change("carrier", trained_on, written(carriers.sample(5_000, random_state=0))) is None


def test_a_migration_by_the_day_is_caught_in_its_first_window() -> None:
    rng = np.random.default_rng(0)
    before = rng.poisson(10_000, 28)
    rows, rate = np.concatenate([before, [30_000, 50_000]]), np.concatenate([np.full(28, 0.98), [0.95, 0.90]])
    series = {"rows": rows, "accuracy": rng.binomial(rows, rate) / rows}
    for name in series:
        assert [judged(name, series, at).alarm for at in range(25, 30)] == [False, False, False, True, True]


def test_gaps_outliers_and_series_that_never_vary_do_no_harm() -> None:
    history = [100.0] * 20
    assert not judge("x", 100.0, history, grain="day", scale="number", rows=1, alarms=0.01).alarm
    assert judge("x", 200.0, history, grain="day", scale="number", rows=1, alarms=0.01).alarm
    noisy = list(np.random.default_rng(0).normal(100, 5, 40))
    noisy[10], noisy[20], noisy[21] = float("nan"), 1e9, float("nan")
    found = judge("x", 101.0, noisy, grain="day", scale="number", rows=1, alarms=0.01)
    assert not found.alarm
    assert found.expected == pytest.approx(100, abs=10)


@dataclass
class Daily:
    """A champion of February, a usual first of March, and a second on which a migration has written everything anew."""

    toy: Toy
    pipeline: Pipeline
    store: Store

    def drift(self, day: int) -> Drift:
        partition = partition_at("day", TOY_START + timedelta(days=day))
        return drift(self.pipeline, partition, score(self.pipeline, partition, self.toy.profile), self.toy.profile)


FIRST, USUAL, MIGRATED = 38, 59, 60  # days; the sixtieth is the first of March


@pytest.fixture(scope="module")
def daily(tmp_path_factory: pytest.TempPathFactory, mlflow_uri: str) -> Iterator[Daily]:
    with pytest.MonkeyPatch.context() as patched:
        toy = toy_at(tmp_path_factory.mktemp("kpis"), mlflow_uri, patched)
        start = (TOY_START + timedelta(days=FIRST)).isoformat()
        kpis = {"mean_distance": "avg(distance)"}
        pipeline = toy.pipeline(
            partition="day", key=["flight"], start=start, train={"holdout": "7 days"}, monitor={"kpis": kpis}
        )
        rows = toy.rows(days=MIGRATED + 1)
        usual, day = rows[rows["day"].between(FIRST, USUAL)], rows[rows["day"] == MIGRATED]
        many = pd.concat([day.assign(flight=day["flight"] + 20 * number) for number in range(6)])
        wrong = np.arange(len(many)) % 3 == 0
        many = many.assign(
            carrier_name=many["carrier_name"].str.lower(),
            distance=np.random.default_rng(1).normal(size=len(many)) * 1.609344,
            late=many["late"].to_numpy() ^ wrong,
        )
        store = toy.fill(pipeline, pd.concat([usual, many], ignore_index=True))
        promote(toy, trained(toy, pipeline, TOY_START + timedelta(days=USUAL)))
        keys = [partition_at("day", TOY_START + timedelta(days=day)).key for day in range(USUAL - 14, USUAL)] * 2
        history = {"kpi": ["rows"] * 14 + ["accuracy"] * 14, "value": [20.0] * 14 + [0.8, 0.81] * 7}
        frame = pd.DataFrame(history).assign(rows=20, scale=["amount"] * 14 + ["share"] * 14)
        store.append("kpis", keys, pa.Table.from_pandas(frame, preserve_index=False))
        yield Daily(toy, pipeline, store)


def test_the_accuracy_that_is_kept_is_the_one_of_the_rows(daily: Daily) -> None:
    found, store = daily.drift(USUAL), daily.store
    key = found.partition
    scored = store.read("predictions", partitions=[key]).merge(store.read("features", partitions=[key]), on="flight")
    kept = store.read("kpis", partitions=[key]).set_index("kpi")
    assert kept.loc["accuracy", "value"] == pytest.approx(accuracy_score(scored["late"], scored["prediction"] >= 0.5))
    assert (kept.loc["rows", "value"], kept.loc["rows", "scale"]) == (20, "amount")
    assert found.label is not None and not found.label.drifted
    assert [one.reason for one in found.kpis if one.alarm] == []


def test_the_migration_is_told_by_the_task_with_the_column_that_is_written_anew(daily: Daily) -> None:
    found = daily.drift(MIGRATED)
    told = {one.column: one for one in found.formats}
    assert told["carrier_name"].change == "values came in lower case"
    assert (told["carrier_name"].before.lower(), told["carrier_name"].share) == (told["carrier_name"].now, 1)
    alarms = {one.kpi: one for one in found.kpis if one.alarm}
    assert alarms["rows"].value == 120
    assert alarms["accuracy"].value < 0.7
    assert {"mean_distance", "missing:wind", "prediction"} <= {one.kpi for one in found.kpis}
    page = (daily.toy.profile.reports_dir / found.page).read_text()
    assert "values came in lower case" in page and "rows is 120" in page
    assert len(page) < 1_500_000
    again = daily.drift(MIGRATED)
    assert again.kpis == found.kpis


def test_key_figures_that_cannot_be_computed_are_all_named(toy: Toy) -> None:
    kpis = {"good": "avg(distance)", "gone": "avg(nowhere)", "text": "max(carrier_name)", "secret": "count(flight)"}
    pipeline = toy.pipeline(monitor={"kpis": kpis}, pii=["flight"])
    store = toy.fill(toy.pipeline(), toy.rows(days=40))
    with pytest.raises(Problems) as raised:
        declared(pipeline, partition_at("month", TOY_START), Store(toy.profile.store_uri, pipeline.name))
    assert store.has("raw", "2013-01-01")
    assert [problem.where.rpartition(".")[2] for problem in raised.value.problems] == ["gone", "secret", "text"]
