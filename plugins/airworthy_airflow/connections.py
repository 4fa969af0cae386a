"""Airflow's connections as sources take them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException

from airworthy import connections
from airworthy.connections import Connection, Connections
from airworthy.errors import ConfigError


def resolve(connection_id: str) -> Connection:
    """Returns a connection, in a task.

    Raises:
        ConfigError: Airflow does not know it.
    """
    try:
        return _translated(BaseHook.get_connection(connection_id))
    except AirflowNotFoundException:
        raise _unknown(connection_id) from None


async def resolve_all(connection_ids: Sequence[str]) -> Connections:
    """Returns what resolves these ids, in a trigger.

    Raises:
        ConfigError: Airflow does not know one of them.
    """
    import asyncio

    found = {}
    for connection_id in connection_ids:
        try:
            known = await BaseHook.aget_connection(connection_id)
        except AirflowNotFoundException:
            raise _unknown(connection_id) from None
        found[connection_id] = await asyncio.to_thread(_translated, known)
    return found.__getitem__


def _translated(found: Any) -> Connection:
    if found.conn_type in ("aws", "s3"):
        return _aws(found)
    return connections.from_fields(
        found.conn_id,
        conn_type=found.conn_type,
        host=found.host,
        login=found.login,
        password=found.password,
        schema=found.schema,
        port=found.port,
        extra=found.extra_dejson,
    )


def _aws(found: Any) -> Connection:
    """Returns what the Amazon provider makes of a connection: roles assumed, profiles read, the default chain asked."""
    from airflow.providers.amazon.aws.hooks.base_aws import BaseSessionFactory
    from airflow.providers.amazon.aws.utils.connection_wrapper import AwsConnectionWrapper

    wrapper = AwsConnectionWrapper(conn=found)
    session = BaseSessionFactory(conn=wrapper).create_session()
    known = session.get_credentials()
    frozen = None if known is None else known.get_frozen_credentials()
    options = {
        "access_key_id": frozen and frozen.access_key,
        "secret_access_key": frozen and frozen.secret_key,
        "session_token": frozen and frozen.token,
        "region": session.region_name,
        "endpoint_url": wrapper.get_service_endpoint_url("s3"),
    }
    return Connection(id=found.conn_id, options={name: value for name, value in options.items() if value})


def _unknown(connection_id: str) -> ConfigError:
    variable = f"AIRFLOW_CONN_{connection_id.upper()}"
    hint = f"Define it in Airflow (Admin, Connections), or in the environment as {variable}"
    return ConfigError(f"connection {connection_id}", "must be defined", hint=hint)
