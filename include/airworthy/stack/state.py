"""The folder that holds everything a stack keeps, and what is written there."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict

from airworthy.stack.ports import Ports


def _token() -> str:
    return secrets.token_urlsafe(32)


def _fernet_key() -> str:
    return base64.urlsafe_b64encode(os.urandom(32)).decode()


class Secrets(BaseModel):
    """What was generated for this stack at its first start; readable by its owner only."""

    model_config = ConfigDict(frozen=True)

    postgres: str
    admin: str
    api: str
    jwt: str
    fernet: str

    @classmethod
    def generate(cls) -> Self:
        return cls(postgres=_token(), admin=secrets.token_urlsafe(12), api=_token(), jwt=_token(), fernet=_fernet_key())


class Running(BaseModel):
    """How to reach a stack that has been started."""

    model_config = ConfigDict(frozen=True)

    socket: Path
    config: Path
    ports: Ports
    extra: dict[str, str] = {}


class State:
    """One stack's folder. Two folders are two stacks, which may run at once."""

    def __init__(self, home: Path) -> None:
        self.home = home.resolve()
        self.logs = self.home / "logs"
        self.postgres = self.home / "postgres"
        self.airflow = self.home / "airflow"
        self.artifacts = self.home / "mlflow" / "artifacts"
        self.temporary = self.home / "tmp"
        self.supervisor_config = self.home / "supervisord.conf"
        self.passwords = self.home / "airflow" / "passwords.json"
        self.pgpass = self.home / "pgpass"
        self._running = self.home / "running.json"
        self._schema = self.home / "schema.json"

    def prepare(self) -> None:
        """Leaves every folder in place, closed to other users: logs and data may hold what is private."""
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (self.logs, self.airflow, self.artifacts, self.temporary):
            folder.mkdir(parents=True, exist_ok=True)

    def log(self, component: str) -> Path:
        return self.logs / f"{component}.log"

    def secrets(self) -> Secrets:
        """Returns this stack's secrets, generated and stored at the first call."""
        file = self.home / "secrets.json"
        if not file.exists():
            write_private(file, Secrets.generate().model_dump_json(indent=1))
        return Secrets.model_validate_json(file.read_text())

    def admit(self, users: Sequence[str]) -> None:
        """Leaves a password for each user of Airflow, the one they had before if any."""
        known = json.loads(self.passwords.read_text()) if self.passwords.exists() else {}
        made = {user: known.get(user) or secrets.token_urlsafe(12) for user in users}
        write_private(self.passwords, json.dumps({**made, "admin": self.secrets().admin}))

    @property
    def running(self) -> Running | None:
        return Running.model_validate_json(self._running.read_text()) if self._running.exists() else None

    @running.setter
    def running(self, value: Running | None) -> None:
        if value is None:
            self._running.unlink(missing_ok=True)
        else:
            write_private(self._running, value.model_dump_json(indent=1))

    @property
    def schema_versions(self) -> dict[str, str]:
        """The library versions that the databases were last brought up to."""
        return dict(json.loads(self._schema.read_text())) if self._schema.exists() else {}

    @schema_versions.setter
    def schema_versions(self, versions: dict[str, str]) -> None:
        write_private(self._schema, json.dumps(versions))

    @contextmanager
    def locked(self, say: Callable[[str], None]) -> Iterator[None]:
        """Holds off every other `up` and `down` of this stack; a dead holder's lock is free."""
        self.prepare()
        with (self.home / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say("Another command is starting or stopping this stack; waiting for it.")
                fcntl.flock(file, fcntl.LOCK_EX)
            yield


def write_private(file: Path, text: str) -> None:
    """Leaves `file` with this text, readable by its owner only, or as it was."""
    unfinished = file.with_name(f"{file.name}.{os.getpid()}")
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
        stream.write(text)
    unfinished.replace(file)
