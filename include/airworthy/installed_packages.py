"""Importing this leaves MLflow's map of the installed packages built, for `preload`.

MLflow compares what a model requires with what is installed, each time one is saved. For that it reads the file lists
of all installed packages, which takes over a second, once per process; a process forked from this one has it done.
"""

from __future__ import annotations

from mlflow.utils.requirements_utils import warn_dependency_requirement_mismatches

warn_dependency_requirement_mismatches(["mlflow"])
