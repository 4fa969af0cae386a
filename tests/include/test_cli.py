"""The command line, apart from what its commands do."""

from __future__ import annotations

import os
import subprocess
import sys


def test_a_reader_that_has_seen_enough_ends_it_without_a_trace() -> None:
    reading, writing = os.pipe()
    os.close(reading)  # as `| head` does once it has its lines
    command = [sys.executable, "-m", "airworthy.cli", "check"]
    with os.fdopen(writing, "wb") as closed:
        done = subprocess.run(command, stdout=closed, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (141, "")
