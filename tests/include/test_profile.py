from __future__ import annotations

from pathlib import Path

import pytest

from airworthy.errors import ConfigError, Problems
from airworthy.profile import ROOT, config_dir, home, load_profile, pipelines_dir

SERVICES = {
    "AIRWORTHY_HOME": "/state",
    "MLFLOW_TRACKING_URI": "http://127.0.0.1:5000",
    "AIRWORTHY_LEDGER_URL": "postgresql+psycopg2:///ledger",
    "AIRWORTHY_SERVING_URL": "http://127.0.0.1:8081",
    "AIRWORTHY_AIRFLOW_URL": "http://127.0.0.1:8080",
}


@pytest.fixture
def profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AIRWORTHY_CONFIG", str(tmp_path))
    folder = tmp_path / "profiles"
    folder.mkdir()
    (folder / "base.yaml").write_text((ROOT / "config" / "profiles" / "base.yaml").read_text())
    return folder


def test_the_local_profile_is_made_of_the_environment() -> None:
    found = load_profile(SERVICES)
    assert found.store_uri == "/state/store" and found.reports_dir == Path("/state/reports")
    assert found.mlflow_uri == "http://127.0.0.1:5000" and "great_expectations" in found.preload


def test_the_environment_can_move_the_store() -> None:
    assert load_profile({**SERVICES, "AIRWORTHY_STORE_URI": "s3://bucket/lake"}).store_uri == "s3://bucket/lake"


def test_a_variable_that_is_not_set_is_named() -> None:
    with pytest.raises(ConfigError) as raised:
        load_profile({key: value for key, value in SERVICES.items() if key != "MLFLOW_TRACKING_URI"})
    assert str(raised.value) == (
        "config/profiles/local.yaml: mlflow_uri: needs the environment variable MLFLOW_TRACKING_URI. "
        "Start the embedded stack with `make up`, or set it."
    )


def test_a_profile_overrides_single_keys(profiles: Path) -> None:
    (profiles / "cold.yaml").write_text("preload: []\n")
    found = load_profile({**SERVICES, "AIRWORTHY_PROFILE": "cold"})
    assert found.preload == () and found.store_uri == "/state/store"


def test_sparks_settings_may_come_from_the_environment(profiles: Path) -> None:
    (profiles / "cluster.yaml").write_text("spark: {spark.master: '${MASTER}'}\n")
    cluster = {**SERVICES, "AIRWORTHY_PROFILE": "cluster"}
    assert load_profile({**cluster, "MASTER": "spark://here:7077"}).spark == {"spark.master": "spark://here:7077"}
    with pytest.raises(
        ConfigError, match=r"cluster\.yaml: spark\.spark\.master: needs the environment variable MASTER"
    ):
        load_profile(cluster)


def test_every_wrong_key_of_a_profile_is_named(profiles: Path) -> None:
    (profiles / "odd.yaml").write_text("preload: 3\nstor_uri: x\n")
    with pytest.raises(Problems) as raised:
        load_profile({**SERVICES, "AIRWORTHY_PROFILE": "odd"})
    assert str(raised.value).splitlines() == [
        "config/profiles/odd.yaml: preload must be a list. Got 3.",
        "config/profiles/odd.yaml: stor_uri is not a known key. Check the spelling.",
    ]


def test_a_profile_that_does_not_exist_is_named() -> None:
    with pytest.raises(
        ConfigError, match=r"config/profiles/moon\.yaml: must exist, because AIRWORTHY_PROFILE names it"
    ):
        load_profile({**SERVICES, "AIRWORTHY_PROFILE": "moon"})


def test_a_project_without_profiles_uses_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRWORTHY_CONFIG", str(tmp_path))
    assert load_profile(SERVICES).store_uri == "/state/store"


def test_folders_follow_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRWORTHY_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("AIRWORTHY_CONFIG", str(tmp_path / "config"))
    assert (home(), config_dir()) == (tmp_path / "state", tmp_path / "config")
    assert pipelines_dir() == tmp_path / "config" / "pipelines"
    monkeypatch.delenv("AIRWORTHY_HOME")
    monkeypatch.delenv("AIRWORTHY_CONFIG")
    assert (home(), config_dir()) == (ROOT / ".airworthy", ROOT / "config")
