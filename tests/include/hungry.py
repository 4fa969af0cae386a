"""Processes that take a known amount of memory and processor time, and say what was measured. Run as a script."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from airworthy import resources
from airworthy.resources import Meter

MB = 10**6


def held(megabytes: int) -> bytearray:
    """Returns so much memory, every page of it written to."""
    return bytearray(b"x") * (megabytes * MB)


def spin(seconds: float) -> None:
    """Takes so much processor time, however long that is by the clock."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


def child_of_a_big_parent() -> dict[str, Any]:
    """A parent of 400 MB, which had 900 before it forked; the child takes 100 MB, writes to 50 that it inherited."""
    kept = held(400)
    held(500)
    receive, send = os.pipe()
    if os.fork() == 0:
        meter = Meter()
        held(100)
        kept[: 50 * MB] = bytes(50 * MB)  # the 50 MB on the right are new, and gone before the 100 are
        spin(0.2)
        os.write(send, json.dumps(meter.stop()._asdict()).encode())
        os._exit(0)
    os.wait()
    return dict(json.loads(os.read(receive, 10_000)))


def processors() -> dict[str, Any]:
    """0.3 s in this thread, 0.3 s in another one, 0.3 s in a process; and none while asleep."""
    spin(0.5)
    meter = Meter()
    thread = threading.Thread(target=spin, args=[0.3])
    thread.start()
    subprocess.run([sys.executable, __file__, "spinning"], check=True, capture_output=True)
    thread.join()
    spin(0.3)
    time.sleep(2)
    return meter.stop()._asdict()


def spinning() -> dict[str, Any]:
    spin(0.3)
    return {}


def nested() -> dict[str, Any]:
    """150 MB before, 50 MB in, and nothing after the inner one of two."""
    with Meter() as outer:
        held(150)
        with Meter() as inner:
            held(50)
    with Meter() as after:
        pass
    return {"outer": outer.used.peak_mb, "inner": inner.used.peak_mb, "after": after.used.peak_mb}


def sampled() -> dict[str, Any]:
    """100 MB until somebody has seen them, where the peak cannot be reset: it was 300 MB before."""
    resources._reset_peak = lambda: False
    held(300)
    meter = Meter()
    kept = held(100)
    while meter._peak < meter._before + 90 * MB:
        time.sleep(0.01)
    del kept
    lower = meter.stop()
    with Meter() as higher:
        held(600)
    return {"lower": lower.peak_mb, "higher": higher.used.peak_mb}


CASES: dict[str, Callable[[], dict[str, Any]]] = {
    case.__name__: case for case in (child_of_a_big_parent, processors, spinning, nested, sampled)
}


def measured(case: str) -> dict[str, Any]:
    """Returns what a new process says."""
    found = subprocess.run([sys.executable, __file__, case], check=True, capture_output=True, text=True)
    return dict(json.loads(found.stdout))


if __name__ == "__main__":
    print(json.dumps(CASES[sys.argv[1]]()))
