"""What the copy of a pipeline declares, and where its files are."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import yaml

from airworthy.config import Pipeline, load_pipeline
from airworthy.contracts.file import contract_file
from airworthy.errors import ConfigError
from airworthy.gameday import SUFFIX
from airworthy.pages import write_whole
from airworthy.profile import Profile, home

LIMIT_MS = 50  # of the gate `latency` that a copy is lent
_LONGEST = 50  # of a pipeline's name
_PLACES = {
    "store_uri": "${AIRWORTHY_HOME}/store",
    "reports_dir": "${AIRWORTHY_HOME}/reports",
    "mlflow_uri": "${MLFLOW_TRACKING_URI}",
    "ledger_url": "${AIRWORTHY_LEDGER_URL}",
    "serving_url": "http://127.0.0.1:1",
    "airflow_url": "http://127.0.0.1:1",
}


def name_of(pipeline: str) -> str:
    """Returns the name of a pipeline's copy, which is no longer than a name may be."""
    if len(pipeline) + len(SUFFIX) <= _LONGEST:
        return pipeline + SUFFIX
    mark = hashlib.sha256(pipeline.encode()).hexdigest()[:8]
    return f"{pipeline[: _LONGEST - len(SUFFIX) - len(mark) - 1]}_{mark}{SUFFIX}"


def folder_of(pipeline: str) -> Path:
    """Returns the folder that holds all files of a pipeline's copy."""
    return home() / "game_day" / name_of(pipeline)


def places(name: str, folder: Path, profile: Profile) -> Profile:
    """Returns where a copy's tables, pages and ledger are: in its folder, and in a schema of its own on PostgreSQL."""
    url = sa.make_url(profile.ledger_url)
    own = f"sqlite:///{folder}/ledger.db"
    if url.get_backend_name() == "postgresql":
        own = url.update_query_dict({"options": f"-csearch_path={name}"}).render_as_string(hide_password=False)
    return profile.model_copy(
        update={
            "store_uri": str(folder / "store"),
            "reports_dir": folder / "reports",
            "ledger_url": own,
            "tuning_url": "",
            "serving": profile.serving.model_copy(update={"workers": 1}),
        }
    )


def declare(pipeline: Pipeline, folder: Path, profile: Profile) -> list[str]:
    """Leaves the copy's files of pipeline, contract and profile in its folder; returns what it was lent.

    Raises:
        ConfigError: The pipeline has views, whose tables and stores are not copied.
    """
    if pipeline.views:
        raise ConfigError(f"{pipeline.name}: game day", "must have no views, which are not copied", [*pipeline.views])
    name, lent = name_of(pipeline.name), list[str]()
    declared = pipeline.model_dump(mode="json", exclude={"name", "wait", "end", "backtest", "capture", "tune"})
    declared |= {
        "source": {"files": {"glob": f"{folder}/source/{{partition}}.parquet"}},
        "engine": "local",
        "tune": {"trials": 1},
        "capture": {"share": 0},
        "target": {"serving": {"timeout": 120}},
    }
    declared["alerts"], told = _alerts(declared["alerts"])
    lent += told
    if not any("latency" in gate and {"p50_ms", "p99_ms"} & _set(gate["latency"]) for gate in declared["gates"]):
        declared["gates"].append({"latency": {"p99_ms": LIMIT_MS}})
        lent.append(f"gate latency: the pipeline limits neither p50_ms nor p99_ms, so its copy was lent {LIMIT_MS} ms")
    write(folder, name, declared)
    _write_profile(folder, profile)
    _copy_contract(pipeline, folder, name)
    return lent


def write(folder: Path, name: str, declared: dict[str, Any]) -> Pipeline:
    """Returns the copy's pipeline once its file says this."""
    file = folder / "config" / "pipelines" / f"{name}.yaml"
    write_whole(file, yaml.safe_dump(declared, sort_keys=False, allow_unicode=True))
    return load_pipeline(file)


def read(folder: Path, name: str) -> dict[str, Any]:
    """Returns what the copy's file says."""
    found: dict[str, Any] = yaml.safe_load((folder / "config" / "pipelines" / f"{name}.yaml").read_text())
    return found


def _set(gate: dict[str, Any]) -> set[str]:
    return {key for key, value in gate.items() if value is not None}


def _alerts(declared: dict[str, Any] | None) -> tuple[dict[str, Any], list[str]]:
    """Returns the alerts of the copy, which reach its record and no person, and what it was lent."""
    if declared is None:
        return {}, ["alerts: the pipeline declares none, so nobody would be told; its copy was lent the default"]
    kept = {kind: response for kind, response in declared["respond"].items() if response == "retrain"}
    left = [f"{kind}: {response}" for kind, response in declared["respond"].items() if kind not in kept]
    told = [f"responses that replace the champion are tried by the fault bad_champion alone: {', '.join(left)}"]
    return {"on": list(declared["on"]), "respond": kept}, told if left else []


def _write_profile(folder: Path, profile: Profile) -> None:
    limits = profile.serving.model_dump(exclude={"token", "workers"})
    content = {**_PLACES, "serving": {**limits, "token": "${AIRWORTHY_SERVING_TOKEN:-}"}}
    write_whole(folder / "config" / "profiles" / "base.yaml", yaml.safe_dump(content))
    write_whole(folder / "config" / "profiles" / "local.yaml", "{}\n")


def _copy_contract(pipeline: Pipeline, folder: Path, name: str) -> None:
    file = contract_file(pipeline.name)
    if not file.exists():
        rule = "must exist, because a break of the schema is one against it"
        hint = f"Run {pipeline.name}.ingest, or `airworthy contract learn {pipeline.name}`"
        raise ConfigError(f"config/contracts/{file.name}", rule, hint=hint)
    content = yaml.safe_load(file.read_text(encoding="utf-8")) | {"pipeline": name}
    write_whole(folder / "config" / "contracts" / f"{name}.yaml", yaml.safe_dump(content, sort_keys=False))
