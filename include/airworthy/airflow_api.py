"""A small client of Airflow's public REST API, for the demo, the benchmarks and the tests.

Source: Airflow's own OpenAPI document, served at `/docs` of the running API server.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, TypeVar

import httpx

from airworthy.errors import ServiceError

_PAGE = 100  # the most that Airflow gives at a time
ENDED = frozenset({"success", "failed"})

T = TypeVar("T")


class AirflowApi:
    """Talks to one Airflow as one user.

    Args:
        url: Where the API server answers, e.g. `http://127.0.0.1:8080`.
        user: The login name.
        password: Its password, exchanged once for a token.

    Raises:
        ServiceError: (from every method) Airflow cannot be reached, or refuses; its own words are in the message.
    """

    def __init__(self, url: str, user: str, password: str) -> None:
        self._http = httpx.Client(base_url=url, timeout=60, trust_env=False)  # no proxy for this machine
        token = self._send("POST", "/auth/token", json={"username": user, "password": password})["access_token"]
        self._http.headers["Authorization"] = f"Bearer {token}"

    def get(self, path: str, **params: Any) -> Any:
        return self._send("GET", f"/api/v2/{path}", params=params)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        return self._send("POST", f"/api/v2/{path}", json=body)

    def patch(self, path: str, body: dict[str, Any]) -> Any:
        return self._send("PATCH", f"/api/v2/{path}", json=body)

    def unpause(self, dag_id: str, paused: bool = False) -> None:
        self.patch(f"dags/{dag_id}", {"is_paused": paused})

    def wait_for_dags(self, *dag_ids: str, timeout: float = 120) -> None:
        """Returns once Airflow has read the files that declare these DAGs."""

        def known() -> bool | None:
            return set(dag_ids) <= {dag["dag_id"] for dag in self._all("dags", "dags")} or None

        wait_for(f"the DAGs {', '.join(dag_ids)}", known, timeout)

    def trigger(self, dag_id: str, run_id: str | None = None, **conf: Any) -> str:
        """Starts a run without a logical date; returns its run id."""
        body = {
            "logical_date": None,
            "conf": conf,
            **({"dag_run_id": run_id} if run_id else {}),
        }
        return str(self.post(f"dags/{dag_id}/dagRuns", body)["dag_run_id"])

    def backfill(self, dag_id: str, first: datetime, last: datetime, **options: Any) -> int:
        """Starts a backfill as the UI's dialog does; returns its id."""
        body = {
            "dag_id": dag_id,
            "from_date": first.isoformat(),
            "to_date": last.isoformat(),
            "max_active_runs": 4,
            **options,
        }
        return int(self.post("backfills", body)["id"])

    def backfill_dates(self, dag_id: str, first: datetime, last: datetime, **options: Any) -> list[datetime]:
        """Returns the logical dates that a backfill would run for."""
        body = {"dag_id": dag_id, "from_date": first.isoformat(), "to_date": last.isoformat(), **options}
        found = self.post("backfills/dry_run", body)["backfills"]
        return [datetime.fromisoformat(one["logical_date"]) for one in found]

    def backfilling(self, dag_id: str) -> bool:
        """Tells whether Airflow has not yet marked a backfill of the DAG done, so that it refuses another."""
        return any(known["completed_at"] is None for known in self._all("backfills", "backfills", dag_id=dag_id))

    def run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        return dict(self.get(f"dags/{dag_id}/dagRuns/{run_id}"))

    def runs(self, dag_id: str, **filters: Any) -> list[dict[str, Any]]:
        return list(self._all(f"dags/{dag_id}/dagRuns", "dag_runs", **filters))

    def tasks(self, dag_id: str, run_id: str) -> dict[str, dict[str, Any]]:
        """Returns the task instances of a run by task id."""
        found = self.get(f"dags/{dag_id}/dagRuns/{run_id}/taskInstances")["task_instances"]
        return {task["task_id"]: task for task in found}

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value") -> Any:
        path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/{key}"
        return self.get(path, deserialize=True)["value"]

    def log(self, dag_id: str, run_id: str, task_id: str, attempt: int = 1) -> str:
        """Returns one attempt's log as text, exceptions with their messages, no stack trace."""
        found = self.get(
            f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{attempt}",
            full_content=True,
        )
        return "\n".join(text for line in found["content"] for text in _lines(line))

    def link(self, dag_id: str, run_id: str, task_id: str, name: str) -> str:
        """Returns where a link of a task leads, once Airflow knows; it is told after the task's state."""
        path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/links"
        return str(wait_for(f"link {name} of {task_id}", lambda: self.get(path)["extra_links"].get(name), timeout=60))

    def wait(self, dag_id: str, run_id: str, timeout: float = 300) -> dict[str, Any]:
        """Returns the run once it has ended, whatever its state."""

        def ended() -> dict[str, Any] | None:
            run = self.run(dag_id, run_id)
            return run if run["state"] in ENDED else None

        return wait_for(f"run {dag_id} {run_id}", ended, timeout)

    def wait_for_backfill(self, dag_id: str, timeout: float = 300) -> list[dict[str, Any]]:
        """Returns the DAG's backfill runs once all have ended; Airflow itself marks a backfill done 30 s later."""

        def ended() -> list[dict[str, Any]] | None:
            runs = self.runs(dag_id, run_type="backfill")
            return runs if runs and all(run["state"] in ENDED for run in runs) else None

        return wait_for(f"backfill of {dag_id}", ended, timeout, pause=1)

    def _all(self, path: str, key: str, **filters: Any) -> Iterator[dict[str, Any]]:
        """Yields what is on every page."""
        offset, total = 0, 1
        while offset < total:
            page = self.get(path, limit=_PAGE, offset=offset, **filters)
            yield from page[key]
            offset, total = offset + _PAGE, page["total_entries"]

    def _send(self, method: str, path: str, **request: Any) -> Any:
        where = f"{method} {self._http.base_url}{path}"
        try:
            response = self._http.request(method, path, **request)
        except httpx.HTTPError as error:
            raise ServiceError(where, f"Airflow must answer ({error})", hint="See `airworthy status`") from error
        if response.is_error:
            raise ServiceError(where, f"Airflow refused with {response.status_code}", _detail(response))
        return response.json() if response.content else None


def wait_for(what: str, ready: Callable[[], T | None], timeout: float, pause: float = 0.25) -> T:
    """Returns the first value of `ready()` that is not None.

    Raises:
        ServiceError: None came within `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while (found := ready()) is None:
        if time.monotonic() > deadline:
            raise ServiceError(what, f"must be done within {timeout:.0f} s")
        time.sleep(pause)
    return found


def _lines(line: Any) -> Iterator[str]:
    if isinstance(line, str):
        yield line
        return
    yield str(line.get("event", line))
    for error in line.get("error_detail") or ():
        yield f"{error['exc_type']}: {error['exc_value']}"


def _detail(response: httpx.Response) -> Any:
    try:
        return response.json().get("detail", response.text)
    except ValueError:
        return response.text
