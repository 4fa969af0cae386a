"""The embedded stack: comes up on loopback only, keeps its state, and leaves nothing behind however it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from airworthy.airflow_api import AirflowApi, wait_for
from airworthy.errors import ServiceError
from airworthy.stack import Ports, free_ports, running_stack
from airworthy.stack.environment import MARKER
from airworthy.stack.processes import of_stack
from airworthy.stack.state import State


class Site:
    """One state folder with its own ports, and the command line run on it."""

    def __init__(self, folder: Path) -> None:
        # deeper than a Unix socket's path may be, and with what configuration files take for syntax
        self.home = folder / ("deep " * 10).strip() / ("100% " * 10).strip() / "%(here)s"
        self.ports = free_ports()
        self.config = folder / "config"
        (self.config / "pipelines").mkdir(parents=True)
        self.environment = {
            **os.environ,
            "AIRWORTHY_HOME": str(self.home),
            "AIRWORTHY_CONFIG": str(self.config),
            **{f"AIRWORTHY_{name.upper()}_PORT": str(port) for name, port in self.ports.model_dump().items()},
        }

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "airworthy.cli", *arguments],
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # a shell starts what it runs in the background deaf to Ctrl-C
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def run(self, *arguments: str, **environment: str) -> tuple[int, str]:
        with self.start(*arguments, **environment) as process:
            output, _ = process.communicate()
        return process.returncode, output

    def processes(self) -> list[psutil.Process]:
        return of_stack(State(self.home))

    def listening(self) -> set[tuple[str, int]]:
        ours = {process.pid for process in self.processes()}
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):  # a worker may end at any moment
                ours |= {child.pid for child in process.children(recursive=True)}
        sockets = psutil.net_connections(kind="inet")
        return {(s.laddr.ip, s.laddr.port) for s in sockets if s.status == psutil.CONN_LISTEN and s.pid in ours}

    def mlflow(self, call: str, body: dict[str, Any]) -> dict[str, Any]:
        return post(f"http://127.0.0.1:{self.ports.mlflow}/api/2.0/mlflow/{call}", body)


def post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return dict(json.load(answer))


def password_in(told: str) -> str:
    found = re.search(r"password (\S+)", told)
    assert found is not None, told
    return found[1]


def manager_of(site: Site) -> psutil.Process:
    return psutil.Process(int((site.home / "supervisord.pid").read_text()))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("site"))


@pytest.fixture(autouse=True)
def _nothing_left(site: Site) -> Iterator[None]:
    yield
    site.run("down")
    assert site.processes() == []


def test_up_is_healthy_on_loopback_only_and_down_leaves_nothing(site: Site) -> None:
    code, output = site.run("up")
    assert code == 0, output
    for component in ("postgres", "mlflow", "api-server", "scheduler", "dag-processor", "triggerer", "serving"):
        assert re.search(rf"{component} +healthy +\d", output), output

    assert site.listening() == {("127.0.0.1", port) for port in site.ports.model_dump().values()}

    login = {"username": "admin", "password": password_in(output)}
    assert post(f"http://127.0.0.1:{site.ports.airflow}/auth/token", login)["access_token"]

    code, output = site.run("status")
    assert code == 0, output
    assert output.count("healthy") == 7

    secret = json.loads((site.home / "secrets.json").read_text())["postgres"]
    for process in site.processes():
        with suppress(psutil.NoSuchProcess):  # a worker may end at any moment
            assert secret not in " ".join(process.cmdline())
    assert (site.home / "secrets.json").stat().st_mode & 0o077 == 0

    code, output = site.run("up")
    assert (code, "running already" in output) == (0, True), output

    site.mlflow("experiments/create", {"name": "kept"})
    code, output = site.run("down")
    assert (code, output.splitlines()[-1]) == (0, "Everything is down; the state is kept.")
    assert site.processes() == []
    assert site.run("down") == (0, "Nothing was running.\n")
    assert site.run("status")[0] == 1


SLEEPY = """
import os, subprocess
from airflow.sdk import dag, task

@dag
def sleepy():
    @task
    def sleep():
        child = subprocess.Popen(["sleep", "600"], start_new_session=True)
        with open(os.environ["PIDS"] + ".new", "w") as file:
            file.write(f"{os.getpid()} {child.pid}")
        os.rename(os.environ["PIDS"] + ".new", os.environ["PIDS"])
        child.wait()

    sleep()

sleepy()
"""


def test_sigterm_ends_a_foreground_stack_and_what_its_tasks_started_and_its_state_survives(
    site: Site, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "sleepy.py").write_text(SLEEPY)
    local = "airflow.dag_processing.bundles.local.LocalDagBundle"
    bundles = [{"name": "own", "classpath": local, "kwargs": {"path": str(tmp_path / "dags")}}]
    extra = {"AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(bundles), "PIDS": str(pids)}
    with site.start("up", "--foreground", **extra) as process:
        assert process.stdout is not None
        told = ""
        for line in process.stdout:
            told += line
            if line.startswith("Ctrl-C"):
                break
        found = site.mlflow("experiments/search", {"max_results": 10})
        airflow = AirflowApi(f"http://127.0.0.1:{site.ports.airflow}", "admin", password_in(told))
        wait_for("the DAG", lambda: "sleepy" in {d["dag_id"] for d in airflow.get("dags")["dags"]} or None, timeout=60)
        airflow.unpause("sleepy")
        airflow.trigger("sleepy")
        wait_for("the task", lambda: pids.exists() or None, timeout=60)
        task, child = (psutil.Process(int(pid)) for pid in pids.read_text().split())
        process.terminate()
        process.communicate()
    assert "kept" in {experiment["name"] for experiment in found["experiments"]}
    assert process.returncode == 128 + signal.SIGTERM
    assert site.processes() == []
    assert not task.is_running()
    assert not child.is_running()


def test_ctrl_c_while_starting_leaves_nothing(site: Site) -> None:
    with site.start("up") as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "postgres" in line:
                break
        assert site.processes()
        process.send_signal(signal.SIGINT)
        process.communicate()
    assert process.returncode == 130
    assert site.processes() == []


def test_a_killed_manager_is_cleaned_up_by_the_next_up_and_by_down(site: Site) -> None:
    with subprocess.Popen(["sleep", "600"], env={**os.environ, MARKER: "/another/clone"}) as stranger:
        assert site.run("up")[0] == 0
        manager_of(site).kill()
        orphans = site.processes()
        assert len(orphans) > 7

        code, output = site.run("up")
        assert code == 0, output
        assert "no manager was looking after" in output
        assert not [process for process in orphans if process.is_running()]

        manager_of(site).kill()
        assert site.run("down")[0] == 0
        assert site.processes() == []
        assert stranger.poll() is None, "another stack's process was ended"
        stranger.kill()


def test_a_taken_port_is_named_with_its_variable_and_holder_before_anything_starts(site: Site) -> None:
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", site.ports.mlflow))
        holder.listen()
        code, output = site.run("up", AIRWORTHY_POSTGRES_PORT="port")
        assert (code, output) == (
            1,
            "AIRWORTHY_POSTGRES_PORT: must be a port number from 1 to 65535. Got 'port'.\n",
        )
        code, output = site.run("up", AIRWORTHY_SERVING_PORT=str(site.ports.airflow))
        assert code == 1
        assert f"AIRWORTHY_SERVING_PORT: must differ from AIRWORTHY_AIRFLOW_PORT. Got '{site.ports.airflow}'." in output
        code, output = site.run("up")
    assert code == 1
    assert f"AIRWORTHY_MLFLOW_PORT: must be a free port for mlflow. Got {site.ports.mlflow}." in output
    assert f"held by process {os.getpid()} " in output
    assert "Starting" not in output


def test_a_component_that_cannot_start_is_named_with_the_end_of_its_log(tmp_path: Path) -> None:
    extra = {"AIRWORTHY_PROFILE": "nowhere"}
    said: list[str] = []
    with (
        pytest.raises(
            ServiceError, match=r"(?s)serving: must start\. Got .(fatal|exited), exit.*serving\.log:.*nowhere\.yaml"
        ),
        running_stack(tmp_path / "state", tmp_path, extra=extra, say=said.append),
    ):
        pytest.fail("it must not become healthy")
    assert said[-1] == "Nothing was running."
    assert of_stack(State(tmp_path / "state")) == []


def test_ports_default_and_come_from_the_environment() -> None:
    assert Ports.from_environment({}) == Ports(airflow=8080, mlflow=5000, serving=8081, postgres=5433)
    assert Ports.from_environment({"AIRWORTHY_MLFLOW_PORT": "5005"}).mlflow == 5005
