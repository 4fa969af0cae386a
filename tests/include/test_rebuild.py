"""A model is built again from what its run has on record, whatever its partitions hold by now."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from mlflow import MlflowClient

from airworthy import cli
from airworthy.errors import DataError, ModelError, Problems
from airworthy.ledger import Ledger
from airworthy.lineage import Lineage, lineages, of_run
from airworthy.model_files import digest_of
from airworthy.partitions import parse_key
from airworthy.registry import Challenger, Registry
from airworthy.stages.ingest import ingest
from airworthy.stages.rebuild import TAG, Rebuild, past_champion, rebuild, require_identical
from airworthy.stages.train import train
from published import MONTHS, Published
from serving_process import corrupt, promote
from test_train import TUNE
from toy_pipeline import Toy

MARCH = datetime(2013, 3, 31, tzinfo=UTC)


@pytest.fixture
def published(toy: Toy) -> Published:
    found = Published(toy, tune=TUNE, train={"holdout": "2 weeks"})
    for key in MONTHS:
        found.publish(key)
    return found


@pytest.fixture
def challenger(published: Published) -> Challenger:
    return train(published.pipeline, MARCH, published.profile)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def garble(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[:4] + bytes(len(content) // 2) + content[4 + len(content) // 2 :])


def lineage(published: Published, challenger: Challenger) -> Lineage:
    return of_run(lineages(published.pipeline, published.profile), challenger.run_id)


def rebuilt(published: Published, challenger: Challenger, name: str = "rebuilt") -> Rebuild:
    folder = published.toy.folder / name
    return rebuild(published.pipeline, lineage(published, challenger), published.profile, folder)


def test_a_model_of_march_is_built_again_after_its_partitions_changed(
    published: Published, challenger: Challenger
) -> None:
    for key in MONTHS:
        published.publish(key, published.changed(key))
    found = rebuilt(published, challenger)
    assert found.identical and found.digest == challenger.digest == digest_of(found.folder)
    assert (found.requests, found.largest_difference) == (50, 0.0)
    assert found.differences == () and found.notes == ()
    names = ("airworthy.json", "model.ubj", "reference.parquet", "requests.json", "sketches.json")
    assert found.files == dict.fromkeys(names, True)
    assert found.rows == challenger.features.rows
    recorded = Registry(published.profile).download(challenger.model_id, published.toy.folder / "recorded")
    for name in names:
        assert (found.folder / name).read_bytes() == (recorded / name).read_bytes()
    runs = Registry(published.profile).trainings(published.pipeline.name)
    assert [run.run_id for run in runs] == [challenger.run_id]  # nothing was registered

    other = train(published.pipeline, MARCH, published.profile)
    assert other.digest != challenger.digest and other.metrics != challenger.metrics


def test_requests_are_those_the_features_were_made_from(published: Published) -> None:
    """`raw` is ahead of `features` while a partition is on its way, and its rows are not what was trained on."""
    key = MONTHS[-1]
    features = published.store.version("features")
    for again in (published.rows, published.changed(key)):  # the second is ingested, but not processed
        ingest_only(published, key, again)
    first = train(published.pipeline, MARCH, published.profile)
    assert first.features.version == features
    files = Registry(published.profile).download(first.model_id, published.toy.folder / "files")
    recorded = json.loads((files / "requests.json").read_text())
    position = recorded["columns"].index("distance")
    known = set(published.rows["distance"])
    assert all(row[position] in known for row in recorded["data"])
    published.process(key, published.changed(key))
    assert rebuilt(published, first).identical


def ingest_only(published: Published, key: str, rows: pd.DataFrame) -> None:
    partition = parse_key("month", key)
    inside = (rows["time"] >= partition.start) & (rows["time"] < partition.end)
    rows[inside].to_parquet(published.file(key), index=False)
    ingest(published.pipeline, partition, published.store)


def test_the_declaration_is_the_recorded_one(published: Published, challenger: Challenger) -> None:
    published.declare(model={"xgboost": {"params": {"max_depth": 1}}}, train={"holdout": "3 weeks"})
    found = rebuilt(published, challenger)
    assert found.identical
    assert found.notes == tuple(f"{name} is declared otherwise now" for name in ("model", "tune", "train"))


def test_other_code_and_libraries_are_named(published: Published, challenger: Challenger) -> None:
    module = published.toy.folder / "code" / "toy_features.py"
    module.write_text(module.read_text() + "# a second edition\n")
    client = MlflowClient(published.profile.mlflow_uri)
    client.log_text(challenger.run_id, json.dumps({"xgboost": "0.1"}), "environment.json")
    found = rebuilt(published, challenger)
    assert not found.identical
    assert found.largest_difference == 0.0  # the second edition says the same
    told = "\n".join(found.differences)
    assert "the module of toy_features:features: SHA-256 " in told
    assert "recorded 0.1" in told and "pandas: " in told
    assert "airworthy.json: features_digest is " in told
    assert [name for name, same in found.files.items() if not same] == ["airworthy.json"]


@pytest.mark.parametrize("damage", [Path.unlink, truncate, garble])
def test_files_that_are_gone_or_damaged_are_named(
    published: Published, challenger: Challenger, damage: Callable[[Path], None]
) -> None:
    published.publish(MONTHS[1], published.changed(MONTHS[1]))
    old = published.store.scan("features", partitions=[MONTHS[1]], version=challenger.features.version)
    (file,) = old.files
    damage(Path(published.store.uri("features")) / file)
    with pytest.raises(Problems) as caught:
        rebuilt(published, challenger)
    (problem,) = caught.value.problems
    assert str(problem).startswith(f"features[2013-02-01], version {challenger.features.version}: must still be there")
    assert "VACUUM" in str(problem)
    assert not (published.toy.folder / "rebuilt").exists()


@pytest.mark.parametrize("damage", [Path.unlink, truncate, garble])
def test_raw_files_that_are_gone_or_damaged_are_named(
    published: Published, challenger: Challenger, damage: Callable[[Path], None]
) -> None:
    old = published.store.scan("raw", partitions=[MONTHS[2]]).files[0]
    published.publish(MONTHS[2], published.changed(MONTHS[2]))
    damage(Path(published.store.uri("raw")) / old)
    with pytest.raises(DataError, match=r"raw: must still hold what the features were made from.*VACUUM"):
        rebuilt(published, challenger)


def test_rows_that_were_changed_in_place_are_named(published: Published, challenger: Challenger) -> None:
    before = published.store.scan("features", partitions=[MONTHS[0]]).files[0]
    published.publish(MONTHS[0], published.changed(MONTHS[0]))
    after = published.store.scan("features", partitions=[MONTHS[0]]).files[0]
    root = Path(published.store.uri("features"))
    (root / before).write_bytes((root / after).read_bytes())
    with pytest.raises(Problems, match=r"features\[2013-01-01\], version 3: must have the recorded digest"):
        rebuilt(published, challenger)


def test_a_model_whose_files_are_damaged_is_built_again(published: Published, challenger: Challenger) -> None:
    corrupt(published.toy, challenger)
    found = rebuilt(published, challenger)
    assert found.identical  # the search gave the same parameters once more
    assert found.largest_difference is None
    assert "the recorded files cannot be compared" in found.differences[0]


def test_a_folder_that_is_there_is_left_alone(published: Published, challenger: Challenger) -> None:
    (published.toy.folder / "rebuilt").mkdir()
    with pytest.raises(ModelError, match="must not exist yet"):
        rebuilt(published, challenger)


NOW = datetime(2100, 1, 1, tzinfo=UTC)


@pytest.fixture
def champions(published: Published) -> list[Challenger]:
    """Three of them, each promoted over the one before, whose partitions have changed since."""
    found, champion = [], None
    for day in (10, 20, 31):
        found.append(train(published.pipeline, datetime(2013, 3, day, tzinfo=UTC), published.profile))
        champion = promote(published.toy, found[-1], champion)
    for key in MONTHS:
        published.publish(key, published.changed(key))
    return found


def tags(published: Published, version: str) -> list[str | None]:
    """Returns the tag of a version and of its run."""
    client = MlflowClient(published.profile.mlflow_uri)
    found = client.get_model_version(published.pipeline.name, version)
    return [found.tags.get(TAG), client.get_run(found.run_id).data.tags.get(TAG)]


def test_three_past_champions_come_out_as_they_are_on_record(published: Published, champions: list[Challenger]) -> None:
    for version, challenger in enumerate(champions, start=1):
        chosen = past_champion(published.pipeline, published.profile, NOW, str(version))
        assert chosen is not None
        found = require_identical(published.pipeline, chosen, published.profile)
        assert (found.digest, found.run_id) == (challenger.digest, challenger.run_id)
        assert tags(published, str(version)) == [f"identical {datetime.now(UTC):%Y-%m-%d}"] * 2
    assert len({challenger.digest for challenger in champions}) == 3


def test_the_champion_that_is_chosen_is_known_by_the_moment(published: Published, champions: list[Challenger]) -> None:
    def chosen(moment: datetime) -> str | None:
        found = past_champion(published.pipeline, published.profile, moment)
        return None if found is None else ", ".join(found.run.versions)

    moments = [NOW.replace(day=day) for day in range(1, 29)]
    assert {chosen(moment) for moment in moments} == {"1", "2", "3"}
    second = Ledger(published.profile.ledger_url).entries(published.pipeline.name)[1]
    before = chosen(second.at)
    assert before in {"1", "2"}
    promote(published.toy, train(published.pipeline, datetime(2013, 3, 15, tzinfo=UTC), published.profile), entry_of(3))
    assert chosen(second.at) == before
    assert chosen(champions[0].as_of) is None
    with pytest.raises(ModelError, match=r"version 9: must name exactly one training run"):
        past_champion(published.pipeline, published.profile, NOW, "9")


def entry_of(version: int) -> Any:
    return SimpleNamespace(version=str(version))


def test_a_champion_that_comes_out_otherwise_is_an_error_and_on_record(
    published: Published, challenger: Challenger
) -> None:
    promote(published.toy, challenger)
    module = published.toy.folder / "code" / "toy_features.py"
    module.write_text(module.read_text() + "# a second edition\n")
    with pytest.raises(ModelError) as caught:
        require_identical(published.pipeline, lineage(published, challenger), published.profile)
    assert "version 1" in str(caught.value) and challenger.digest[:12] in str(caught.value)
    assert "Other files: airworthy.json. Not as it was: the module of toy_features:features: SHA-256" in str(
        caught.value
    )
    (told,) = set(tags(published, "1"))
    assert told == f"not identical (airworthy.json) {datetime.now(UTC):%Y-%m-%d}"


def test_a_champion_whose_rows_are_gone_is_an_error_and_on_record(published: Published, challenger: Challenger) -> None:
    promote(published.toy, challenger)
    published.publish(MONTHS[1], published.changed(MONTHS[1]))
    (file,) = published.store.scan("features", partitions=[MONTHS[1]], version=challenger.features.version).files
    (Path(published.store.uri("features")) / file).unlink()
    with pytest.raises(Problems):
        require_identical(published.pipeline, lineage(published, challenger), published.profile)
    (told,) = set(tags(published, "1"))
    assert told is not None and told.startswith("impossible: features[2013-02-01], version ")


def test_the_command_names_what_is_identical(
    published: Published, challenger: Challenger, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    promote(published.toy, challenger)
    profile = published.profile
    places = {"AIRWORTHY_LEDGER_URL": profile.ledger_url, "MLFLOW_TRACKING_URI": profile.mlflow_uri}
    places |= {"AIRWORTHY_SERVING_URL": profile.serving_url, "AIRWORTHY_AIRFLOW_URL": profile.airflow_url}
    for name, value in {**places, "AIRWORTHY_HOME": str(published.toy.folder)}.items():
        monkeypatch.setenv(name, value)
    assert cli.main(["rebuild", published.pipeline.name, "1"]) == 0
    told = capsys.readouterr().out
    assert f"identical: {challenger.digest}" in told and "  model.ubj: identical\n" in told
    assert "into" not in told
    kept = published.toy.folder / "kept"
    assert cli.main(["rebuild", published.pipeline.name, "1", "--to", str(kept)]) == 0
    assert digest_of(kept) == challenger.digest
