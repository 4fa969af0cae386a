"""Where things are: the models behind `config/profiles/*.yaml`, chosen by AIRWORTHY_PROFILE."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from airworthy.errors import ConfigError, Problems
from airworthy.explain import explain

ROOT = Path(__file__).resolve().parents[2]

_VARIABLE = re.compile(r"\$\{([A-Z_]+)(?::-((?:[^${}]|\$\{[A-Z_]+\})*))?\}")


class Serving(BaseModel):
    """Who may ask the serving process, and how much of it at once.

    Attributes:
        token: What a request must carry as `Authorization: Bearer <token>`; "" asks for none.
        workers: Processes that answer on the one port.
        request_bytes: The longest body of a request.
        held_bytes: Of all bodies that one worker reads or scores at the same time.
        rows: The most rows of a request.
        requests: The most requests that one worker reads or scores at the same time.
        seconds: The longest time for reading a request, and for answering it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    token: SecretStr = SecretStr("")
    workers: int = Field(default=1, ge=1)
    request_bytes: int = Field(default=8_000_000, ge=1)
    held_bytes: int = Field(default=64_000_000, ge=1)
    rows: int = Field(default=10_000, ge=1)
    requests: int = Field(default=256, ge=1)
    seconds: float = Field(default=10, gt=0)

    def headers(self) -> dict[str, str]:
        """Returns what a request must carry to be let in."""
        token = self.token.get_secret_value()
        return {"Authorization": f"Bearer {token}"} if token else {}


class Profile(BaseModel):
    """Every place outside the process that a stage talks to.

    Attributes:
        tuning_url: The database that keeps the trials of a search; "" keeps them nowhere, and a search that is cut off
            begins again.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    store_uri: str
    reports_dir: Path
    mlflow_uri: str
    ledger_url: str
    tuning_url: str = ""
    serving_url: str
    airflow_url: str
    preload: tuple[str, ...] = ()
    spark: dict[str, str] = {}
    serving: Serving = Serving()


def home() -> Path:
    """Returns the folder that holds all runtime state."""
    return Path(os.environ.get("AIRWORTHY_HOME") or ROOT / ".airworthy").resolve()


def config_dir() -> Path:
    """Returns the folder with `pipelines/` and `profiles/`."""
    return Path(os.environ.get("AIRWORTHY_CONFIG") or ROOT / "config").resolve()


def pipelines_dir() -> Path:
    return config_dir() / "pipelines"


def load_profile(environment: Mapping[str, str] | None = None) -> Profile:
    """Returns the profile in force: `base.yaml`, overridden by `<AIRWORTHY_PROFILE>.yaml` (default local).

    Raises:
        ConfigError: The profile does not exist, or refers to a variable that is not set.
        Problems: Keys are missing or unknown.
    """
    env = {"AIRWORTHY_HOME": str(home()), **(os.environ if environment is None else environment)}
    name = env.get("AIRWORTHY_PROFILE", "local")
    folder = config_dir() / "profiles"
    if not (folder / "base.yaml").exists():
        folder = ROOT / "config" / "profiles"  # a project that keeps only its pipelines apart
    file = folder / f"{name}.yaml"
    where = f"config/profiles/{name}.yaml"
    if not file.exists():
        raise ConfigError(where, "must exist, because AIRWORTHY_PROFILE names it", name)
    content = {**_read(folder / "base.yaml"), **_read(file)}
    try:
        return Profile.model_validate({key: _expand(f"{where}: {key}", value, env) for key, value in content.items()})
    except ValidationError as error:
        raise Problems(where, explain(where, error)) from None


def _read(file: Path) -> dict[str, Any]:
    return yaml.safe_load(file.read_text(encoding="utf-8")) or {}


def _expand(where: str, value: Any, env: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _expand(f"{where}.{key}", held, env) for key, held in value.items()}
    if not isinstance(value, str):
        return value

    def replace(match: re.Match[str]) -> str:
        found = env.get(match[1], match[2])
        if found is None:
            hint = "Start the embedded stack with `make up`, or set it"
            raise ConfigError(where, f"needs the environment variable {match[1]}", hint=hint)
        return str(_expand(where, found, env))

    return _VARIABLE.sub(replace, value)
