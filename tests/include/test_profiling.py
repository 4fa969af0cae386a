"""The profile of a partition says what was planted in it, and shows no personal value."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from airworthy import charts, profile_page, profiling
from airworthy.config import Pipeline
from airworthy.errors import DataError
from airworthy.masking import MASK
from airworthy.profiling import DataProfile, profile
from airworthy.stages.ingest import ingest
from airworthy.stages.validate import validate
from parcels import DAY, World, parcels, world

__all__ = ["world"]

COUNT = 2_000


def planted() -> pd.DataFrame:
    """Returns rows in which most columns say nothing about `late`, and some a lot."""
    rng = np.random.default_rng(0)
    late = rng.integers(0, 2, COUNT)
    rows = parcels(COUNT, late=late, weight=rng.normal(size=COUNT), service=rng.choice(["fast", "slow"], COUNT))
    return rows.assign(
        at=DAY.start + pd.to_timedelta(rng.integers(0, 86_400, COUNT), unit="s"),
        leak=late * 10 + rng.normal(size=COUNT),
        verdict=np.where(late == 1, "came late", "in time"),
        depot="north",
        rain=np.where(rng.random(COUNT) < np.where(late == 1, 0.6, 0.1), np.nan, rng.normal(size=COUNT)),
        gone=pd.Series(None, index=range(COUNT), dtype="float64").where(lambda _: rows.index > 0, 1.0),
        code=[f"c{number}" for number in rng.permutation(COUNT)],
        price=np.where(np.arange(COUNT) == 7, 1e9, rng.normal(size=COUNT)),
        ratio=np.where(np.arange(COUNT) < 3, np.inf, rng.random(COUNT)),
    )


def profiled(world: World, rows: pd.DataFrame, **changes: Any) -> tuple[Pipeline, DataProfile]:
    world.rows = rows
    pipeline = world.pipeline(**changes)
    raw = ingest(pipeline, DAY, world.store)
    return pipeline, profile(pipeline, DAY.key, world.store, raw.version)


def notable(world: World, rows: pd.DataFrame, **changes: Any) -> dict[str, list[str]]:
    pipeline, found = profiled(world, rows, **changes)
    told: dict[str, list[str]] = {}
    for mark, column, text in profile_page._findings(pipeline, found):
        told.setdefault(column, []).append(f"{mark}: {text}")
    return told


def page(world: World, pipeline: Pipeline) -> str:
    version = world.store.version("raw")
    assert version is not None
    return profile_page.publish(pipeline, DAY.key, world.store, version, world.reports).read_text()


def test_what_was_planted_is_notable_and_nothing_else(world: World) -> None:
    told = notable(world, planted())
    assert sorted(told) == ["code", "depot", "gone", "leak", "price", "rain", "ratio", "verdict"]
    assert told["leak"][0].startswith("error: Tells late almost alone (AUC 1.00). Is it known when")
    assert told["verdict"][0].startswith("error: Tells late almost alone (Cramér's V 1.00)")
    assert told["depot"] == ["warning: Constant: holds one value only, and tells nothing."]
    assert told["code"] == ["warning: 2,000 distinct values in 2,000 rows: an identifier more than a category."]
    assert told["ratio"] == ["warning: Holds 3 infinite numbers."]
    assert told["price"][0].startswith(
        "warning: Far outliers: holds 1,000,000,000, while half of the values are from -0."
    )
    missing, telling = told["rain"]
    assert re.fullmatch(r"warning: Missing in 3\d\.\d% of the rows\.", missing)
    pattern = (
        r"warning: That it is missing tells late \(Cramér's V 0\.5\d\)\. late = 1 in 8\d% of the rows without it, "
    )
    assert re.fullmatch(pattern + r"and in 3\d% of the others\.", telling)
    assert told["gone"][0] == "warning: Missing in 100.0% of the rows."


def test_rows_like_any_others_have_nothing_notable(world: World) -> None:
    rows = planted()[list(parcels().columns)]
    assert notable(world, rows) == {}
    assert "Nothing." in page(world, world.pipeline())


def test_keys_that_are_there_twice_are_counted(world: World) -> None:
    rows = parcels(10, id=["a", "a", "a", "b", "b", *"cdefg"])
    assert notable(world, rows)["id"] == ["error: The key is not unique: 3 rows repeat one."]


def test_counts_and_quantiles_are_those_of_the_rows(world: World) -> None:
    rows = planted()
    _, found = profiled(world, rows)
    assert (found.rows, found.partitions, found.duplicates, found.is_exact) == (COUNT, 1, 0, True)
    assert [column.name for column in found.columns] == list(rows.columns)
    weight, rain, code = (next(one for one in found.columns if one.name == name) for name in ("weight", "rain", "code"))
    assert (weight.low, weight.high) == (rows["weight"].min(), rows["weight"].max())
    expected = rows["weight"].quantile([0.25, 0.5, 0.75], interpolation="lower")
    assert weight.quartiles == pytest.approx(expected.to_numpy(), abs=0.01)
    assert rain.missing == pytest.approx(rows["rain"].isna().mean()) and code.distinct == COUNT
    assert found.span[0] == rows["at"].min() and found.span[1] == rows["at"].max()


def test_a_big_partition_is_sampled_evenly_and_says_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiling, "SAMPLE", 300)
    monkeypatch.setattr(profiling, "EXACT", 1_000)
    pipeline, found = profiled(world, planted())
    assert len(found.sample) == -(-COUNT // 7) and not found.is_exact
    assert found.sample["id"].tolist() == planted()["id"].tolist()[::7]
    code = next(one for one in found.columns if one.name == "code")
    assert code.distinct == pytest.approx(COUNT, rel=0.2)
    text = page(world, pipeline)
    assert "of 286 rows, evenly spread" in text and "estimated (within a few percent)" in text


@pytest.mark.parametrize(
    ("task", "measures"),
    [
        ("binary", {"weight": "AUC", "service": "Cramér's V"}),
        ("multiclass", {"weight": "correlation ratio η of ranks", "service": "Cramér's V"}),
        ("regression", {"weight": "Spearman's rho", "service": "correlation ratio η of ranks"}),
    ],
)
def test_each_kind_of_label_has_its_measures(world: World, task: str, measures: dict[str, str]) -> None:
    rng = np.random.default_rng(1)
    late = rng.integers(0, 3 if task == "multiclass" else 2, COUNT) if task != "regression" else rng.normal(size=COUNT)
    rows = parcels(COUNT, late=late, weight=late + 0.1 * rng.normal(size=COUNT))
    rows["service"] = np.where(late > np.median(late) - 0.5, "slow", "fast")
    rows["noise"] = rng.normal(size=COUNT)
    rows["at"] = DAY.start + pd.to_timedelta(np.arange(COUNT), unit="s")
    pipeline, found = profiled(world, rows, label={"column": "late", "task": task})
    columns = {column.name: column.label for column in found.columns}
    for name, measure in measures.items():
        told = columns[name]
        assert told is not None and told.measure == measure
        assert told.strength > (0.9 if name == "weight" else 0.4), (name, told)
    noise = columns["noise"]
    assert noise is not None and noise.strength < 0.1
    text = page(world, pipeline)
    assert text.index("<figcaption>weight") < text.index("<figcaption>noise")


def test_nothing_but_counts_is_known_of_a_personal_column(world: World) -> None:
    rows = planted().assign(
        code=lambda frame: "canary-" + frame["code"], price=lambda frame: 8_765_432.0 + frame["late"]
    )
    pipeline, found = profiled(world, rows, pii=["code", "price", "id"])
    assert {"code", "price", "id"} & set(found.sample.columns) == set()
    text = page(world, pipeline)
    assert "canary" not in text and "8,765" not in text and "2026-01-05-1" not in text
    assert text.count(f"<td>{MASK}</td>") == 3 and "Of personal columns (code, price, id) only counts" in text
    assert "8,765" in page(world, world.pipeline())


def test_the_page_is_written_with_a_validation_unless_the_partition_is_big(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline = world.pipeline()
    file = world.reports / profile_page.profile_path(pipeline.name, DAY.key)
    raw = ingest(pipeline, DAY, world.store)
    monkeypatch.setattr(profile_page, "AUTOMATIC", 9)
    validate(pipeline, DAY, raw, world.store, world.reports)
    assert not file.exists()
    monkeypatch.setattr(profile_page, "AUTOMATIC", 10)
    monkeypatch.setattr(profile_page, "BINS", -5)
    validate(pipeline, DAY, raw, world.store, world.reports)
    assert not file.exists() and "raw[2026-01-05]: no profile was written" in caplog.text
    monkeypatch.undo()
    validate(pipeline, DAY, raw, world.store, world.reports)
    assert "profile of 2026-01-05" in file.read_text()


def test_the_page_loads_nothing_and_escapes_everything(world: World) -> None:
    evil = "<script>alert(1)</script>"
    rows = planted().rename(columns={"weight": "<b>weight"}).assign(service=lambda frame: evil + frame["verdict"])
    pipeline, _ = profiled(world, rows)
    text = page(world, pipeline)
    assert "<script" not in text and "<b>" not in text and "://" not in text
    assert text.count("&lt;script&gt;") >= 2 and "&lt;b&gt;weight" in text


def test_a_partition_that_is_not_there_is_named(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = world.pipeline()
    folder = tmp_path / "config" / "pipelines"
    folder.mkdir(parents=True)
    declared = pipeline.model_dump_json(exclude={"name"}, exclude_none=True)
    (folder / "parcels.yaml").write_text(declared)
    monkeypatch.setenv("AIRWORTHY_CONFIG", str(tmp_path / "config"))
    places = {"AIRWORTHY_STORE_URI": str(world.folder / "store"), "AIRWORTHY_HOME": str(world.folder)}
    for name in ("AIRWORTHY_LEDGER_URL", "MLFLOW_TRACKING_URI", "AIRWORTHY_SERVING_URL", "AIRWORTHY_AIRFLOW_URL"):
        places[name] = "http://127.0.0.1:1"
    with pytest.raises(DataError, match=r"parcels: raw: must hold rows. Run parcels.ingest first"):
        profile_page.run("parcels", places)
    ingest(pipeline, DAY, world.store)
    profile_page.run("parcels", places)
    assert (world.reports / "parcels" / "profile" / f"{DAY.key}.html").exists()
    with pytest.raises(DataError, match=r"raw\[2026-01-07\]: must hold rows. There are 2026-01-05 to 2026-01-05"):
        profile_page.run("parcels", places, "2026-01-07")


def test_a_bar_is_as_tall_as_its_share() -> None:
    drawn = charts.histogram([4, 0, 2], "x", width=30, height=21).svg
    assert re.findall(r"M([\d.]+) 21v-([\d.]+)", drawn) == [("0.0", "20.0"), ("20.0", "10.0")]
    assert "<path" not in charts.histogram([], "x").svg
