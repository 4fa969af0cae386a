"""A champion trained with a view answers as its training would have, with values that the request does not have."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import online_stores
from airworthy.config import Pipeline
from airworthy.errors import ModelError
from airworthy.features import compute_features
from airworthy.model_files import CONTRACT, load_model
from airworthy.partitions import parse_key, partitions_between
from airworthy.profile import home
from airworthy.registry import Challenger, Registry
from airworthy.serving.check import check_in_fresh_process
from airworthy.serving.lookup import Lookups
from airworthy.stages.view_join import VIEWS, join_views
from airworthy.stages.view_tables import ingest_views
from airworthy.store import Store
from serving_process import promote, recorded, serving, trained
from toy_pipeline import TOY_START, Toy

CODE = """
import pandas as pd

def weather(start, end):
    rows = pd.read_parquet({rows!r})
    return rows[(rows["observed_at"] >= start) & (rows["observed_at"] < end)]

def features(frame):
    return frame[["distance", "carrier_name", "gust", "visibility"]].assign(calm=frame["gust"] < 0)
"""
DAYS = 100
LAST = parse_key("month", "2013-04-01")
LATE = LAST.end - timedelta(seconds=1)


@dataclass
class Windy:
    """A toy pipeline whose label depends on the gusts that a view knows, and its rows."""

    toy: Toy
    pipeline: Pipeline
    store: Store
    raw: pd.DataFrame

    def batch(self, raw: pd.DataFrame, model: Any) -> np.ndarray:
        """Returns the predictions that a partition's rows get when they are joined and processed."""
        with join_views(self.pipeline, LAST, self.store) as join:
            rows = join(pa.Table.from_pandas(raw, preserve_index=False)).to_pandas()
        return np.asarray(model.predict(compute_features(self.pipeline, rows)))

    def train(self) -> tuple[Challenger, Any]:
        challenger = trained(self.toy, self.pipeline)
        files = Registry(self.toy.profile).download(challenger.model_id, self.toy.folder / "model")
        return challenger, load_model(files, digest=challenger.digest, pipeline=self.pipeline)


def weather() -> pd.DataFrame:
    rng = np.random.default_rng(2)
    hours = pd.to_datetime([TOY_START + timedelta(hours=4 * number) for number in range(6 * 120)])
    rows = pd.DataFrame({"observed_at": np.tile(hours, 3), "carrier_name": np.repeat(["AA", "B6", "UA"], len(hours))})
    rows["observed_at"] = rows["observed_at"].astype("datetime64[us, UTC]")
    rows["gust"], rows["visibility"] = rng.normal(size=len(rows)), rng.integers(0, 10, len(rows))
    rows.loc[rng.random(len(rows)) < 0.02, "visibility"] = np.nan
    return rows.sample(frac=1, random_state=0)


def windy(toy: Toy, online: Any) -> Windy:
    weather().to_parquet(toy.folder / "weather.parquet")
    (toy.folder / "code" / "toy_weather.py").write_text(CODE.format(rows=str(toy.folder / "weather.parquet")))
    view = {
        "source": {"python": {"function": "toy_weather:weather"}},
        "key": ["carrier_name"],
        "time": "observed_at",
        "columns": ["gust", "visibility"],
        "max_age": "2 days",
        "online": online,
    }
    pipeline = toy.pipeline(features="toy_weather:features", views={"weather": view})
    raw = toy.rows(DAYS).drop(columns="wind").sort_values("time")
    known = pd.merge_asof(
        raw, weather().sort_values("observed_at"), left_on="time", right_on="observed_at", by="carrier_name"
    )
    raw["late"] = (raw["distance"].to_numpy() + 2 * known["gust"].fillna(0).to_numpy()) > 0.5
    found = Windy(toy, pipeline, Store(toy.profile.store_uri, pipeline.name), raw)
    for partition in partitions_between("month", TOY_START, LAST.end):
        chosen = raw[(raw["time"] >= partition.start) & (raw["time"] < partition.end)].reset_index(drop=True)
        ingest_views(pipeline, partition, found.store)
        found.store.write("raw", partition, chosen)
        with join_views(pipeline, partition, found.store) as join:
            rows = join(pa.Table.from_pandas(chosen, preserve_index=False)).to_pandas()
            identity = rows[[*pipeline.key, pipeline.time, pipeline.label.column]]
            features = identity.join(compute_features(pipeline, rows))
            found.store.write("features", partition, features, facts={VIEWS: join.versions})
    return found


@pytest.fixture(params=["sqlite", "postgres", "redis"])
def online(
    request: pytest.FixtureRequest, toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Any, ExitStack]]:
    """A declared online store, and what takes it down."""
    monkeypatch.setenv("AIRWORTHY_HOME", str(toy.folder / "home"))
    if reason := online_stores.reason_to_skip(request.param):
        pytest.skip(reason)
    with ExitStack() as running:
        if request.param == "sqlite":
            running.callback(lambda: (home() / "online.db").unlink(missing_ok=True))
            yield "sqlite", running
            return
        monkeypatch.setenv("AIRFLOW_CONN_ONLINE", running.enter_context(getattr(online_stores, request.param)()))
        yield {request.param: {"connection": "online"}}, running


@pytest.fixture
def embedded(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> Windy:
    monkeypatch.setenv("AIRWORTHY_HOME", str(toy.folder / "home"))
    return windy(toy, "sqlite")


def new_rows(carriers: list[str | None], moment: datetime = LATE) -> pd.DataFrame:
    rows = pd.DataFrame({"carrier_name": pd.Series(carriers, dtype=object)})
    rows["day"], rows["flight"], rows["distance"] = 1000, range(len(rows)), np.linspace(-1, 1, len(rows))
    return rows.assign(time=pd.Series([moment] * len(rows)).astype("datetime64[us, UTC]"))


def asked(rows: pd.DataFrame) -> dict[str, Any]:
    return {"dataframe_records": json.loads(rows.to_json(orient="records", date_format="iso", date_unit="us"))}


def lookups(metrics: str) -> dict[str, int]:
    return {
        found[1]: int(found[2]) for found in re.finditer(r'airworthy_lookups_total{.*outcome="(\w+)"} (\d+)', metrics)
    }


def test_predictions_online_equal_those_in_batch(toy: Toy, online: tuple[Any, ExitStack]) -> None:
    declared, running = online
    made = windy(toy, declared)
    challenger, model = made.train()
    entry = promote(toy, challenger)
    known = new_rows(["AA", "B6", "UA", "AA", "UA"])
    unknown = new_rows(["ZZ", None])
    with serving(toy) as server:
        server.wait_for_version(entry)
        for rows in (known, unknown):
            answer = server.post(asked(rows))
            assert answer.status == 200, answer.body
            assert answer.body["predictions"] == pytest.approx(made.batch(rows, model))
        assert lookups(server.get("/metrics").body) == {"found": 5, "expired": 0, "unknown": 2}
        found = recorded(toy, challenger)  # whose requests have what was known then, so nothing is looked up
        answer = server.post({"dataframe_split": {"columns": found["columns"], "data": found["data"]}})
        assert answer.body["predictions"] == pytest.approx(found["expected"])
        assert sum(lookups(server.get("/metrics").body).values()) == 7
        running.close()
        answer = server.post(asked(known))
        where = "online.db" if declared == "sqlite" else "connection online"
        assert (
            answer.status == 503
            and f"online store{':' if where != 'online.db' else ''} {where}" in answer.body["detail"]
        )
        sent = known.assign(gust=[0.5] * 5, visibility=3)
        answer = server.post(asked(sent))
        assert answer.body["predictions"] == pytest.approx(model.predict_raw(sent))


def test_the_model_learnt_from_the_view_and_from_nothing_of_the_future(embedded: Windy) -> None:
    challenger, model = embedded.train()
    assert challenger.metrics["roc_auc"] > 0.9  # without the gusts, 0.7 is the best there is
    found = recorded(embedded.toy, challenger)
    requests = pd.DataFrame(found["data"], columns=found["columns"])
    reference = weather()
    for row in requests.itertuples():
        past = reference[
            (reference["carrier_name"] == row.carrier_name) & (reference["observed_at"] <= pd.Timestamp(row.time))
        ]
        newest = past.sort_values("observed_at").iloc[-1]
        assert row.gust == newest["gust"]
    lookup = json.loads((model.folder / CONTRACT).read_text())["lookups"]
    assert lookup == [
        {"view": "weather", "key": ["carrier_name"], "columns": ["gust", "visibility"], "max_age": 2 * 86_400.0}
    ]


def test_a_fresh_process_proves_the_model_without_the_online_store(
    embedded: Windy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    challenger, model = embedded.train()
    monkeypatch.setenv("AIRWORTHY_HOME", str(tmp_path / "elsewhere"))
    servable = check_in_fresh_process(model.folder, challenger.digest, embedded.pipeline.name)
    assert servable.requests == 50 and servable.largest_difference < 1e-6


def test_values_that_are_too_old_for_the_event_are_missing(embedded: Windy) -> None:
    challenger, model = embedded.train()
    entry = promote(embedded.toy, challenger)
    newest = weather()["observed_at"].max()
    carriers: list[str | None] = ["AA", "B6"]
    edge, late = (new_rows(carriers, (newest + timedelta(days=2, seconds=s)).to_pydatetime()) for s in (0, 1))
    missing = late.assign(gust=None, visibility=None)
    with serving(embedded.toy) as server:
        server.wait_for_version(entry)
        first = server.post(asked(edge)).body["predictions"]
        assert first == pytest.approx(server.post(asked(edge.assign(time=LATE))).body["predictions"])
        assert server.post(asked(late)).body["predictions"] == pytest.approx(model.predict_raw(missing))
        counted = {"found": 4, "expired": 2, "unknown": 0}
        assert lookups(server.get("/metrics").body) == counted
        without_time = late.assign(time=None)  # counts as now, and all this was long ago
        assert server.post(asked(without_time)).status in (200, 400)
        assert lookups(server.get("/metrics").body) == {**counted, "expired": 4}


def test_a_request_is_told_what_it_lacks(embedded: Windy) -> None:
    challenger, _ = embedded.train()
    entry = promote(embedded.toy, challenger)
    rows = new_rows(["AA"])
    with serving(embedded.toy) as server:
        server.wait_for_version(entry)
        answer = server.post(asked(rows.assign(gust=1.0)))
        assert answer.status == 400
        assert "must have all columns of the view weather (gust, visibility), or none" in answer.body["detail"]
        answer = server.post(asked(rows.drop(columns="carrier_name")))
        assert answer.status == 400
        assert "must have the column(s) carrier_name" in answer.body["detail"]
        inputs = {column.pop("name"): column for column in server.model(embedded.pipeline.name)["inputs"]}
        assert inputs["gust"] == {"type": "number", "required": False, "view": "weather"}
        assert inputs["carrier_name"] == {"type": "string", "required": True}


def test_a_view_that_is_no_longer_declared_is_refused(embedded: Windy) -> None:
    _, model = embedded.train()
    with pytest.raises(ModelError, match="must declare the view weather, which the model was trained with"):
        Lookups(embedded.pipeline.model_copy(update={"views": {}}), model.contract)
