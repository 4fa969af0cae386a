from __future__ import annotations

import json

import pytest
from sqlalchemy import make_url

from airworthy.connections import Connection, from_environment, storage_options
from airworthy.errors import ConfigError


@pytest.fixture
def defined(monkeypatch: pytest.MonkeyPatch):
    def define(value: str) -> Connection:
        monkeypatch.setenv("AIRFLOW_CONN_THERE", value)
        return from_environment("there")

    return define


@pytest.mark.parametrize(
    ("value", "url"),
    [
        ("postgres://me:a%2Fb%40c@db:5433/sales", "postgresql+psycopg2://me:a%2Fb%40c@db:5433/sales"),
        ("postgresql://db/sales?sslmode=require", "postgresql+psycopg2://db/sales?sslmode=require"),
        ("sqlite:////data/x.db", "sqlite:////data/x.db"),
        ("mysql://me@db/sales", "mysql://me@db/sales"),
        (
            '{"conn_type": "postgres", "host": "db", "login": "me", "password": "a/b@c", "schema": "s", "port": 1}',
            "postgresql+psycopg2://me:a%2Fb%40c@db:1/s",
        ),
        ('{"conn_type": "sqlite", "host": "/data/x.db"}', "sqlite:////data/x.db"),
        (
            '{"conn_type": "postgres", "extra": "{\\"sslmode\\": \\"require\\"}"}',
            "postgresql+psycopg2://?sslmode=require",
        ),
        (
            '{"conn_type": "redis", "host": "cache", "extra": {"ssl": true, "ssl_cert_reqs": "none"}}',
            "rediss://cache?ssl_cert_reqs=none",
        ),
        ('{"conn_type": "redis", "host": "cache", "extra": {"ssl": false, "ssl_cert_reqs": "none"}}', "redis://cache"),
        ("redis://cache:1/2?ssl=True", "rediss://cache:1/2"),
    ],
)
def test_a_database_becomes_an_sqlalchemy_url(defined, value: str, url: str) -> None:
    assert make_url(defined(value).uri) == make_url(url)


def test_an_object_store_becomes_options(defined) -> None:
    extra = {"region_name": "eu-central-1", "endpoint_url": "http://s3.local", "aws_session_token": "t"}
    expected = {
        "access_key_id": "key",
        "secret_access_key": "a/b",
        "session_token": "t",
        "region": "eu-central-1",
        "endpoint_url": "http://s3.local",
    }
    found = defined(json.dumps({"conn_type": "aws", "login": "key", "password": "a/b", "extra": extra}))
    assert found.options == expected
    query = "region_name=eu-central-1&endpoint_url=http%3A%2F%2Fs3.local&aws_session_token=t"
    assert defined(f"aws://key:a%2Fb@/?{query}").options == expected
    assert storage_options(found) == {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "a/b",
        "AWS_SESSION_TOKEN": "t",
        "AWS_REGION": "eu-central-1",
        "AWS_ENDPOINT_URL": "http://s3.local",
        "AWS_ALLOW_HTTP": "true",
    }
    assert defined("aws://").options == {}


def test_secrets_do_not_show(defined) -> None:
    assert "hunter2" not in repr(defined("postgres://me:hunter2@db/sales"))
    assert "hunter2" not in repr(defined("aws://key:hunter2@"))


def test_a_connection_that_is_not_defined_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_THERE", raising=False)
    with pytest.raises(ConfigError) as raised:
        from_environment("there")
    assert str(raised.value) == (
        "connection there: must be defined. Define it in Airflow (Admin, Connections), or outside of Airflow "
        "in AIRFLOW_CONN_THERE, as a URI or as JSON."
    )


@pytest.mark.parametrize("value", ["hunter2", '{"host": "hunter2"}', '{"conn_type": ', "postgres://me:hunter2@db:x/y"])
def test_a_connection_that_cannot_be_read_is_not_quoted(defined, value: str) -> None:
    with pytest.raises(ConfigError, match=r"^AIRFLOW_CONN_THERE: must be a connection's URI or JSON") as raised:
        defined(value)
    assert "hunter2" not in str(raised.value)
