"""`python -m airworthy.serving`: answers until it is told to stop."""

from __future__ import annotations

import argparse
import logging
import os

import uvicorn

from airworthy.profile import home, load_profile
from airworthy.serving.app import build
from airworthy.serving.champion import Champions


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m airworthy.serving", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to bind")
    parser.add_argument("--port", type=int, default=int(os.environ.get("AIRWORTHY_SERVING_PORT", "8081")))
    given = parser.parse_args()
    logging.basicConfig(level="WARNING", format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("airworthy").setLevel("INFO")
    poll = float(os.environ.get("AIRWORTHY_SERVING_POLL", "0.5"))
    champions = Champions(load_profile(), home() / "serving", poll)
    uvicorn.run(build(champions), host=given.host, port=given.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
