"""Proves in a fresh process that saved model files load and answer as they did in training.

`python -m airworthy.serving.check <folder> <digest> --pipeline <name>` prints one JSON line with the
fields of `evidence.Measured`, or exits with 1 and says on stderr what does not hold.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from airworthy.config import Pipeline, load_pipeline
from airworthy.errors import AirworthyError, DataError, ModelError
from airworthy.evidence import Measured
from airworthy.gates.servable import Servable
from airworthy.profile import pipelines_dir

if TYPE_CHECKING:
    from airworthy.model_files import LoadedModel

TIMEOUT = 120.0
_NICENESS = 10  # a tenth of a busy processor: a deployment takes longer then, but comes to its end
_ROUNDS = 9
_TIMING = 1.0  # seconds of its own
_LONGEST = 4.0  # seconds that pass, on a machine that is busy with other things


class TooSlow(ModelError):
    """The model files did not answer in time; they may do so when less else is done on the machine."""


def check_in_fresh_process(
    folder: Path,
    digest: str,
    pipeline: str,
    timeout: float = TIMEOUT,
    *,
    timed: bool = False,
    background: bool = False,
) -> Measured:
    """Returns what a new interpreter did with the model files: the proof that nothing of this process was needed.

    Args:
        folder: The model's files.
        digest: What they must have.
        pipeline: Its name.
        timeout: Seconds.
        timed: Whether to time answers too, which takes about a second.
        background: Whether to leave the processors to others first, such as a service that answers meanwhile.

    Raises:
        ModelError: The files are damaged, are not the ones of `digest`, or do not answer as recorded.
        TooSlow: They do not answer within the timeout.
    """
    where = f"{pipeline}: model files"
    command = [sys.executable, "-m", __name__, str(folder), digest, "--pipeline", pipeline]
    command += ["--timed"] * timed + ["--background"] * background
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        hint = "This machine may be busy, or the model is slow to load"
        raise TooSlow(where, f"must answer their recorded requests within {timeout:.0f} s", hint=hint) from None
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise ModelError(where, "must load and answer in a fresh process", hint=last[0])
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def require_same_answers(pipeline: Pipeline, difference: float) -> None:
    """Returns if the recorded requests were answered as in training, within what the pipeline's own gate allows.

    Raises:
        ModelError: An answer differs by more.
    """
    allowed = next((gate for gate in pipeline.gates if isinstance(gate, Servable)), Servable()).tolerance
    if difference > allowed:
        rule = f"must answer the recorded requests as in training, within {allowed:g}"
        hint = "Its code, a feature's code or a library changed since; train again"
        raise ModelError(f"{pipeline.name}: model files", rule, difference, hint)


def require_own_code(pipeline: Pipeline, model: LoadedModel) -> LoadedModel:
    """Returns the model; one whose class was edited since its training once it proved to answer as it did then.

    Raises:
        ModelError: An answer to its recorded requests differs, or one of them cannot be answered any more.
    """
    if model.code_changed:
        try:
            require_same_answers(pipeline, model.replay().largest_difference)
        except (DataError, ModelError) as error:
            rule = "must answer as in training, but its code changed since"
            raise ModelError(f"{pipeline.name}: model files", rule, hint=str(error)) from error
    return model


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m airworthy.serving.check", description=__doc__)
    parser.add_argument("folder", type=Path, help="the model's folder")
    parser.add_argument("digest", help="SHA-256 the folder must have")
    parser.add_argument("--pipeline", required=True, help="the pipeline's name")
    parser.add_argument("--timed", action="store_true", help="also time answers to single requests")
    parser.add_argument("--background", action="store_true", help="leave the processors to others first")
    given = parser.parse_args(arguments)
    if given.background:
        os.nice(max(0, _NICENESS - os.nice(0)))  # who started it may have left the processors to others already
    try:
        measured = _check(given.folder, given.digest, given.pipeline, timed=given.timed)
    except AirworthyError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 1
    print(json.dumps(asdict(measured)))
    return 0


def _check(folder: Path, digest: str, pipeline: str, *, timed: bool) -> Measured:
    _import_xgboost_without_sklearn()
    from airworthy.model_files import load_model

    declared = load_pipeline(pipelines_dir() / f"{pipeline}.yaml")
    started = time.perf_counter()
    model = load_model(folder, digest=digest, pipeline=declared)
    loaded = time.perf_counter() - started
    found = replace(model.replay(), load_seconds=loaded)  # it also warms what the first request would wait for
    latencies = _latencies(model) if timed else []
    typical = sorted(statistics.median(seconds) * 1000 for seconds in latencies)
    return replace(
        found,
        timed=sum(map(len, latencies)),
        rounds=min(map(len, latencies), default=0),
        p50_ms=_percentile(typical, 0.5),
        p99_ms=_percentile(typical, 0.99),
        peak_megabytes=_peak_megabytes(),
        bytes=sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
    )


def _latencies(model: LoadedModel) -> list[list[float]]:
    """Returns by recorded request the seconds of its answers: the rounds that fit into the time for them.

    Time in which this process could run but had no processor counts not: other programs took it, not the model.
    """
    requests = model.requests()
    rows = [requests.iloc[[number]] for number in range(len(requests))]
    found: list[list[float]] = [[] for _ in rows]
    spent, end = 0.0, time.perf_counter() + _LONGEST
    for _ in range(_ROUNDS):
        for row, seconds in zip(rows, found, strict=True):
            queued, started = _queued(), time.perf_counter()
            model.predict_raw(row)
            seconds.append(max(0.0, time.perf_counter() - started - (_queued() - queued)))
            spent += seconds[-1]
            if spent > _TIMING or time.perf_counter() > end:
                return [seconds for seconds in found if seconds]
    return found


def _queued() -> float:
    """Returns the seconds this thread has waited for a processor so far; 0 where Linux does not count them."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text(encoding="ascii").split()[1]) / 1e9
    except OSError:
        return 0.0


def _percentile(ordered: Sequence[float], share: float) -> float:
    return ordered[math.ceil(share * len(ordered)) - 1] if ordered else 0.0


def _peak_megabytes() -> float:
    # Not getrusage, which goes on counting from what the process that started this one had used.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


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
