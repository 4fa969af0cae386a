"""From a model to its data and back, and what says that the data changed since."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from xml.etree import ElementTree

import pytest
from mlflow import MlflowClient

from airworthy import cli
from airworthy.errors import ModelError, ServiceError
from airworthy.lineage import Lineage, facts, lineages, of_run, of_version, uses
from airworthy.lineage.marks import STALE, up_to_date
from airworthy.lineage.page import page_path
from airworthy.lineage.picture import picture
from airworthy.registry import Challenger, Registry
from airworthy.stages.train import train
from published import MONTHS, Published
from serving_process import promote
from toy_pipeline import Toy

AS_OF = datetime(2013, 4, 1, tzinfo=UTC)
JANUARY, FEBRUARY, MARCH = MONTHS


@pytest.fixture
def published(toy: Toy) -> Published:
    found = Published(toy)
    for key in MONTHS:
        found.publish(key)
    return found


@pytest.fixture
def challenger(published: Published) -> Challenger:
    """A champion, version 1."""
    found = train(published.pipeline, AS_OF, published.profile, tags={"airflow.run_id": "manual__1"})
    promote(published.toy, found)
    return found


def marks(published: Published, challenger: Challenger) -> list[str | None]:
    """Returns the mark of the run and of its version."""
    client = MlflowClient(published.profile.mlflow_uri)
    version = client.get_model_version(challenger.pipeline, "1")
    return [client.get_run(challenger.run_id).data.tags.get(STALE), version.tags.get(STALE)]


def lineage(published: Published, challenger: Challenger) -> Lineage:
    return of_run(lineages(published.pipeline, published.profile), challenger.run_id)


def states(published: Published, challenger: Challenger) -> dict[str, str]:
    return {read.partition: read.state for read in lineage(published, challenger).reads}


def test_other_content_marks_run_and_version(published: Published, challenger: Challenger) -> None:
    assert marks(published, challenger) == [None, None]
    event = published.publish(FEBRUARY, published.changed(FEBRUARY), run="manual__2")
    assert states(published, challenger) == {JANUARY: "same", FEBRUARY: "changed", MARCH: "same"}
    for mark in marks(published, challenger):
        assert mark is not None
        assert mark.startswith("2013-02-01 changed from version 2 (version 4, ") and mark.endswith(" by manual__2)")
    assert (event["replaces"], event["version"], event["changed"]) == (2, 4, True)
    assert (event["stale_runs"], event["stale_versions"]) == ([challenger.run_id], ["1"])
    page = published.profile.reports_dir / page_path(published.pipeline, challenger.run_id)
    assert "2013-02-01 changed from version 2" in page.read_text()


def test_the_same_content_changes_nothing(
    published: Published, challenger: Challenger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airworthy.mlflow_server._ANSWER_WITHIN", 0.1)
    published.profile = published.profile.model_copy(update={"mlflow_uri": "http://127.0.0.1:1"})
    before = {table: published.store.version(table) for table in ("raw", "features")}
    event = published.publish(FEBRUARY)  # and MLflow is not asked, which is down
    assert {table: published.store.version(table) for table in before} == before
    assert not event["changed"] and "stale_runs" not in event
    assert marks(Published(published.toy), challenger) == [None, None]


def test_raw_rows_that_give_the_same_features_leave_models_as_they_are(
    published: Published, challenger: Challenger
) -> None:
    event = published.publish(FEBRUARY, published.rows.assign(note=1.0))
    assert (published.store.version("raw"), published.store.version("features")) == (4, 3)
    assert not event["changed"] and event["raw"]["version"] == 2
    assert states(published, challenger)[FEBRUARY] == "same"


def test_content_that_comes_back_takes_the_mark_off(published: Published, challenger: Challenger) -> None:
    published.publish(FEBRUARY, published.changed(FEBRUARY))
    assert None not in marks(published, challenger)
    event = published.publish(FEBRUARY)
    assert marks(published, challenger) == [None, None]
    assert (event["replaces"], event["stale_runs"], event["stale_versions"]) == (4, [], [])
    assert published.store.version("features") == 5
    assert set(states(published, challenger).values()) == {"same"}


def test_a_partition_that_comes_later_is_told_apart(toy: Toy) -> None:
    published = Published(toy)
    for key in (JANUARY, MARCH):
        published.publish(key)
    challenger = train(published.pipeline, AS_OF, published.profile)
    Registry(published.profile).register(challenger)
    event = published.publish(FEBRUARY)
    assert "stale_runs" not in event  # a partition's first rows do not ask MLflow
    assert states(published, challenger) == {JANUARY: "same", FEBRUARY: "added later", MARCH: "same"}
    up_to_date(published.pipeline, published.profile)  # as the next training or correction does
    assert str(marks(published, challenger)[0]).startswith("2013-02-01 added later (version 3, ")


def test_partitions_outside_the_intervals_do_not_count(published: Published, challenger: Challenger) -> None:
    published.rows = published.toy.rows(days=130).assign(note=0.0)
    published.publish("2013-04-01")
    published.publish("2013-04-01", published.changed("2013-04-01"))
    assert marks(published, challenger) == [None, None]
    assert list(states(published, challenger)) == list(MONTHS)


def test_a_task_that_ended_before_marking_marks_when_it_runs_again(
    published: Published, challenger: Challenger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airworthy.mlflow_server._ANSWER_WITHIN", 0.1)
    features = published.process(FEBRUARY, published.changed(FEBRUARY))
    down = published.profile.model_copy(update={"mlflow_uri": "http://127.0.0.1:1"})
    with pytest.raises(ServiceError, match=r"MLflow at http://127.0.0.1:1: must answer"):
        facts.of_features(published.pipeline, [features], down)
    assert marks(published, challenger) == [None, None]
    event = published.publish(FEBRUARY, published.changed(FEBRUARY), run="the retry")
    assert not event["changed"] and event["replaces"] is None
    assert event["stale_versions"] == ["1"]
    assert all(str(mark).endswith(" by backfill)") for mark in marks(published, challenger))


def test_a_version_registered_later_is_marked_too(published: Published) -> None:
    challenger = train(published.pipeline, AS_OF, published.profile)
    published.publish(FEBRUARY, published.changed(FEBRUARY))
    Registry(published.profile).register(challenger)
    assert marks(published, challenger)[1] is None
    told = facts.of_model(published.pipeline, challenger, published.profile)
    assert marks(published, challenger)[1] is not None
    assert told["stale"] == [FEBRUARY]


def test_a_write_between_reading_and_marking_is_marked_as_well(
    published: Published, challenger: Challenger, monkeypatch: pytest.MonkeyPatch
) -> None:
    published.process(FEBRUARY, published.changed(FEBRUARY))
    from airworthy.lineage import marks as module

    real, calls = module.lineages, []

    def slow(*arguments: object) -> list[Lineage]:
        found = real(*arguments)  # type: ignore[arg-type]
        if not calls:
            published.process(JANUARY, published.changed(JANUARY))
        calls.append(found)
        return found

    monkeypatch.setattr(module, "lineages", slow)
    up_to_date(published.pipeline, published.profile)
    assert len(calls) == 2
    assert "2013-01-01 changed" in str(marks(published, challenger)[0])


def test_a_model_leads_to_versions_and_files(published: Published, challenger: Challenger) -> None:
    published.publish(FEBRUARY, published.changed(FEBRUARY))
    found = of_version(lineages(published.pipeline, published.profile), "1")
    assert found.run.run_id == challenger.run_id
    assert [read.part for read in found.reads] == ["window", "window", "holdout"]
    for number, read in enumerate(found.reads, start=1):
        assert read.features is not None and read.raw is not None
        assert (read.features.version, read.raw.version) == (number, number)
        (origin,) = read.raw.facts["origins"]
        assert origin["name"] == str(published.file(read.partition)) and len(origin["version"]) == 64
    (period,) = found.champion
    assert (period.version, period.end, period.actor) == ("1", None, "test")


def test_a_file_leads_to_models(published: Published, challenger: Challenger) -> None:
    other = train(published.pipeline, datetime(2013, 3, 1, tzinfo=UTC), published.profile)
    published.publish(MARCH, published.changed(MARCH))
    found = lineages(published.pipeline, published.profile)
    first, second = uses(published.pipeline, published.profile, found, partition=MARCH)
    assert [write.version for write in (first.raw, *first.features)] == [3, 3]
    assert [one.run.run_id for one in first.lineages] == [challenger.run_id]
    assert [write.version for write in (second.raw, *second.features)] == [4, 4]
    assert second.lineages == ()
    for name in ("2013-03-01.parquet", str(published.file(MARCH)), "*03-01*"):
        assert uses(published.pipeline, published.profile, found, origin=name) == [first, second]
    (january,) = uses(published.pipeline, published.profile, found, origin="2013-01-01.parquet")
    assert {one.run.run_id for one in january.lineages} == {challenger.run_id, other.run_id}
    assert uses(published.pipeline, published.profile, found, origin="1.parquet") == []


def test_events_say_what_the_tables_say(published: Published, challenger: Challenger) -> None:
    event = published.publish(FEBRUARY, published.changed(FEBRUARY))
    write = published.store.history("features")[-1]
    raw = published.store.history("raw")[-1]
    assert {name: event[name] for name in ("partition", "version", "digest", "rows")} == write.model_dump(
        include={"partition", "version", "digest", "rows"}
    )
    assert event["raw"] == {"version": raw.version, "digest": raw.digest}
    (origin,) = raw.facts["origins"]
    assert event["origins"] == [{"name": origin["name"], "version": origin["version"]}]
    assert event["origins_count"] == 1
    model = facts.of_model(published.pipeline, challenger, published.profile)
    assert model["features"] == challenger.features.model_dump()
    assert (model["run_id"], model["partitions"]) == (challenger.run_id, 3)
    assert model["window"] == ["2013-01-01T00:00:00+00:00", "2013-03-01T00:00:00+00:00"]
    json.dumps([event, model])


def test_the_picture_shows_every_partition_and_takes_no_name_for_markup(
    published: Published, challenger: Challenger
) -> None:
    published.publish(FEBRUARY, published.changed(FEBRUARY))
    found = lineage(published, challenger)
    read = found.reads[0]
    assert read.raw is not None
    hostile = read.raw.model_copy(update={"facts": {"origins": [{"name": "<b>&.csv", "version": "1"}]}})
    drawn = ElementTree.fromstring(
        picture(found.model_copy(update={"reads": (read.model_copy(update={"raw": hostile}), *found.reads[1:])}))
    )
    titles = [title.text for title in drawn.iter("{http://www.w3.org/2000/svg}title")]
    assert titles == [f"{JANUARY}: window, same", f"{FEBRUARY}: window, changed", f"{MARCH}: holdout, same"]
    texts = [text.text for text in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert "<b>&.csv" in texts and "stale: 1 partition" in texts


def test_a_moment_within_an_hour_is_not_lost(published: Published) -> None:
    as_of = datetime(2013, 4, 1, 12, 30, 15, 5, tzinfo=UTC)
    found = lineage(published, train(published.pipeline, as_of, published.profile))
    assert found.run.holdout[1] == datetime(2013, 3, 31, 12, 30, 15, 5, tzinfo=UTC)


@pytest.fixture
def command(published: Published, challenger: Challenger, monkeypatch: pytest.MonkeyPatch) -> Published:
    profile = published.profile
    values = {name: str(value) for name, value in profile.model_dump(exclude={"preload", "spark", "serving"}).items()}
    (published.toy.folder / "config" / "profiles").mkdir()
    (published.toy.folder / "config" / "profiles" / "base.yaml").write_text(json.dumps(values))
    (published.toy.folder / "config" / "profiles" / "local.yaml").write_text("{}")
    monkeypatch.setenv("AIRWORTHY_LEDGER_URL", profile.ledger_url)
    return published


def test_the_command_tells_a_person(
    command: Published, challenger: Challenger, capsys: pytest.CaptureFixture[str]
) -> None:
    command.publish(FEBRUARY, command.changed(FEBRUARY), run="manual__2")
    name = command.pipeline.name
    assert cli.main(["lineage", name]) == 0
    told = capsys.readouterr().out
    assert challenger.run_id in told and "stale: 1 changed" in told
    assert cli.main(["lineage", name, "--model-version", "1"]) == 0
    told = capsys.readouterr().out
    for expected in ("manual__1", "toy_features:features", "2013-02-01  window", "changed: version 4", ".parquet @ "):
        assert expected in told, told
    assert cli.main(["lineage", name, "--run", challenger.run_id[:8]]) == 0
    assert capsys.readouterr().out == told
    assert cli.main(["lineage", name, "--file", "2013-02-01.parquet"]) == 0
    told = capsys.readouterr().out
    assert "version 1 (run" in told and "to now, by test" in told and "none" in told


def test_the_command_tells_a_machine(
    command: Published, challenger: Challenger, capsys: pytest.CaptureFixture[str]
) -> None:
    name = command.pipeline.name
    assert cli.main(["lineage", name, "--model-version", "1", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["run"]["run_id"] == challenger.run_id
    assert [read["state"] for read in told["reads"]] == ["same"] * 3
    assert cli.main(["lineage", name, "--partition", MARCH, "--json"]) == 0
    (use,) = json.loads(capsys.readouterr().out)
    assert use["raw"]["version"] == 3 and use["lineages"][0]["champion"][0]["version"] == "1"


def test_what_is_not_there_is_named(command: Published, capsys: pytest.CaptureFixture[str]) -> None:
    name = command.pipeline.name
    assert cli.main(["lineage", name, "--model-version", "7"]) == 1
    assert "version 7: must name exactly one training run. Got '0 of them'. There are: 1" in capsys.readouterr().err
    assert cli.main(["lineage", name, "--partition", "2013-07-01"]) == 1
    assert "partition 2013-07-01: must be in raw" in capsys.readouterr().err
    with pytest.raises(ModelError):
        of_run(lineages(command.pipeline, command.profile), "no such run")
