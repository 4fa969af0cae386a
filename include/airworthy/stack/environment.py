"""The environment of every process of a stack, in one place."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from airworthy.profile import ROOT
from airworthy.stack.ports import HOST, Ports
from airworthy.stack.state import State

# Set for the stack's own processes and nobody else's, so that what a crash left behind can be told
# from a user's shell that merely exports AIRWORTHY_HOME.
MARKER = "AIRWORTHY_STACK"

_DROPPED = (
    "PYTHONDONTWRITEBYTECODE",  # imports without bytecode take two to five times as long
    "PYTHONHOME",
    "AIRFLOW_CONFIG",  # would replace the settings below by another Airflow's
    MARKER,
)


def stack_environment(
    state: State, config: Path, ports: Ports, extra: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Returns the whole environment for the stack's processes and for whoever talks to a running stack.

    Args:
        state: The stack's folder.
        config: The folder with `pipelines/`.
        ports: Where the services listen.
        extra: Overrides everything else.
    """
    inherited = {name: value for name, value in os.environ.items() if name not in _DROPPED}
    binaries = str(Path(sys.executable).parent)
    return {
        **inherited,
        "PATH": os.pathsep.join([binaries, inherited.get("PATH", os.defpath)]),
        "NO_PROXY": ",".join(filter(None, [HOST, "localhost", inherited.get("NO_PROXY")])),
        "no_proxy": ",".join(filter(None, [HOST, "localhost", inherited.get("no_proxy")])),
        **_process_settings(state),
        **_airworthy_settings(state, config, ports),
        **_mlflow_settings(state, ports),
        **_airflow_settings(state, ports),
        **(extra or {}),
    }


def database_url(state: State, ports: Ports, database: str) -> str:
    return f"postgresql+psycopg2://postgres:{state.secrets().postgres}@{HOST}:{ports.postgres}/{database}"


def _process_settings(state: State) -> dict[str, str]:
    return {
        "TMPDIR": str(state.temporary),
        "XDG_CONFIG_HOME": str(state.home / "settings"),
        "MPLCONFIGDIR": str(state.home / "settings" / "matplotlib"),
        "PGPASSFILE": str(state.pgpass),
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": "1",  # four tasks with a thread pool each on two cores are three times slower
        "OPENBLAS_NUM_THREADS": "1",
        "DO_NOT_TRACK": "true",  # MLflow does not take `1` for an answer
        "SPT_NOENV": "1",  # setproctitle would overwrite the marker that orphans are found by
    }


def _airworthy_settings(state: State, config: Path, ports: Ports) -> dict[str, str]:
    return {
        "AIRWORTHY_HOME": str(state.home),
        "AIRWORTHY_CONFIG": str(config.resolve()),
        "AIRWORTHY_PROFILE": os.environ.get("AIRWORTHY_PROFILE", "local"),
        "AIRWORTHY_LEDGER_URL": database_url(state, ports, "ledger"),
        "AIRWORTHY_AIRFLOW_URL": f"http://{HOST}:{ports.airflow}",
        "AIRWORTHY_SERVING_URL": f"http://{HOST}:{ports.serving}",
        **{f"AIRWORTHY_{name.upper()}_PORT": str(port) for name, port in ports.model_dump().items()},
    }


def _mlflow_settings(state: State, ports: Ports) -> dict[str, str]:
    return {
        "MLFLOW_TRACKING_URI": f"http://{HOST}:{ports.mlflow}",
        "MLFLOW_BACKEND_STORE_URI": database_url(state, ports, "mlflow"),
        "MLFLOW_ARTIFACTS_DESTINATION": str(state.artifacts),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # saves 20 s of start and 2 GB; nothing here uses it
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # by default a client waits four minutes for a dead server
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    }


def _airflow_settings(state: State, ports: Ports) -> dict[str, str]:
    return {
        "AIRFLOW_HOME": str(state.airflow),
        **{
            f"AIRFLOW__{section.upper()}__{key.upper()}": str(value)
            for section, settings in _airflow_sections(state, ports).items()
            for key, value in settings.items()
        },
    }


def _airflow_sections(state: State, ports: Ports) -> dict[str, dict[str, object]]:
    secrets = state.secrets()
    url = f"http://{HOST}:{ports.airflow}"
    return {
        "core": {
            "dags_folder": ROOT / "dags",
            "plugins_folder": ROOT / "plugins",
            "executor": "LocalExecutor",
            "parallelism": 4,  # forked at once at start
            "load_examples": False,
            "fernet_key": secrets.fernet,
            "execution_api_server_url": f"{url}/execution/",
            "dag_run_conf_overrides_params": True,  # REST and UI set typed params through conf
            "auth_manager": "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager",
            "simple_auth_manager_users": ",".join(["admin:admin", *_users()]),
            "simple_auth_manager_passwords_file": state.passwords,
        },
        # A worker takes this long to see that its task has ended; until then a skip is not recorded, its slot not free.
        "workers": {"min_heartbeat_interval": 1},
        "database": {"sql_alchemy_conn": database_url(state, ports, "airflow")},
        "api": {"host": HOST, "port": ports.airflow, "base_url": url, "workers": 1, "secret_key": secrets.api},
        "api_auth": {"jwt_secret": secrets.jwt},
        "scheduler": {
            "scheduler_idle_sleep_time": 0.25,
            "catchup_by_default": False,
            "orphaned_tasks_check_interval": 30,  # tasks that a `down` cut off go on soon after the next `up`
        },
        "dag_processor": {
            "refresh_interval": 5,
            "bundle_refresh_check_interval": 2,
            "min_file_process_interval": 20,  # a new pipeline file changes no DAG file, so this is when it is seen
            "parsing_processes": 1,
        },
        "logging": {"base_log_folder": state.logs / "tasks"},
        "usage_data_collection": {"enabled": False},
    }


def _users() -> list[str]:
    """Returns the users besides `admin`, as AIRWORTHY_USERS names them: `alice,bob:viewer`."""
    named = [user.strip() for user in os.environ.get("AIRWORTHY_USERS", "").split(",")]
    return [user if ":" in user else f"{user}:user" for user in named if user]
