"""Slow challenger: a model whose answers take too long."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

from airworthy.gameday import Fault, Signal
from airworthy.gameday.copies import ACTOR, Copy
from airworthy.gates.latency import Latency
from airworthy.pages import write_whole
from airworthy.stages.alarms import of_gates
from airworthy.stages.deploy import deploy

_SLOWED = """\
import time

from airworthy.user_code import call


def features(frame):
    time.sleep({seconds})
    return {features}
"""


class SlowChallenger(Fault):
    """A challenger comes with `features()` that take twice as long as the gate `latency` allows.

    The other gates are left out, so that it is this one that has to stop it.
    """

    injects = "A challenger whose features() take twice as long as the gate latency allows."
    must = ("gate latency", "alert gates", "deployment refused")

    def inject(self, copy: Copy) -> Iterator[Signal]:
        gates = [gate for gate in copy.pipeline.gates if isinstance(gate, Latency) and (gate.p50_ms or gate.p99_ms)]
        limit = max(gate.p99_ms or gate.p50_ms or 0 for gate in gates)
        module = f"{copy.name}_slowed"
        write_whole(copy.folder / "code" / f"{module}.py", _SLOWED.format(seconds=limit / 500, features=_usual(copy)))
        importlib.invalidate_caches()  # the file may be younger than what Python remembers of its folder
        declared = [{"latency": gate.model_dump(mode="json")} for gate in gates]
        with copy.declared(features=f"{module}:features", gates=declared) as pipeline:
            challenger, evaluation, verdicts = copy.challenger(pipeline, seed=1)
            stopped = [one for one in verdicts if one.status == "failed"]
            told = "; ".join(one.reason for one in verdicts)
            yield Signal(alarm="gate latency", fired=bool(stopped), told=told)
            copy.tell(*of_gates(challenger, verdicts))
            yield copy.alert("gates", challenger.run_id)
            if not any(one.blocks for one in verdicts):
                told = "no verdict blocks, so it would have been promoted"
                yield Signal(alarm="deployment refused", fired=False, told=told)
                return
            release = deploy(pipeline, challenger, evaluation, verdicts, copy.profile, ACTOR)
        told = f"{release.action}: {release.reason}; version {release.version} stays champion"
        yield Signal(alarm="deployment refused", fired=release.action == "refused", told=told)


def _usual(copy: Copy) -> str:
    """Returns the expression of the features that the pipeline really has."""
    pipeline = copy.pipeline
    if pipeline.features is not None:
        return f"call({pipeline.features!r}, frame)"
    withheld = sorted({*pipeline.key, pipeline.time})
    return f"frame.drop(columns={withheld!r}, errors='ignore')"
