"""Proves in a fresh process that saved model files load and answer as they did in training.

`python -m airworthy.serving.check <folder> <digest> --pipeline <name>` prints one JSON line with the
fields of `evidence.Servable`, or exits with 1 and says on stderr what does not hold.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from airworthy.config import Pipeline, load_pipeline
from airworthy.errors import AirworthyError, ModelError
from airworthy.evidence import Servable
from airworthy.gates.servable import Servable as ServableGate
from airworthy.profile import pipelines_dir

TIMEOUT = 120.0


def check_in_fresh_process(folder: Path, digest: str, pipeline: str, timeout: float = TIMEOUT) -> Servable:
    """Returns what a new interpreter did with the model files: the proof that nothing of this process was needed.

    Raises:
        ModelError: The files are damaged, are not the ones of `digest`, or do not answer as recorded.
    """
    where = f"{pipeline}: model files"
    command = [sys.executable, "-m", __name__, str(folder), digest, "--pipeline", pipeline]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        raise ModelError(where, f"must answer their recorded requests within {timeout:.0f} s") from None
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise ModelError(where, "must load and answer in a fresh process", hint=last[0])
    return Servable(**json.loads(done.stdout.splitlines()[-1]))


def require_same_answers(pipeline: Pipeline, servable: Servable) -> None:
    """Returns if the recorded requests were answered as in training, within what the pipeline's own gate allows.

    Raises:
        ModelError: An answer differs by more.
    """
    allowed = next((gate for gate in pipeline.gates if isinstance(gate, ServableGate)), ServableGate()).tolerance
    if servable.largest_difference > allowed:
        rule = f"must answer the recorded requests as in training, within {allowed:g}"
        hint = "A feature's code or a library changed since; train again"
        raise ModelError(f"{pipeline.name}: model files", rule, servable.largest_difference, hint)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m airworthy.serving.check", description=__doc__)
    parser.add_argument("folder", type=Path, help="the model's folder")
    parser.add_argument("digest", help="SHA-256 the folder must have")
    parser.add_argument("--pipeline", required=True, help="the pipeline's name")
    given = parser.parse_args(arguments)
    try:
        servable = _check(given.folder, given.digest, given.pipeline)
    except AirworthyError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 1
    print(json.dumps(asdict(servable)))
    return 0


def _check(folder: Path, digest: str, pipeline: str) -> Servable:
    _import_xgboost_without_sklearn()
    from airworthy.model_files import load_model

    declared = load_pipeline(pipelines_dir() / f"{pipeline}.yaml")
    return load_model(folder, digest=digest, pipeline=declared).replay()


def _import_xgboost_without_sklearn() -> None:
    """Leaves xgboost imported without its scikit-learn interface, which a Booster does not use.

    That interface is four fifths of xgboost's import (1.0 s against 0.2 s), and this process runs in every
    training and every deploy.
    """
    if "sklearn" in sys.modules:
        return
    sys.modules["sklearn"] = None  # type: ignore[assignment]  # makes `import sklearn` raise ImportError
    try:
        import xgboost  # noqa: F401
    finally:
        del sys.modules["sklearn"]


if __name__ == "__main__":
    sys.exit(main())
