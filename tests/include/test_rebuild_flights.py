"""Three past champions of the flights come out bit by bit as they were, though the tables have gone on since."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from airworthy.config import Pipeline, load_pipeline
from airworthy.ledger import Ledger
from airworthy.partitions import parse_key, partitions_between
from airworthy.profile import ROOT, Profile
from airworthy.registry import Registry
from airworthy.stages.ingest import ingest
from airworthy.stages.process import process
from airworthy.stages.rebuild import past_champion, require_identical
from airworthy.stages.train import train
from airworthy.stages.validate import validate
from airworthy.store import Store

pytest.importorskip("pipelines.flight_delays")

FIRST = datetime(2013, 2, 25, tzinfo=UTC)
MOMENTS = [datetime(2013, 4, day, tzinfo=UTC) for day in (8, 15, 22)]


@pytest.fixture
def flights(tmp_path: Path) -> Iterator[Pipeline]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("AIRWORTHY_HOME", str(tmp_path / "home"))
        declared = load_pipeline(ROOT / "config" / "pipelines" / "flight_delays.yaml")
        yield declared.model_copy(update={"start": FIRST})


@pytest.fixture
def profile(tmp_path: Path, mlflow_uri: str) -> Profile:
    return Profile(
        store_uri=str(tmp_path / "store"),
        reports_dir=tmp_path / "reports",
        mlflow_uri=mlflow_uri,
        ledger_url=f"sqlite:///{tmp_path}/ledger.db",
        serving_url="http://127.0.0.1:1",
        airflow_url="http://127.0.0.1:1",
    )


def publish(flights: Pipeline, profile: Profile) -> Store:
    """Returns the store with the weeks before the last moment, as Airflow's tasks bring them in."""
    store = Store(profile.store_uri, flights.name)
    for week in partitions_between("week", FIRST, MOMENTS[-1]):
        raw = ingest(flights, week, store)
        found = validate(flights, week, raw, store, profile.reports_dir)
        process(flights, week, found, store)
    return store


def promote(flights: Pipeline, profile: Profile, moment: datetime, expected: str | None) -> str:
    """Returns the version that is champion from here on, without any gate."""
    challenger = train(flights, moment, profile)
    entry = Ledger(profile.ledger_url).promote(
        pipeline=flights.name,
        version=Registry(profile).register(challenger),
        model_id=challenger.model_id,
        run_id=challenger.run_id,
        digest=challenger.digest,
        as_of=moment,
        expected=expected,
        actor="test",
        evidence="",
    )
    return entry.version


def test_three_past_champions_are_identical(flights: Pipeline, profile: Profile) -> None:
    store = publish(flights, profile)
    Ledger(profile.ledger_url).create()
    champion = None
    for moment in MOMENTS:
        champion = promote(flights, profile, moment, champion)
    for key in ("2013-02-25", "2013-03-18"):  # a week of a window and one of a holdout are corrected
        week = parse_key("week", key)
        for table in ("raw", "features"):
            rows = store.read(table, partitions=[key])
            store.write(table, week, rows.assign(distance=rows["distance"] + 1))
    digests = set()
    for version in ("1", "2", "3"):
        lineage = past_champion(flights, profile, datetime.now(UTC), version)
        assert lineage is not None and lineage.stale
        found = require_identical(flights, lineage, profile)
        assert found.identical and all(found.files.values()) and len(found.files) == 5
        assert (found.largest_difference, found.requests) == (0.0, 50)
        digests.add(found.digest)
    assert len(digests) == 3
