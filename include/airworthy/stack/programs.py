"""The components of a stack: what runs, after what, and how to see that it answers."""

from __future__ import annotations

import http.client
import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from airworthy.stack import postgres
from airworthy.stack.ports import HOST, Ports
from airworthy.stack.state import State

# True once a process that started at this moment answers.
Health = Callable[[datetime], bool]


@dataclass(frozen=True)
class Program:
    """One program of the process manager.

    Attributes:
        after: Components that must be healthy before this one starts.
        health: Tells whether it answers; None for a program that has done its work when it has ended.
        stop_wait: Seconds between the stop signal and SIGKILL.
        url: Where a person finds it.
    """

    name: str
    command: tuple[str, ...]
    after: tuple[str, ...] = ()
    health: Health | None = None
    stop_signal: str = "TERM"
    stop_wait: int = 5
    user: str | None = None
    url: str = ""


def programs(state: State, ports: Ports, stale: frozenset[str] = frozenset()) -> tuple[Program, ...]:
    """Returns every component of a stack.

    Args:
        state: The stack's folder.
        ports: Where the services listen.
        stale: The databases (airflow, mlflow) whose schema must be brought up to date first.
    """

    def after(database: str) -> tuple[str, ...]:
        return ("postgres", f"{database}-schema") if database in stale else ("postgres",)

    upgrades = [_upgrade(database, ports) for database in ("airflow", "mlflow") if database in stale]
    airflow = _airflow(ports, after("airflow"))
    mlflow = (*_module("mlflow"), "server", *_listen(ports.mlflow), "--workers", "1")
    serving = (*_module("airworthy.serving"), *_listen(ports.serving))
    return (
        _postgres(state, ports),
        *upgrades,
        *airflow,
        Program("mlflow", mlflow, after("mlflow"), _on(ports.mlflow, "/health"), url=_url(ports.mlflow)),
        Program("serving", serving, ("postgres",), _on(ports.serving, "/ping", _token()), url=_url(ports.serving)),
    )


def _postgres(state: State, ports: Ports) -> Program:
    return Program(
        "postgres",
        postgres.command(state, ports),
        health=lambda _: _accepts(state, ports),
        stop_signal="INT",  # ends sessions instead of waiting for them
        stop_wait=15,
        user=postgres.system_user(),
        url=f"postgresql://{HOST}:{ports.postgres}",
    )


def _airflow(ports: Ports, after: tuple[str, ...]) -> tuple[Program, ...]:
    def component(name: str, *options: str, stop_wait: int = 5) -> Program:
        health = partial(_beats, ports.airflow, name.replace("-", "_"))
        return Program(name, (*_module("airflow"), name, *options), after, health, stop_wait=stop_wait)

    server = (*_module("airflow"), "api-server")
    # What tasks talk to is built at its first request, which takes seconds; the first task should not wait for that.
    answers = _on(ports.airflow, "/execution/health")
    return (
        # LocalExecutor and the triggerer log to files that the API server reads itself: no log servers.
        component("scheduler", "--skip-serve-logs"),
        Program("api-server", server, after, answers, url=_url(ports.airflow)),
        component("dag-processor"),
        component("triggerer", "--skip-serve-logs", stop_wait=2),  # sits out 10 s after all its work is done
    )


def _module(name: str) -> tuple[str, ...]:
    return (sys.executable, "-P", "-m", name)


def _listen(port: int) -> tuple[str, ...]:
    return ("--host", HOST, "--port", str(port))


def _url(port: int) -> str:
    return f"http://{HOST}:{port}"


def _token() -> dict[str, str]:
    token = os.environ.get("AIRWORTHY_SERVING_TOKEN")
    return {"Authorization": f"Bearer {token}"} if token else {}


def _on(port: int, path: str, headers: Mapping[str, str] | None = None) -> Health:
    return lambda _: _answers(port, path, headers) is not None


def _upgrade(database: str, ports: Ports) -> Program:
    commands = {
        "airflow": (*_module("airflow"), "db", "migrate"),
        # The password comes from PGPASSFILE: a command line is for everyone to read.
        "mlflow": (
            *_module("mlflow"),
            "db",
            "upgrade",
            f"postgresql+psycopg2://postgres@{HOST}:{ports.postgres}/mlflow",
        ),
    }
    return Program(f"{database}-schema", commands[database], after=("postgres",))


def _accepts(state: State, ports: Ports) -> bool:
    import psycopg2

    try:
        psycopg2.connect(
            host=HOST, port=ports.postgres, user="postgres", password=state.secrets().postgres, dbname="ledger"
        ).close()
    except psycopg2.OperationalError:
        return False
    return True


def _beats(port: int, component: str, since: datetime) -> bool:
    """Tells whether Airflow has seen a heartbeat of this very process, not of one before it."""
    answer = _answers(port, "/api/v2/monitor/health")
    if answer is None:
        return False
    seen = json.loads(answer).get(component, {})
    beat = seen.get(f"latest_{component}_heartbeat")
    return seen.get("status") == "healthy" and beat is not None and datetime.fromisoformat(beat).astimezone(UTC) > since


def _answers(port: int, path: str, headers: Mapping[str, str] | None = None) -> bytes | None:
    # http.client, because it never asks a proxy about this machine's own addresses
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", path, headers=headers or {})
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return body if response.status == http.client.OK else None
