"""Connections: where the services are that sources read from, and the credentials for them, by id only."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field

from airworthy.errors import ConfigError

# Airflow's connection types, and the SQLAlchemy drivers for them.
_DRIVERS = {"postgres": "postgresql+psycopg2", "postgresql": "postgresql+psycopg2"}
_AWS = {
    "region_name": "region",
    "endpoint_url": "endpoint_url",
    "aws_session_token": "session_token",
}


class Connection(BaseModel):
    """A resolved connection. Its secrets do not show when it is printed.

    Attributes:
        id: The id under which Airflow knows it.
        uri: A SQLAlchemy URL, if it is one of a database.
        options: What an object store needs: `access_key_id`, `secret_access_key`, `session_token`, `region`,
            `endpoint_url`. None of them means the machine's own credentials.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    uri: str = Field(default="", repr=False)
    options: Mapping[str, str] = Field(default={}, repr=False)


Connections = Callable[[str], Connection]


def from_environment(connection_id: str) -> Connection:
    """Returns the connection that `AIRFLOW_CONN_<ID>` holds, as Airflow reads it: a URI or JSON.

    Raises:
        ConfigError: It is not set, or neither of them.
    """
    variable = f"AIRFLOW_CONN_{connection_id.upper()}"
    value = os.environ.get(variable)
    if not value:
        hint = f"Define it in Airflow (Admin, Connections), or outside of Airflow in {variable}, as a URI or as JSON"
        raise ConfigError(f"connection {connection_id}", "must be defined", hint=hint)
    try:
        fields = json.loads(value) if value.lstrip().startswith("{") else _fields_of_uri(value)
        return from_fields(connection_id, **{**fields, "extra": _mapping(fields.get("extra"))})
    except (ValueError, TypeError) as error:  # whose text may quote the value, which has a password in it
        hint = 'e.g. postgres://user:password@host:5432/db, or {"conn_type": "aws", "extra": {"region_name": "..."}}'
        rule = f"must be a connection's URI or JSON ({type(error).__name__})"
        raise ConfigError(variable, rule, hint=hint) from None


def from_fields(
    connection_id: str,
    *,
    conn_type: str,
    host: str | None = None,
    login: str | None = None,
    password: str | None = None,
    schema: str | None = None,
    port: int | str | None = None,
    extra: Mapping[str, Any] | None = None,
    **_described: Any,
) -> Connection:
    """Returns the connection that the fields of one of Airflow's stand for."""
    extra = extra or {}
    if conn_type in ("aws", "s3"):
        given = {"access_key_id": login, "secret_access_key": password}
        given |= {name: extra.get(key) for key, name in _AWS.items()}
        return Connection(id=connection_id, options={name: str(value) for name, value in given.items() if value})
    from sqlalchemy import URL

    plain = {name: str(value) for name, value in extra.items() if isinstance(value, str | int | float)}
    if conn_type == "sqlite":
        url = URL.create("sqlite", database=host or schema, query=plain)
    else:
        driver = _DRIVERS.get(conn_type, conn_type)
        if driver == "redis":  # whose client takes the other options of TLS with TLS only
            driver = "rediss" if plain.pop("ssl", "").lower() == "true" else driver
            plain = {name: value for name, value in plain.items() if driver == "rediss" or name[:4] != "ssl_"}
        number = int(port) if port else None
        user = login or ("" if password else None)  # Redis has passwords without a user
        url = URL.create(driver, user, password or None, host or None, number, schema or None, plain)
    return Connection(id=connection_id, uri=url.render_as_string(hide_password=False))


def _fields_of_uri(value: str) -> dict[str, Any]:
    parts = urlsplit(value)
    if not parts.scheme:
        raise ValueError("there is no scheme")
    host, schema = unquote(parts.hostname or ""), unquote(parts.path[1:])
    extra = dict(parse_qsl(parts.query, keep_blank_values=True))
    return {
        "conn_type": parts.scheme.replace("-", "_"),
        "host": host,
        "login": unquote(parts.username or ""),
        "password": unquote(parts.password or ""),
        "schema": schema,
        "port": parts.port,
        "extra": json.loads(extra["__extra__"]) if "__extra__" in extra else extra,
    }


def _mapping(value: Any) -> Mapping[str, Any]:
    found = json.loads(value) if isinstance(value, str) and value else value or {}
    if not isinstance(found, dict):
        raise TypeError("extra must be a mapping")
    return found


def s3(connection: Connection | None) -> Any:
    """Returns pyarrow's file system for S3, with a connection's credentials or the machine's own."""
    from pyarrow.fs import S3FileSystem

    given = {**_own_places(), **({} if connection is None else connection.options)}
    address = urlsplit(given.get("endpoint_url", ""))
    named = {
        "access_key": given.get("access_key_id"),
        "secret_key": given.get("secret_access_key"),
        "session_token": given.get("session_token"),
        "region": given.get("region"),
        "endpoint_override": address.netloc,
        "scheme": address.scheme,
    }
    return S3FileSystem(
        **{name: value for name, value in named.items() if value}, connect_timeout=10, request_timeout=60
    )


def _own_places() -> dict[str, str]:
    """Returns what the environment says about S3, in the words of boto3, which Arrow does not know."""
    names = {
        "region": ("AWS_REGION", "AWS_DEFAULT_REGION"),
        "endpoint_url": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
    }
    found = {key: next(filter(None, map(os.environ.get, known)), None) for key, known in names.items()}
    return {key: value for key, value in found.items() if value}


def storage_options(connection: Connection | None) -> dict[str, str]:
    """Returns a connection's options as the `deltalake` package names them."""
    given = {} if connection is None else dict(connection.options)
    endpoint = given.pop("endpoint_url", "")
    found = {f"AWS_{name.upper()}": value for name, value in given.items()}
    if endpoint:
        found |= {"AWS_ENDPOINT_URL": endpoint, "AWS_ALLOW_HTTP": str(endpoint.startswith("http:")).lower()}
    return found
