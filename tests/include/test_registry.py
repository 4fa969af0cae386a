from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow import MlflowClient

from airworthy.errors import ModelError, ServiceError
from airworthy.model_files import digest_of
from airworthy.registry import Challenger, Registry
from airworthy.stages.train import train
from airworthy.verdict import Verdict
from toy_pipeline import Toy

AS_OF = datetime(2013, 4, 1, tzinfo=UTC)


@pytest.fixture
def challenger(toy: Toy) -> Challenger:
    pipeline = toy.pipeline()
    toy.fill(pipeline, toy.rows())
    return train(pipeline, AS_OF, toy.profile)


@pytest.fixture
def registry(toy: Toy) -> Registry:
    return Registry(toy.profile)


def test_a_training_is_found_by_its_key(registry: Registry, challenger: Challenger) -> None:
    found = registry.find_training(challenger.pipeline, challenger.training_key)
    assert found == challenger.model_copy(update={"reused": True})
    assert registry.find_training(challenger.pipeline, "0" * 64) is None
    assert registry.find_training("never_trained", challenger.training_key) is None


def test_a_training_that_did_not_finish_is_not_taken_over(registry: Registry, challenger: Challenger) -> None:
    MlflowClient(registry.uri).set_terminated(challenger.run_id, "FAILED")
    assert registry.find_training(challenger.pipeline, challenger.training_key) is None
    assert registry.trainings(challenger.pipeline) == []


def test_registering_again_makes_no_second_version(registry: Registry, challenger: Challenger) -> None:
    first = registry.register(challenger)
    assert registry.register(challenger) == first == "1"
    assert registry.register(challenger.model_copy(update={"reused": True})) == first


def test_registering_from_many_places_at_once_makes_one_version(registry: Registry, challenger: Challenger) -> None:
    with ThreadPoolExecutor(4) as pool:
        versions = set(pool.map(lambda _: Registry(registry.uri).register(challenger), range(4)))
    assert len(versions) == 1
    found = MlflowClient(registry.uri).search_model_versions(f"name = '{challenger.pipeline}'")
    assert {version.version for version in found} == versions


def test_two_models_of_equal_trainings_have_a_version_each(
    toy: Toy, registry: Registry, challenger: Challenger
) -> None:
    MlflowClient(registry.uri).set_terminated(challenger.run_id, "FAILED")
    twin = train(toy.pipeline(), AS_OF, toy.profile)
    assert twin.training_key == challenger.training_key and twin.model_id != challenger.model_id
    both = [challenger, twin] * 3
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda one: Registry(registry.uri).register(one), both))
    versions = dict(zip((one.model_id for one in both), found, strict=True))
    assert found == [versions[one.model_id] for one in both] and len(set(versions.values())) == 2
    left = MlflowClient(registry.uri).search_model_versions(f"name = '{challenger.pipeline}'")
    assert {version.tags["model_id"]: version.version for version in left} == versions


def test_a_version_carries_what_its_gates_said(registry: Registry, challenger: Challenger) -> None:
    verdicts = [Verdict(gate="metric_floor", status="passed", reason="roc_auc 0.810 is not below the floor 0.700")]
    version = registry.register(challenger, verdicts)
    found = MlflowClient(registry.uri).get_model_version(challenger.pipeline, version)
    assert found.tags["gate.metric_floor"] == "passed: roc_auc 0.810 is not below the floor 0.700"
    assert found.tags["digest"] == challenger.digest
    assert found.tags["as_of"] == "2013-04-01T00:00:00+00:00"
    assert found.run_id == challenger.run_id
    verdicts = [Verdict(gate="metric_floor", status="failed", reason=said) for said in ("judged again", "of log_loss")]
    assert registry.register(challenger, verdicts) == version
    found = MlflowClient(registry.uri).get_model_version(challenger.pipeline, version)
    assert found.tags["gate.metric_floor"] == "failed: judged again"
    assert found.tags["gate.metric_floor.2"] == "failed: of log_loss"


def test_an_alias_moves_and_goes(registry: Registry, challenger: Challenger) -> None:
    assert registry.alias(challenger.pipeline, "champion") is None
    version = registry.register(challenger)
    assert registry.alias(challenger.pipeline, "champion") is None
    registry.set_alias(challenger.pipeline, "champion", version)
    assert registry.alias(challenger.pipeline, "champion") == version
    registry.set_alias(challenger.pipeline, "champion", None)
    assert registry.alias(challenger.pipeline, "champion") is None


def test_a_download_is_what_was_recorded(registry: Registry, challenger: Challenger, tmp_path: Path) -> None:
    assert digest_of(registry.download(challenger.model_id, tmp_path / "model")) == challenger.digest


def test_a_model_that_is_gone_is_named(registry: Registry, challenger: Challenger, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="model m-00000000000000000000000000000000: must be in MLflow"):
        registry.download("m-" + "0" * 32, tmp_path / "model")


def test_mlflows_users_find_the_model(
    registry: Registry, challenger: Challenger, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = registry.register(challenger)
    registry.set_alias(challenger.pipeline, "champion", version)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry.uri)
    booster = mlflow.xgboost.load_model(f"models:/{challenger.model_id}")
    row = pd.DataFrame({name: [0.0] for name in booster.feature_names})
    served = mlflow.pyfunc.load_model(f"models:/{challenger.pipeline}@champion").predict(row)
    assert served[0] == pytest.approx(booster.inplace_predict(row.to_numpy())[0])
    model = MlflowClient(registry.uri).get_logged_model(challenger.model_id)
    assert model.status == "READY"
    assert {metric.key: metric.value for metric in model.metrics} == pytest.approx(challenger.metrics)
    run = MlflowClient(registry.uri).get_run(challenger.run_id)
    assert [output.model_id for output in run.outputs.model_outputs] == [challenger.model_id]
    (used,) = run.inputs.dataset_inputs
    assert challenger.features.digest.startswith(used.dataset.digest)


def test_artifacts_come_back_as_stored(registry: Registry, challenger: Challenger) -> None:
    registry.store_artifacts(challenger.run_id, {"verdicts.json": b"[1]", "evidence/ab/holdout.bin": b"\0\1"})
    assert registry.load_json(challenger.run_id, "verdicts.json") == [1]
    assert registry.load_artifact(challenger.run_id, "evidence/ab/holdout.bin") == b"\0\1"
    assert registry.load_artifact(challenger.run_id, "evidence/ab/other.bin") is None
    assert registry.load_json(challenger.run_id, "nothing.json") is None


def test_a_run_has_an_address(registry: Registry, challenger: Challenger) -> None:
    assert challenger.run_id in registry.run_url(challenger.run_id)
    assert registry.run_url(challenger.run_id).startswith(registry.uri)


def test_a_request_mlflow_refuses_says_why(registry: Registry, challenger: Challenger) -> None:
    registry.register(challenger)
    with pytest.raises(ServiceError, match=f"MLflow at {registry.uri}.*not found") as caught:
        registry.set_alias(challenger.pipeline, "champion", "99")
    assert "must answer" not in str(caught.value)
