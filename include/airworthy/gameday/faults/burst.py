"""Burst: more requests at once than serving may hold."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack

from airworthy.gameday import Fault, Signal
from airworthy.gameday.copies import Copy
from airworthy.gameday.served import HOST, Served, served

_BEYOND = 20
_MOST = 900  # connections that one worker of serving takes at all


class Burst(Fault):
    """Clients send all but the end of a request until serving holds the most it may; then more ask, and one too much.

    The requests that are held are ended then, and have to be answered.
    """

    injects = "More requests at once than serving.requests allows, and one that is larger than serving.request_bytes."
    must = ("too many are refused", "too large is refused", "none admitted is lost", "refusals are counted")

    def inject(self, copy: Copy) -> Iterator[Signal]:
        limits = copy.profile.serving
        with served(copy) as process, ExitStack() as stack:
            held = [stack.enter_context(_begun(process)) for _ in range(min(limits.requests, _MOST))]
            process.wait("hold them", lambda: _in_flight(process) >= len(held) or None)
            answers = [process.predict() for _ in range(_BEYOND)]
            refused = [one for one in answers if one.status == 503]
            told = f"{len(refused)} of {_BEYOND} beyond {len(held)}"
            told += f": {refused[0].content['detail']}" if refused else " were refused"
            yield Signal(alarm="too many are refused", fired=len(refused) == _BEYOND, told=told)
            statuses = [_ended(one, process.request) for one in held]
            lost = [status for status in statuses if status != "200"]
            told = f"{len(statuses) - len(lost)} of {len(statuses)} were answered"
            yield Signal(alarm="none admitted is lost", fired=not lost, told=told)
            yield _too_large(process, limits.request_bytes)
            counted = _counted(process, copy.name, "503")
            told = f"/metrics counts {counted:.0f} answers of 503"
            yield Signal(alarm="refusals are counted", fired=counted >= _BEYOND, told=told)


def _begun(process: Served) -> socket.socket:
    """Returns a connection with all of a request but its last byte sent."""
    body = process.request
    token = "".join(f"{name}: {value}\r\n" for name, value in process.profile.serving.headers().items())
    head = f"POST {process.path} HTTP/1.1\r\nHost: {HOST}\r\n{token}Content-Type: application/json\r\n"
    head += f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    connection = socket.create_connection((HOST, process.port), timeout=15)
    connection.sendall(head.encode() + body[:-1])
    return connection


def _ended(connection: socket.socket, body: bytes) -> str:
    """Returns the status of the answer once the last byte is sent."""
    try:
        connection.sendall(body[-1:])
        return connection.makefile("rb").readline().decode().split(" ")[1]
    except (OSError, IndexError) as error:
        return f"{type(error).__name__}: {error}"


def _too_large(process: Served, limit: int) -> Signal:
    connection = socket.create_connection((HOST, process.port), timeout=15)
    with connection:
        token = "".join(f"{name}: {value}\r\n" for name, value in process.profile.serving.headers().items())
        head = f"POST {process.path} HTTP/1.1\r\nHost: {HOST}\r\n{token}Content-Length: {limit + 1}\r\n\r\n"
        connection.sendall(head.encode())  # refused by what it says, before it is sent
        status = connection.makefile("rb").readline().decode().strip()
    return Signal(alarm="too large is refused", fired=" 413 " in f"{status} ", told=f"{limit + 1} bytes: {status}")


def _in_flight(process: Served) -> float:
    return _sum(process, "airworthy_in_flight")


def _counted(process: Served, pipeline: str, status: str) -> float:
    return _sum(process, "airworthy_requests_total", f'pipeline="{pipeline}"', f'status="{status}"')


def _sum(process: Served, name: str, *labels: str) -> float:
    lines = str(process.get("/metrics").content).splitlines()
    chosen = [
        line for line in lines if line.startswith((f"{name} ", f"{name}{{")) and all(one in line for one in labels)
    ]
    return sum(float(line.rsplit(" ", 1)[1]) for line in chosen)
