"""The MLflow server: how it is reached, and what is said when it does not answer."""

from __future__ import annotations

import os
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

from airworthy.errors import ServiceError
from airworthy.profile import Profile

if TYPE_CHECKING:
    from mlflow import MlflowClient

_ANSWER_WITHIN = 10.0
_CLIENT_SETTINGS = {
    # By default MLflow retries for four minutes before it says that a server is down.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    # A task's log is no terminal.
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
_DOWN = ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE")  # what MLflow's client makes of a connection that fails

BACKTEST = "backtest"  # the tag of a run for a backtest: which runs its search may learn from


class MlflowServer:
    """One MLflow server, by a profile or its address."""

    def __init__(self, where: Profile | str) -> None:
        self.uri = (where if isinstance(where, str) else where.mlflow_uri).rstrip("/")

    @cached_property
    def client(self) -> MlflowClient:
        """MLflow's own client, which is imported and asks whether the server is there on first use."""
        self._ensure_reachable()
        for name, value in _CLIENT_SETTINGS.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient

        return MlflowClient(self.uri, self.uri)

    def require_answer(self, timeout: float = _ANSWER_WITHIN) -> None:
        """Returns if the server answers at once; what is no server, but a database, is not asked.

        Raises:
            ServiceError: It does not.
        """
        if self.uri.startswith("http"):
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=timeout).close()
            except OSError as error:
                raise self._down(error) from None

    def _ensure_reachable(self) -> None:
        deadline = time.monotonic() + _ANSWER_WITHIN
        while True:
            try:
                return self.require_answer()
            except ServiceError:
                if time.monotonic() + 1 > deadline:
                    raise
            time.sleep(1)

    def _down(self, error: Exception) -> ServiceError:
        hint = "Look at `make status`, start it with `make up`, then run this again"
        return ServiceError(f"MLflow at {self.uri}", "must answer", str(error), hint)

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Turns what MLflow's client raises into a ServiceError."""
        try:
            yield
        except ServiceError:
            raise
        except OSError as error:  # requests' exceptions are OSErrors
            raise self._down(error) from error
        except Exception as error:
            if type(error).__module__.partition(".")[0] != "mlflow":
                raise
            if getattr(error, "error_code", "INTERNAL_ERROR") in _DOWN:
                raise self._down(error) from error
            raise ServiceError(f"MLflow at {self.uri}", "must do what it is asked", str(error)) from error


def experiment_name(pipeline: str, *, backtest: bool) -> str:
    """Returns the name of the experiment for training runs; those of backtests have one of their own.

    So nobody who lists, reuses or marks the runs that may become champion comes across them.
    """
    return f"{pipeline}.backtest" if backtest else pipeline
