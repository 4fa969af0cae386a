"""The four loopback ports of a stack."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Annotated, Self

import psutil
from pydantic import BaseModel, ConfigDict, Field

from airworthy.errors import ConfigError, Problems, ServiceError

HOST = "127.0.0.1"

Port = Annotated[int, Field(ge=1, le=65535)]


class Ports(BaseModel):
    """Where each service of one stack listens, always on 127.0.0.1."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    airflow: Port = 8080
    mlflow: Port = 5000
    serving: Port = 8081
    postgres: Port = 5433

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """Returns the ports that AIRWORTHY_<NAME>_PORT ask for, with defaults for the rest.

        Raises:
            Problems: A value is not a port, or two services ask for the same one.
        """
        found = os.environ if environment is None else environment
        asked = {name: found.get(variable(name)) or field.default for name, field in cls.model_fields.items()}
        problems = [
            ConfigError(variable(name), "must be a port number from 1 to 65535", value)
            for name, value in asked.items()
            if not (str(value).isdecimal() and 1 <= int(value) <= 65535)
        ]
        taken: dict[str, str] = {}
        for name, value in asked.items():
            if (other := taken.setdefault(str(value), name)) != name:
                problems.append(ConfigError(variable(name), f"must differ from {variable(other)}", value))
        if problems:
            raise Problems("ports", problems)
        return cls.model_validate(asked)


def variable(name: str) -> str:
    """Returns the environment variable that sets one service's port."""
    return f"AIRWORTHY_{name.upper()}_PORT"


def free_ports() -> Ports:
    """Returns four ports that were free a moment ago."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in Ports.model_fields]
        for each in sockets:
            each.bind((HOST, 0))
        numbers = [each.getsockname()[1] for each in sockets]
    return Ports(**dict(zip(Ports.model_fields, numbers, strict=True)))


def require_free(ports: Ports) -> None:
    """Returns if every port can be listened on.

    Raises:
        Problems: Some are taken; each is named with its variable and whoever holds it.
    """
    problems = [
        ServiceError(
            variable(name),
            f"must be a free port for {name}",
            port,
            f"It is held by {_holder(port)}. Stop that, or set {variable(name)} to another port",
        )
        for name, port in ports.model_dump().items()
        if not _is_free(port)
    ]
    if problems:
        raise Problems("ports", problems)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do: TIME_WAIT is no obstacle
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _holder(port: int) -> str:
    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.AccessDenied:  # macOS shows other processes' sockets to root only
        connections = []
    for connection in connections:
        if connection.status == psutil.CONN_LISTEN and connection.laddr[1:2] == (port,) and connection.pid:
            try:
                command = " ".join(psutil.Process(connection.pid).cmdline())
            except psutil.Error:
                break
            return f"process {connection.pid} (`{command[:120]}`)"
    return "a process that this user may not see"
