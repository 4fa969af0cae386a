"""`airworthy export` and `airworthy import`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path

Environment = Callable[[], Mapping[str, str]]


def add(command: Callable[[str, object, str], argparse.ArgumentParser], environment: Environment) -> None:
    """Adds both commands.

    Args:
        command: Adds one.
        environment: Returns where the services are.
    """
    added = command(
        "export",
        lambda asked: _export(asked, environment()),
        "write a version with all that is on record of it to a file",
    )
    added.add_argument("pipeline", help="the pipeline's name")
    added.add_argument("version", help="a version in MLflow's registry, e.g. 3")
    added.add_argument("--to", required=True, type=Path, help="the new file")
    added = command(
        "import",
        lambda asked: _import(asked, environment()),
        "take a version from a file into the registry, to be judged",
    )
    added.add_argument("pipeline", help="the pipeline's name")
    added.add_argument("file", type=Path, help="what `airworthy export` wrote, here or elsewhere")
    added.add_argument("--most-bytes", type=int, help="how much it may hold; 2 GiB by default")
    added.add_argument(
        "--trust",
        action="store_true",
        help="let a class of your own read what it saved, by its own load()",
    )


def _export(asked: argparse.Namespace, environment: Mapping[str, str]) -> None:
    from airworthy.config import load_pipeline
    from airworthy.exchange.archive import sha256
    from airworthy.exchange.sending import export_version
    from airworthy.profile import load_profile, pipelines_dir

    pipeline = load_pipeline(pipelines_dir() / f"{asked.pipeline}.yaml")
    made = export_version(pipeline, asked.version, load_profile(environment), asked.to)
    size = asked.to.stat().st_size
    print(f"{asked.to}: {pipeline.name} version {made.version}, {len(made.files)} files, {size:,} bytes")
    print(f"model files {made.digest}")
    print(f"SHA-256     {sha256(asked.to)}")


def _import(asked: argparse.Namespace, environment: Mapping[str, str]) -> None:
    from airworthy.config import load_pipeline
    from airworthy.exchange.archive import MOST_BYTES
    from airworthy.exchange.receiving import import_version
    from airworthy.profile import load_profile, pipelines_dir

    pipeline = load_pipeline(pipelines_dir() / f"{asked.pipeline}.yaml")
    most_bytes = asked.most_bytes or MOST_BYTES
    profile = load_profile(environment)
    found = import_version(pipeline, asked.file, profile, most_bytes=most_bytes, trust=asked.trust)
    what = f"version {found.manifest.version} of {found.manifest.registry}"
    here = f"version {found.version} here, run {found.run_id}"
    if found.trained_here:
        print(f"{pipeline.name}: {what} was trained here: it is {here}")
        return
    print(f"{pipeline.name}: {what} is {here}{', as before' if found.known else ''}")
    print("The champion is the one it was. To let this side's gates judge it, and deploy it if they agree:")
    print(
        f'curl -s {profile.airflow_url}/api/v2/dags/{pipeline.name}.train/dagRuns -H "Authorization: Bearer $TOKEN" \\'
    )
    body = json.dumps({"logical_date": None, "conf": {"mlflow_run": found.run_id}})
    print(f"    -H 'Content-Type: application/json' -d '{body}'")
