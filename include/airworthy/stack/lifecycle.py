"""Starts a stack, finds a running one, and takes it down."""

from __future__ import annotations

import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import NoReturn

from airworthy import profile
from airworthy.errors import ServiceError
from airworthy.ledger import Ledger
from airworthy.stack import postgres, processes
from airworthy.stack.environment import stack_environment
from airworthy.stack.health import bring_up
from airworthy.stack.manager import Manager, forget, launch, new_socket
from airworthy.stack.ports import HOST, Ports, free_ports, require_free
from airworthy.stack.programs import programs
from airworthy.stack.state import Running, State

Say = Callable[[str], None]


@dataclass(frozen=True)
class Stack:
    """A running stack, and how to talk to it.

    Attributes:
        environment: The whole environment its processes got; a process that talks to it needs the same.
    """

    home: Path
    ports: Ports
    password: str = field(repr=False)
    environment: dict[str, str] = field(repr=False)

    @property
    def airflow_url(self) -> str:
        return f"http://{HOST}:{self.ports.airflow}"

    @property
    def mlflow_url(self) -> str:
        return f"http://{HOST}:{self.ports.mlflow}"

    @property
    def serving_url(self) -> str:
        return f"http://{HOST}:{self.ports.serving}"


def up(
    say: Say = print,
    *,
    home: Path | None = None,
    config: Path | None = None,
    ports: Ports | None = None,
    extra: Mapping[str, str] | None = None,
) -> Stack:
    """Returns the stack once every component is healthy; one that runs already keeps its ports and settings.

    Args:
        say: Gets each line of progress.
        home: The state folder; AIRWORTHY_HOME by default.
        config: The folder with `pipelines/`; AIRWORTHY_CONFIG by default.
        ports: From the environment by default.
        extra: Environment variables on top of the stack's own.

    Raises:
        Problems: Ports are taken or malformed. Nothing was started.
        ServiceError: A component did not start. What was started for this call is down again.
    """
    state = State(home or profile.home())
    with state.locked(say):
        if (running := state.running) is not None and (manager := Manager(running.socket)).alive():
            say(f"The stack in {state.home} is running already.")
            known = manager.seen()
            declared = [p for p in programs(state, running.ports) if p.name in known]
            bring_up(manager, declared, state, say)
            return _stack(state, running)
        _take_down(state, say)
        wanted = ports or Ports.from_environment()
        require_free(wanted)
        say(f"Starting the stack in {state.home}")
        try:
            return _start(state, config or profile.config_dir(), wanted, dict(extra or {}), say)
        except BaseException:
            say("Taking everything down again.")
            _take_down(state, say)
            raise


def down(say: Say = print, *, home: Path | None = None) -> None:
    """Leaves no process of the stack, whether it was running, half dead or not there at all."""
    state = State(home or profile.home())
    if not state.home.exists():
        say("Nothing was running.")
        return
    with state.locked(say):
        if _take_down(state, say):
            say("Everything is down; the state is kept.")
        else:
            say("Nothing was running.")


def find(home: Path | None = None) -> Stack:
    """Returns the stack that runs on this state folder.

    Raises:
        ServiceError: None does.
    """
    state = State(home or profile.home())
    running = state.running
    if running is None or not Manager(running.socket).alive():
        raise ServiceError(f"stack in {state.home}", "must be running", hint="Start it with `make up`")
    return _stack(state, running)


@contextmanager
def running_stack(
    home: Path,
    config: Path | None = None,
    ports: Ports | None = None,
    extra: Mapping[str, str] | None = None,
    say: Say = print,
) -> Iterator[Stack]:
    """Yields a healthy stack, on free ports by default, and takes it down whatever ends the block."""
    with ending_signals_raise():
        try:
            yield up(say, home=home, config=config, ports=ports or free_ports(), extra=extra)
        finally:
            down(say, home=home)


@contextmanager
def ending_signals_raise() -> Iterator[None]:
    """Turns SIGTERM and SIGHUP into SystemExit within the block, so that `finally` runs as it does for Ctrl-C."""

    def leave(number: int, _: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _start(state: State, config: Path, ports: Ports, extra: dict[str, str], say: Say) -> Stack:
    shutil.rmtree(state.temporary, ignore_errors=True)
    state.prepare()
    socket = new_socket()
    state.running = Running(socket=socket, config=config, ports=ports, extra=extra)
    stack = _stack(state, state.running)
    state.admit([user.partition(":")[0] for user in stack.environment[_USERS].split(",")])
    postgres.prepare(state, ports)
    versions = {database: version(package) for database, package in _SCHEMAS.items()}
    declared = programs(state, ports, _stale(state, versions))
    manager = launch(state, declared, socket, stack.environment)
    bring_up(manager, declared, state, say)
    Ledger(stack.environment["AIRWORTHY_LEDGER_URL"]).create()
    state.schema_versions = versions
    return stack


def _stack(state: State, running: Running) -> Stack:
    environment = stack_environment(state, running.config, running.ports, running.extra)
    return Stack(state.home, running.ports, state.secrets().admin, environment)


_USERS = "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS"
_SCHEMAS = {"airflow": "apache-airflow-core", "mlflow": "mlflow"}


def _stale(state: State, versions: dict[str, str]) -> frozenset[str]:
    """Returns the databases whose schema may not be this version's; MLflow makes a new one by itself."""
    known = state.schema_versions
    stale = {name for name in versions if known.get(name) != versions[name]}
    return frozenset(stale if known else stale - {"mlflow"})


def _take_down(state: State, say: Say) -> bool:
    """Leaves no process of this stack; returns whether there was one."""
    with _undisturbed():
        running = state.running
        stopped = running is not None and Manager(running.socket).stop()
        ended = processes.end_all(state)
        if ended:
            say(f"Ended {ended} processes that no manager was looking after.")
        if running is not None:
            forget(running.socket)
            state.running = None
        return stopped or ended > 0


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Ignores Ctrl-C and its like within the block: a second one would leave half a stack behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
