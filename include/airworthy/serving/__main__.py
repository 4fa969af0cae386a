"""`python -m airworthy.serving`: answers until it is told to stop."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile

import uvicorn

from airworthy.errors import AirworthyError
from airworthy.profile import load_profile
from airworthy.serving.app import RUN
from airworthy.serving.token import required_token

_CONNECTIONS = 1000  # of one worker; each may hold 64 KB that nobody has asked for yet
_MEMORY = "/dev/shm"  # of Linux; elsewhere the folder for temporary files will do
_SILENCE = 30  # seconds after which a worker that does not answer its parent is replaced


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m airworthy.serving", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to bind")
    parser.add_argument("--port", type=int, default=int(os.environ.get("AIRWORTHY_SERVING_PORT", "8081")))
    given = parser.parse_args()
    try:
        profile = load_profile()
        required_token(profile, given.host)
    except AirworthyError as error:
        print(error, file=sys.stderr)
        return 1
    # When uvicorn has shut down it sends itself the signal anew, which would end it before the folder is removed.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    with tempfile.TemporaryDirectory(prefix="airworthy-serving-", dir=_shared_memory()) as run:
        os.environ[RUN] = run
        uvicorn.run(
            "airworthy.serving.app:worker",
            factory=True,
            host=given.host,
            port=given.port,
            workers=profile.serving.workers,
            log_level="warning",
            access_log=False,
            limit_concurrency=_CONNECTIONS,
            timeout_worker_healthcheck=_SILENCE,
        )
    return 0


def _shared_memory() -> str | None:
    """Returns where workers share memory: on a disk, the kernel may hold up a store, and all requests with it."""
    return _MEMORY if os.access(_MEMORY, os.W_OK) else None


if __name__ == "__main__":
    sys.exit(main())
