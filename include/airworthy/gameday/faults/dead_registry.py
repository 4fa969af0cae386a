"""Dead registry: MLflow, and the ledger where it is on a network, cannot be reached any more."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import sqlalchemy as sa

from airworthy.gameday import Fault, Signal
from airworthy.gameday.copies import Copy
from airworthy.gameday.served import Served, served
from airworthy.gameday.wire import HOST, Wire
from airworthy.profile import Profile


class DeadRegistry(Fault):
    """The wires from the copy's serving process to MLflow and the ledger are cut, and mended again."""

    injects = "The copy's serving process reaches neither MLflow nor the ledger any more; later it does again."
    must = ("/ping says what is down", "/metrics say what is down", "champion answers on", "/ping says it is back")

    def inject(self, copy: Copy) -> Iterator[Signal]:
        champion = copy.champion
        assert champion is not None
        with ExitStack() as stack:
            profile, wires = _wired(copy.profile, stack)
            process = stack.enter_context(served(copy, profile))
            process.wait("see them", lambda: all(_status(process, name) == "ok" for name in wires) or None)
            for wire in wires.values():
                wire.cut()
            process.wait("notice", lambda: all(_status(process, name) == "down" for name in wires) or None)
            ping = process.get("/ping")
            told = "; ".join(f"{name}: {ping.content[name].get('reason', '')}" for name in wires)
            yield Signal(alarm="/ping says what is down", fired=ping.status == 200, told=told)
            down = [f'airworthy_up{{service="{name}"}} 0' for name in wires]
            metrics = str(process.get("/metrics").content).splitlines()
            said = [line for line in metrics if line.startswith("airworthy_up")]
            fired = all(any(line.startswith(one) for line in said) for one in down)
            yield Signal(alarm="/metrics say what is down", fired=fired, told=", ".join(said))
            answers = [process.predict() for _ in range(10)]
            good = [one for one in answers if (one.status, one.version) == (200, champion.version)]
            told = f"{len(good)} of {len(answers)} answers by version {champion.version}"
            yield Signal(alarm="champion answers on", fired=len(good) == len(answers), told=told)
            for wire in wires.values():
                wire.mend()
            process.wait("come back", lambda: all(_status(process, name) == "ok" for name in wires) or None)
            yield Signal(alarm="/ping says it is back", fired=True, told=f"{', '.join(wires)}: ok")


def _wired(profile: Profile, stack: ExitStack) -> tuple[Profile, dict[str, Wire]]:
    """Returns the profile with wires to what is on a network, by what serving calls it."""
    changes, wires = dict[str, Any](), dict[str, Wire]()
    mlflow = urlsplit(profile.mlflow_uri)
    if mlflow.hostname and mlflow.scheme == "http":
        wires["registry"] = stack.enter_context(Wire(mlflow.hostname, mlflow.port or 80))
        changes["mlflow_uri"] = f"http://{HOST}:{wires['registry'].port}"
    ledger = sa.make_url(profile.ledger_url)
    if ledger.host:
        wires["ledger"] = stack.enter_context(Wire(ledger.host, ledger.port or 5432))
        moved = ledger.set(host=HOST, port=wires["ledger"].port)
        changes["ledger_url"] = moved.render_as_string(hide_password=False)
    return profile.model_copy(update=changes), wires


def _status(process: Served, name: str) -> str:
    return str(process.get("/ping").content[name]["status"])
