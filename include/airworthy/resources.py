"""What a piece of work takes: time, processor time and memory, of this process from one moment to another.

A task is the fork of a large process, so what counts is how far its memory grows. Linux says exactly how much that was
at most (`VmHWM`), once it is told to count from here on (`clear_refs`, see proc(5)). Two things are not in it: memory
that was there before and is copied because something is written to it, and that of processes which the work starts.
The first is in `smaps_rollup`, but reading that takes as long as a small task. For the second there is `ru_maxrss`,
but that is never less than the memory of the process that started them, whatever they do.
"""

from __future__ import annotations

import os
import re
import threading
import time
from pathlib import Path
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage
from types import TracebackType
from typing import NamedTuple

_PROC = Path("/proc/self")
_RESET = "5"  # of VmHWM, to what it is now
_SAMPLED_EVERY = 0.02  # seconds, where Linux does not let the process reset it
_FIELD = re.compile(r"^(VmHWM|VmRSS):\s+(\d+) kB", re.MULTILINE)


class Usage(NamedTuple):
    """What some work took.

    Attributes:
        seconds: By the clock.
        cpu_seconds: Of all threads, and of the processes that it started and waited for.
        peak_mb: The most that the process grew above what it was before, in 10^6 bytes.
        resident_mb: The most memory the process had, what it shares with its parent included, in 10^6 bytes.
    """

    seconds: float
    cpu_seconds: float
    peak_mb: float
    resident_mb: float


class Meter:
    """Measures from when it is made to `stop`; several may run at once, one inside the other or side by side."""

    _running: list[Meter] = []  # noqa: RUF012 - a reset by one of them takes the peak from all
    _lock = threading.RLock()

    def __init__(self) -> None:
        with Meter._lock:
            before = _memory()
            for other in Meter._running:
                other._saw(before["VmHWM"])
            self._sampler = None if _reset_peak() else _Sampler(self)
            self._before = self._peak = _memory()["VmRSS"]
            self._passed = before["VmHWM"] if self._sampler else 0
            Meter._running.append(self)
        self._cpu, self._started = _cpu(), time.perf_counter()

    def stop(self) -> Usage:
        """Returns what was taken since the meter was made."""
        seconds, cpu = time.perf_counter() - self._started, _cpu() - self._cpu
        if self._sampler:
            self._sampler.end()
        with Meter._lock:
            Meter._running.remove(self)
            now = _memory()
            self._saw(now["VmRSS"])
            if now["VmHWM"] > self._passed:
                self._saw(now["VmHWM"])
        return Usage(seconds, cpu, (self._peak - self._before) / 1e6, self._peak / 1e6)

    def __enter__(self) -> Meter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.used = self.stop()

    def _saw(self, resident: int) -> None:
        self._peak = max(self._peak, resident)


def resident() -> int:
    """Returns how many bytes of memory the process has now, what it shares with others included."""
    return _memory()["VmRSS"]


class _Sampler:
    """Looks at the memory again and again: what was more for less than a moment is not seen."""

    def __init__(self, meter: Meter) -> None:
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, args=[meter], name="memory", daemon=True)
        self._thread.start()

    def _run(self, meter: Meter) -> None:
        while not self._done.wait(_SAMPLED_EVERY):
            meter._saw(_memory()["VmRSS"])

    def end(self) -> None:
        self._done.set()
        self._thread.join()


def _memory() -> dict[str, int]:
    """Returns VmHWM and VmRSS in bytes."""
    text = (_PROC / "status").read_text(encoding="ascii", errors="replace")
    return {name: int(kilobytes) * 1024 for name, kilobytes in _FIELD.findall(text)}


def _reset_peak() -> bool:
    """Returns whether VmHWM is what the process has now."""
    try:
        file = os.open(_PROC / "clear_refs", os.O_WRONLY)
        try:
            os.write(file, _RESET.encode())
        finally:
            os.close(file)
    except OSError:  # some sandboxes have no such file
        return False
    return True


def _cpu() -> float:
    used = [getrusage(who) for who in (RUSAGE_SELF, RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)
