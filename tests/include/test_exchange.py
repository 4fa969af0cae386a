"""A model version moves between two environments, each with an MLflow server, a ledger and tables of its own."""

from __future__ import annotations

import json
import os
import pickle
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from airworthy import card, cli
from airworthy.config import Pipeline
from airworthy.errors import ModelError, Problems, TrainError
from airworthy.exchange.archive import read, write
from airworthy.exchange.receiving import Import, import_version
from airworthy.exchange.sending import export_version
from airworthy.ledger import Entry, Ledger
from airworthy.lineage import lineages, of_run
from airworthy.lineage.marks import up_to_date
from airworthy.lineage.picture import picture
from airworthy.model_files import digest_of
from airworthy.profile import Profile
from airworthy.registry import Challenger, Registry
from airworthy.stages.decide import decide
from airworthy.stages.deploy import Release, deploy
from airworthy.stages.evaluate import evaluate, judge
from airworthy.stages.finished import finished
from airworthy.stages.rebuild import past_champion, rebuild
from airworthy.stages.train import train
from airworthy.targets import Target
from mlflow_process import mlflow_server
from serving_process import promote
from test_monitor import APRIL as PARTITION
from test_monitor import known, quiet
from test_train import TUNE
from toy_pipeline import Toy

MARCH, APRIL, MAY = (datetime(2013, month, 1, tzinfo=UTC) for month in (3, 4, 5))
GATES = [{"metric_floor": {"metric": "roc_auc", "floor": 0.6}}, {"beats_champion": {}}, "servable"]


class Answering(Target):
    def wait_until_live(self, entry: Entry, profile: Profile) -> str:
        return f"http://prod/{entry.version}"


@dataclass
class Side:
    """One environment."""

    toy: Toy
    pipeline: Pipeline

    @property
    def profile(self) -> Profile:
        return self.toy.profile

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(self.toy.mlflow_uri)

    def take(self, file: Path) -> Import:
        return import_version(self.pipeline, file, self.profile)

    def judged(self, run_id: str, as_of: datetime) -> Release:
        """Returns what the tasks of a training run that is given this run make of it."""
        challenger = finished(self.pipeline, run_id, as_of, self.profile)
        ledger = Ledger(self.profile.ledger_url)
        champion = ledger.champion_at(self.pipeline.name, challenger.as_of, besides=challenger.run_id)
        evaluation = evaluate(self.pipeline, challenger, champion, self.profile)
        verdicts = judge(self.pipeline, challenger, evaluation, self.profile)
        return deploy(self.pipeline, challenger, evaluation, verdicts, self.profile, "test")

    def contents(self) -> Any:
        """Returns all that its registry and its ledger say."""
        found = self.client.get_experiment_by_name(self.pipeline.name)
        runs = self.client.search_runs([found.experiment_id]) if found else []
        versions = self.client.search_model_versions(f"name = '{self.pipeline.name}'")
        return (
            {run.info.run_id: (run.info.status, run.data.to_dictionary()) for run in runs},
            {version.version: (version.run_id, version.tags, version.aliases) for version in versions},
            Ledger(self.profile.ledger_url).entries(self.pipeline.name),
        )


@pytest.fixture(scope="module")
def other_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow_of_prod")) as uri:
        yield uri


@pytest.fixture
def dev(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> Side:
    monkeypatch.setenv("AIRWORTHY_HOME", str(toy.folder / "home"))
    Ledger(toy.profile.ledger_url).create()
    pipeline = toy.pipeline(tune=TUNE)
    toy.fill(pipeline, toy.rows(days=59))
    return Side(toy, pipeline)


@pytest.fixture
def prod(dev: Side, other_uri: str, tmp_path: Path) -> Side:
    """Has rows of its own, until the end of May."""
    toy = Toy(tmp_path / "prod", other_uri, dev.toy.name)
    toy.folder.mkdir()
    Ledger(toy.profile.ledger_url).create()
    pipeline = toy.pipeline(gates=GATES)
    toy.fill(pipeline, toy.rows(days=151, seed=7))
    return Side(toy, pipeline.model_copy(update={"target": Answering()}))


@pytest.fixture
def champion(dev: Side) -> Challenger:
    """Version 1 of dev."""
    found = train(dev.pipeline, MARCH, dev.profile, tags={"airflow.run_id": "manual__1"})
    promote(dev.toy, found)
    return found


@pytest.fixture
def archive(dev: Side, champion: Challenger, tmp_path: Path) -> Path:
    file = tmp_path / "v1.zip"
    export_version(dev.pipeline, "1", dev.profile, file)
    return file


def source(side: Side, run_id: str, name: str) -> Any:
    return Registry(side.profile).load_json(run_id, f"source/{name}")


def test_a_version_arrives_with_all_that_is_on_record_of_it(
    dev: Side, prod: Side, champion: Challenger, tmp_path: Path
) -> None:
    judge(dev.pipeline, champion, evaluate(dev.pipeline, champion, None, dev.profile), dev.profile)
    archive = tmp_path / "judged.zip"
    export_version(dev.pipeline, "1", dev.profile, archive)
    found = prod.take(archive)
    assert (found.version, found.known, found.trained_here) == ("1", False, False)
    there, here = dev.client.get_run(champion.run_id), prod.client.get_run(found.run_id)
    assert here.info.status == "FINISHED"
    assert here.data.params == there.data.params and here.data.metrics == there.data.metrics
    trials = [
        [(p.step, p.value) for p in side.client.get_metric_history(run, "trial_roc_auc")]
        for side, run in ((dev, champion.run_id), (prod, found.run_id))
    ]
    assert trials[0] == trials[1] and len(trials[0]) == TUNE["trials"]
    for name in ("as_of", "window", "holdout", "digest", "features.function_digest", "code"):
        assert here.data.tags[name] == there.data.tags[name], name
    assert here.data.tags["source.registry"] == dev.toy.mlflow_uri
    assert (here.data.tags["source.version"], here.data.tags["source.run_id"]) == ("1", champion.run_id)
    version = prod.client.get_model_version(prod.pipeline.name, "1")
    assert version.run_id == found.run_id and version.tags["source.archive"] == here.data.tags["source.archive"]
    registry = Registry(prod.profile)
    imported = registry.imported(found.run_id)
    assert imported is not None
    assert digest_of(registry.download(imported.model_id, prod.toy.folder / "files")) == champion.digest
    for name in ("trials.json", "environment.json", "pipeline.json"):
        assert registry.load_artifact(found.run_id, name) == Registry(dev.profile).load_artifact(champion.run_id, name)
    assert source(prod, found.run_id, "challenger.json") == json.loads(champion.model_dump_json())
    (entry,) = source(prod, found.run_id, "ledger.json")
    assert (entry["action"], entry["version"], entry["digest"]) == ("promote", "1", champion.digest)
    assert source(prod, found.run_id, "lineage.json")["reads"][0]["partition"] == "2013-01-01"
    evaluation = source(prod, found.run_id, "artifacts/evaluation.json")
    folder = f"artifacts/evidence/{evaluation['evidence'][:12]}"
    assert {verdict["status"] for verdict in source(prod, found.run_id, f"{folder}/verdicts.json")} == {"passed"}
    assert registry.load_artifact(found.run_id, f"source/{folder}/holdout.parquet")
    # and nobody has judged it here, nor promoted it
    assert registry.load_artifact(found.run_id, "verdicts.json") is None
    assert Ledger(prod.profile.ledger_url).entries(prod.pipeline.name) == []
    assert registry.alias(prod.pipeline.name, "champion") is None and registry.trainings(prod.pipeline.name) == []


def test_the_same_version_is_the_same_archive(dev: Side, archive: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.zip"
    export_version(dev.pipeline, "1", dev.profile, again)
    assert again.read_bytes() == archive.read_bytes()
    with pytest.raises(ModelError, match="must be a new file"):
        export_version(dev.pipeline, "1", dev.profile, again)
    with pytest.raises(ModelError, match="version 7: must name exactly one"):
        export_version(dev.pipeline, "7", dev.profile, tmp_path / "v7.zip")
    assert sorted(file.name for file in tmp_path.glob("*.zip*")) == ["again.zip", "v1.zip"]


def test_importing_again_changes_nothing(prod: Side, archive: Path) -> None:
    first = prod.take(archive)
    before = prod.contents()
    again = prod.take(archive)
    assert again == first.model_copy(update={"known": True})
    assert prod.contents() == before


def test_importing_from_two_places_at_once_makes_one_run_and_one_version(prod: Side, archive: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(prod.take, [archive] * 3))
    assert len({(one.run_id, one.version) for one in found}) == 1
    runs, versions, _ = prod.contents()
    assert (len(runs), len(versions)) == (1, 1)


def test_the_receiving_side_judges_on_its_own_rows_and_then_promotes(
    dev: Side, prod: Side, champion: Challenger, archive: Path
) -> None:
    found = prod.take(archive)
    release = prod.judged(found.run_id, APRIL)
    assert (release.action, release.version) == ("promoted", found.version)
    (entry,) = Ledger(prod.profile.ledger_url).entries(prod.pipeline.name)
    assert (entry.as_of, entry.digest, entry.run_id) == (APRIL, champion.digest, found.run_id)
    registry = Registry(prod.profile)
    challenger = registry.challenger(found.run_id)
    assert challenger.holdout == (MARCH, datetime(2013, 3, 31, tzinfo=UTC))
    assert challenger.features.rows == 30 * 20
    verdicts = registry.load_json(found.run_id, "verdicts.json")
    assert [verdict["gate"] for verdict in verdicts] == ["metric_floor", "beats_champion", "servable"]
    assert source(prod, found.run_id, "challenger.json")["as_of"] == champion.as_of.isoformat().replace("+00:00", "Z")
    assert [one.run_id for one in registry.trainings(prod.pipeline.name)] == [found.run_id]
    decaying = prod.toy.pipeline(gates=GATES, retrain={"decay": {"tolerance": 0.1}, "drift": []})
    for value, cause in ((0.5, "decay"), (0.99, "")):  # of what it was scored here
        decision = decide(decaying, PARTITION, quiet(), [known({"roc_auc": value})], prod.profile, "test", record=False)
        assert decision.cause == cause, decision.reason
    page = card.publish(prod.pipeline, found.run_id, prod.profile).read_text()
    assert f"version 1 of {dev.toy.mlflow_uri}" in page and "2013-03-01 00:00 to 2013-03-31 00:00 UTC" in page


def test_it_replaces_a_champion_of_the_receiving_side_only_if_it_is_better(
    dev: Side, prod: Side, archive: Path
) -> None:
    own = train(prod.pipeline, APRIL, prod.profile)
    entry = promote(prod.toy, own)
    found = prod.take(archive)
    assert found.version == "2"
    release = prod.judged(found.run_id, MAY)  # it has seen two months where the champion has seen three
    assert release.action == "refused" and release.reason.startswith("beats_champion: ")
    assert Ledger(prod.profile.ledger_url).champion(prod.pipeline.name) == entry


def test_back_where_it_was_trained_it_is_the_same_version(
    dev: Side, prod: Side, champion: Challenger, archive: Path, tmp_path: Path
) -> None:
    found = prod.take(archive)
    assert prod.judged(found.run_id, APRIL).action == "promoted"
    back = tmp_path / "back.zip"
    manifest = export_version(prod.pipeline, found.version, prod.profile, back)
    assert manifest.registry == prod.toy.mlflow_uri and manifest.training_key == champion.training_key
    before = dev.contents()
    returned = dev.take(back)
    assert (returned.version, returned.run_id) == ("1", champion.run_id)
    assert returned.known and returned.trained_here
    assert dev.contents() == before
    again = prod.take(back)  # an archive of its own
    assert (again.version, again.run_id, again.known) == (found.version, found.run_id, True)


STEPS = (
    "create_run",
    "create_logged_model",
    "log_outputs",
    "log_model_artifacts",
    "finalize_logged_model",
    "log_batch",
    "log_artifacts",
    "log_artifact",
    "log_text",
    "set_terminated",
    "create_registered_model",
    "create_model_version",
    "set_logged_model_tags",
    "set_model_version_tag",
)


class Killed(BaseException):
    """What no `except Exception` catches."""


@pytest.mark.parametrize("after", [False, True])
def test_an_import_that_is_ended_anywhere_is_finished_by_the_next(
    prod: Side, archive: Path, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    for step in STEPS:
        original = getattr(MlflowClient, step)

        def killed(*arguments: Any, original: Any = original, **named: Any) -> None:
            if after:
                original(*arguments, **named)
            raise Killed

        with monkeypatch.context() as patched:
            patched.setattr(MlflowClient, step, killed)
            try:
                prod.take(archive)
            except Killed:
                continue
            assert after  # what was done before is not done again
    found = prod.take(archive)
    runs, versions, _ = prod.contents()
    assert {run: status for run, (status, _) in runs.items()} == {found.run_id: "FINISHED"}
    assert list(versions) == [found.version] and versions[found.version][1]["source.version"] == "1"
    experiment = prod.client.get_experiment_by_name(prod.pipeline.name)
    assert len(prod.client.search_logged_models([experiment.experiment_id])) == 1
    assert prod.judged(found.run_id, APRIL).action == "promoted"


def test_nothing_it_learnt_from_is_in_its_holdout(prod: Side, archive: Path) -> None:
    found = prod.take(archive)
    with pytest.raises(ModelError, match=r"as_of: must be 2013-03-01 00:00 or later, so that .* learnt from"):
        finished(prod.pipeline, found.run_id, datetime(2013, 2, 27, tzinfo=UTC), prod.profile)
    longer = prod.pipeline.model_copy(
        update={"train": prod.pipeline.train.model_validate({"holdout": "2 months"})}
    )  # its window would end before the model's own
    with pytest.raises(ModelError, match=r"as_of: must be 2013-04-01 00:00 or later"):
        finished(longer, found.run_id, datetime(2013, 3, 20, tzinfo=UTC), prod.profile)
    with pytest.raises(TrainError, match=r"must have labelled rows from 2014-01-01 00:00 to .* \(the holdout\)"):
        finished(prod.pipeline, found.run_id, datetime(2014, 2, 1, tzinfo=UTC), prod.profile)
    assert Registry(prod.profile).trainings(prod.pipeline.name) == []


def test_only_a_finished_run_of_the_pipeline_is_judged(dev: Side, prod: Side, champion: Challenger) -> None:
    own = finished(dev.pipeline, champion.run_id, MAY, dev.profile)
    assert own == champion.model_copy(update={"reused": True})  # as it is on record
    with pytest.raises(ModelError, match=rf"run {champion.run_id}: must be a finished training run of toy_"):
        finished(prod.pipeline, champion.run_id, MAY, prod.profile)
    dev.client.set_terminated(champion.run_id, "FAILED")
    with pytest.raises(ModelError, match=r"There are: none"):
        finished(dev.pipeline, champion.run_id, MAY, dev.profile)


def test_training_here_never_takes_over_what_was_imported(dev: Side, prod: Side, archive: Path) -> None:
    found = prod.take(archive)
    same = prod.toy.pipeline(tune=TUNE)
    prod.toy.fill(same, dev.toy.rows(days=59))
    trained = train(same, MARCH, prod.profile)
    assert trained.run_id != found.run_id and not trained.reused
    assert Registry(prod.profile).register(trained) == "2"


def test_lineage_tells_where_it_comes_from(
    dev: Side, prod: Side, champion: Challenger, archive: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    found = prod.take(archive)
    (lineage,) = up_to_date(prod.pipeline, prod.profile, found.run_id)
    assert lineage.run.source == f"version 1 of {dev.toy.mlflow_uri}" and lineage.reads == ()
    page = prod.profile.reports_dir / prod.pipeline.name / "lineage" / f"{found.run_id}.html"
    assert f"version 1 of {dev.toy.mlflow_uri}, run {champion.run_id}" in page.read_text()
    assert "Imported" in picture(lineage)
    profile = prod.profile
    places = {"AIRWORTHY_LEDGER_URL": profile.ledger_url, "MLFLOW_TRACKING_URI": profile.mlflow_uri}
    places |= {"AIRWORTHY_SERVING_URL": profile.serving_url, "AIRWORTHY_AIRFLOW_URL": profile.airflow_url}
    for name, value in places.items():
        monkeypatch.setenv(name, value)
    assert cli.main(["lineage", prod.pipeline.name, "--model-version", found.version]) == 0
    told = capsys.readouterr().out
    assert f"run {champion.run_id}" in told and "imported" in told and "2013-02-01  holdout" in told
    assert cli.main(["lineage", prod.pipeline.name]) == 0
    assert cli.main(["import", prod.pipeline.name, str(archive)]) == 0
    told = capsys.readouterr().out
    assert f"/api/v2/dags/{prod.pipeline.name}.train/dagRuns" in told and "as before" in told
    assert f'''-d '{{"logical_date": null, "conf": {{"mlflow_run": "{found.run_id}"}}}}\'''' in told
    assert cli.main(["export", prod.pipeline.name, "1", "--to", str(archive)]) == 1
    with pytest.raises(
        ModelError, match=r"must have been trained here\. Got 'an imported model'\. It is version 1 of "
    ):
        rebuild(prod.pipeline, lineage, prod.profile, prod.toy.folder / "rebuilt")
    assert prod.judged(found.run_id, APRIL).action == "promoted"
    assert past_champion(prod.pipeline, prod.profile, datetime.now(UTC)) is None
    assert of_run(lineages(prod.pipeline, prod.profile), found.run_id).champion[0].version == found.version


def forged(archive: Path, change: Callable[[Path], None], **said: Any) -> Path:
    """Returns an archive of the same format with other content, whose digests are right."""
    folder = Path(tempfile.mkdtemp(dir=archive.parent))
    manifest = read(archive, folder)
    change(folder)
    file = archive.parent / "forged.zip"
    write(file, manifest.model_copy(update={"digest": digest_of(folder / "model"), **said}), folder)
    return file


class Canary:
    def __reduce__(self) -> Any:
        return os.system, (f"touch {os.environ['AIRWORTHY_HOME']}/canary",)


def pickled(folder: Path) -> None:
    (folder / "model" / "model.ubj").write_bytes(pickle.dumps(Canary()))


def skops_of_a_pickle(folder: Path) -> None:
    contract = json.loads((folder / "model" / "airworthy.json").read_text())
    said = json.dumps(contract | {"kind": "sklearn", "file": "model.skops"})
    (folder / "model" / "airworthy.json").write_text(said)
    with zipfile.ZipFile(folder / "model" / "model.skops", "w") as file:
        tree = {
            "__class__": "system",
            "__module__": "os",
            "__loader__": "FunctionNode",
            "__id__": 1,
            "content": "os.system",
        }
        file.writestr("schema.json", json.dumps(tree | {"protocol": 2, "_skops_version": "0.13"}))


def unknown_kind(folder: Path) -> None:
    contract = json.loads((folder / "model" / "airworthy.json").read_text())
    (folder / "model" / "airworthy.json").write_text(json.dumps(contract | {"kind": "../../evil"}))


def other_intervals(folder: Path) -> None:
    """What it was not trained on, so that it would be judged on rows it knows."""
    said = json.loads((folder / "challenger.json").read_text())
    (folder / "challenger.json").write_text(json.dumps(said | {"as_of": "2013-01-01T00:00:00Z"}))


def without_record(folder: Path) -> None:
    (folder / "run.json").unlink()


def nonsense(folder: Path) -> None:
    (folder / "run.json").write_text('{"name": 7}')


FORGERIES: tuple[tuple[Callable[[Path], None], dict[str, str], str], ...] = (
    (pickled, {}, "model.ubj: must be an XGBoost model"),
    (skops_of_a_pickle, {}, "must be a scikit-learn model|must hold only trusted types"),
    (unknown_kind, {}, "must be of a known kind of model"),
    (other_intervals, {}, "as_of: must be the model's own"),
    (without_record, {}, "must hold run.json"),
    (nonsense, {}, "run.json: name must be text"),
    (lambda folder: None, {"pipeline": "another"}, r"must hold a model of toy_.* Got 'another'"),
    (lambda folder: None, {"digest": "0" * 64}, "model files: must have the recorded SHA-256 000000000000"),
)


def test_what_is_not_a_model_of_this_pipeline_leaves_nothing_behind(prod: Side, archive: Path) -> None:
    for change, said, told in FORGERIES:
        with pytest.raises((ModelError, Problems), match=told):
            prod.take(forged(archive, change, **said))
    assert prod.client.get_experiment_by_name(prod.pipeline.name) is None
    assert prod.contents() == ({}, {}, [])
    assert not (prod.toy.folder.parent / "home" / "canary").exists()


def test_a_model_of_another_task_is_refused(prod: Side, archive: Path) -> None:
    label = prod.pipeline.label.model_copy(update={"task": "regression"})
    with pytest.raises(ModelError, match=r"must hold a regression model, as the pipeline declares\. Got 'binary'"):
        import_version(prod.pipeline.model_copy(update={"label": label}), archive, prod.profile)


def test_what_mlflow_would_run_is_not_taken_from_the_archive(prod: Side, archive: Path) -> None:
    def loader(folder: Path) -> None:
        (folder / "model" / "MLmodel").write_text("flavors: {python_function: {loader_module: evil, code: code}}")
        (folder / "model" / "code").mkdir()
        (folder / "model" / "code" / "evil.py").write_text("raise SystemExit")

    found = prod.take(forged(archive, loader))
    challenger = Registry(prod.profile).imported(found.run_id)
    assert challenger is not None
    files = Registry(prod.profile).download(challenger.model_id, prod.toy.folder / "files")
    assert "loader_module: mlflow.xgboost" in (files / "MLmodel").read_text()
    assert not (files / "code").exists()
