"""Supervisor, the process manager: its configuration, its start, and talking to it."""

from __future__ import annotations

import configparser
import io
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import xmlrpc.client
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from airworthy.errors import ServiceError
from airworthy.stack.environment import MARKER
from airworthy.stack.programs import Program
from airworthy.stack.state import State

_STOP_PATIENCE = 60.0
_SERVICES = "services"  # stopped together; PostgreSQL, a group of its own, after them


@dataclass(frozen=True)
class Seen:
    """What the manager knows of one program."""

    state: str
    pid: int
    started: datetime
    exit_code: int

    @property
    def lives(self) -> bool:
        return self.state in {"STARTING", "RUNNING"}

    @property
    def failed(self) -> bool:
        return self.state == "FATAL" or (self.state == "EXITED" and self.exit_code != 0)

    @property
    def done(self) -> bool:
        return self.state == "EXITED" and self.exit_code == 0


class Manager:
    """Talks to the Supervisor behind one socket.

    Raises:
        ServiceError: (from every method) Nobody answers there.
    """

    def __init__(self, socket: Path) -> None:
        self.socket = socket

    def alive(self) -> bool:
        try:
            return bool(self._call("getState")["statecode"] >= 0)
        except ServiceError:
            return False

    def start(self, name: str) -> None:
        """Leaves the program starting; does not wait for it."""
        self._call("startProcess", _qualified(name), False)

    def seen(self) -> dict[str, Seen]:
        return {
            info["name"]: Seen(
                info["statename"], info["pid"], datetime.fromtimestamp(info["start"], UTC), info["exitstatus"]
            )
            for info in self._call("getAllProcessInfo")
        }

    def stop(self) -> bool:
        """Returns once all programs (PostgreSQL last) and then the manager have ended; False if it was not there."""
        try:
            process = psutil.Process(self._call("getPID"))
            self._call("shutdown")
        except (ServiceError, psutil.NoSuchProcess):
            return False
        psutil.wait_procs([process], timeout=_STOP_PATIENCE)
        return True

    def _call(self, method: str, *arguments: Any) -> Any:
        from supervisor.xmlrpc import SupervisorTransport

        transport = SupervisorTransport(serverurl=f"unix://{self.socket}")
        with xmlrpc.client.ServerProxy("http://127.0.0.1", transport) as server:
            try:
                return getattr(server.supervisor, method)(*arguments)
            except (OSError, xmlrpc.client.Error) as error:
                raise ServiceError("process manager", f"must answer `{method}`", str(error)) from None


def new_socket() -> Path:
    """Returns a path for a manager's socket in a new folder of this user's own."""
    # A path of ~100 characters is all a Unix socket may have, so it cannot be in a deep clone's state.
    return Path(tempfile.mkdtemp(prefix="airworthy-", dir="/tmp")) / "socket"


def launch(state: State, programs: Sequence[Program], socket: Path, environment: Mapping[str, str]) -> Manager:
    """Returns the manager of this stack, in a session of its own, with every program known and none started.

    Raises:
        ServiceError: It did not start; its own words are in the message.
    """
    state.supervisor_config.write_text(configuration(state, programs, socket))
    started = subprocess.run(
        [sys.executable, "-m", "supervisor.supervisord", "-c", str(state.supervisor_config)],
        env={**environment, MARKER: str(state.home)},
        cwd=state.home,
        capture_output=True,
        text=True,
    )
    manager = Manager(socket)
    deadline = time.monotonic() + 10
    while not manager.alive():
        if started.returncode != 0 or time.monotonic() > deadline:
            raise ServiceError("process manager", "must start", started.returncode, started.stderr.strip())
        time.sleep(0.05)
    return manager


def forget(socket: Path) -> None:
    """Leaves nothing of a manager's socket."""
    shutil.rmtree(socket.parent, ignore_errors=True)


def configuration(state: State, programs: Sequence[Program], socket: Path) -> str:
    """Returns Supervisor's configuration file. The environment is inherited, so no secret is in it.

    Paths are relative to the state folder, where it runs: Supervisor expands `%` in them a varying number of times.
    """
    sections: dict[str, dict[str, object]] = {
        "unix_http_server": {"file": socket, "chmod": "0600"},
        "rpcinterface:supervisor": {
            "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
        },
        "supervisord": {
            "logfile": state.log("manager").relative_to(state.home),
            "pidfile": "supervisord.pid",
            "childlogdir": state.logs.relative_to(state.home),
            **({"user": "root"} if os.geteuid() == 0 else {}),  # else it warns about running as root
        },
        f"group:{_SERVICES}": {"programs": ",".join(p.name for p in programs if p.name != "postgres")},
    }
    for program in programs:
        sections[f"program:{program.name}"] = _section(state, program)
    parser = configparser.RawConfigParser()
    parser.read_dict({name: {k: str(v).replace("%", "%%") for k, v in s.items()} for name, s in sections.items()})
    text = io.StringIO()
    parser.write(text)
    return text.getvalue()


def _section(state: State, program: Program) -> dict[str, object]:
    once = program.health is None
    return {
        "command": shlex.join(program.command),
        "priority": 1 if program.name == "postgres" else 999,
        "autostart": "false",
        "autorestart": "false" if once else "true",
        "startsecs": 0 if once else 10,  # imports take seconds, and a crash within them must count as a failed start
        "startretries": 2,
        "stopsignal": program.stop_signal,
        "stopwaitsecs": program.stop_wait,
        "stopasgroup": "false" if program.name == "postgres" else "true",
        "killasgroup": "true",
        "redirect_stderr": "true",
        "stdout_logfile": state.log(program.name).relative_to(state.home),
        "stdout_logfile_maxbytes": "20MB",
        "stdout_logfile_backups": 1,
        **({"user": program.user} if program.user else {}),
    }


def _qualified(name: str) -> str:
    return name if name == "postgres" else f"{_SERVICES}:{name}"
