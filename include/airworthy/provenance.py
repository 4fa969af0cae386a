"""Which code and which libraries made a model."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from airworthy.profile import ROOT

_LIBRARIES = (
    "airworthy",
    "mlflow",
    "numpy",
    "optuna",
    "pandas",
    "pyarrow",
    "scikit-learn",
    "skops",
    "xgboost",
    "xgboost-cpu",
)


def environment() -> dict[str, str]:
    """Returns the machine, and the versions of Python and of the libraries that decide what a training gives."""
    found = {"python": platform.python_version(), "platform": platform.platform(), "processor": _processor()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def code_version() -> str:
    """Returns the commit of the checkout, `-dirty` when files differ from it; "" outside a checkout."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def _processor() -> str:
    """Returns what computes: libraries choose their arithmetic by it, and another order of a sum rounds otherwise."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return f"{next(names, platform.machine())}, {os.cpu_count()} cores"
