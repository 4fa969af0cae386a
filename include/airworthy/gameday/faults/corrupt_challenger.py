"""Corrupt challenger: files that are not those that were trained."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from airworthy.errors import AirworthyError, ModelError
from airworthy.gameday import Fault, Signal
from airworthy.gameday.copies import ACTOR, Copy
from airworthy.gameday.served import served
from airworthy.registry import Challenger, Registry
from airworthy.stages.alarms import of_failure
from airworthy.stages.deploy import deploy
from airworthy.stages.evaluate import evaluate


class CorruptChallenger(Fault):
    """A challenger's model file is overwritten in MLflow after its gates have let it through.

    Its gate is `servable` alone, so that it gets as far as the deployment.
    """

    injects = "A challenger's model file is overwritten in MLflow after its gates let it through."
    must = ("deployment fails", "ledger goes back", "alert deploy", "champion answers on", "evaluation refuses it")

    def inject(self, copy: Copy) -> Iterator[Signal]:
        before = copy.champion
        assert before is not None
        with copy.declared(gates=["servable"]) as pipeline, served(copy) as process:
            challenger, evaluation, verdicts = copy.challenger(pipeline, seed=2)
            _damage(copy, challenger)
            try:
                release = deploy(pipeline, challenger, evaluation, verdicts, process.profile, ACTOR)
                failed, told = False, f"{release.action}: {release.reason}"
            except ModelError as error:
                failed, told = True, str(error)
                copy.tell(of_failure(copy.pipeline, "deploy", challenger.run_id, error))
            yield Signal(alarm="deployment fails", fired=failed, told=told)
            now = copy.champion
            told = f"version {now.version if now else 'none'} is champion, it was {before.version}"
            yield Signal(alarm="ledger goes back", fired=now is not None and now.version == before.version, told=told)
            yield copy.alert("deploy", challenger.run_id)
            answer = process.predict()
            told = f"{answer.status} by version {answer.version}"
            fired = (answer.status, answer.version) == (200, before.version)
            yield Signal(alarm="champion answers on", fired=fired, told=told)
            yield _evaluated(copy, challenger)


def _damage(copy: Copy, challenger: Challenger) -> None:
    registry = Registry(copy.profile)
    with tempfile.TemporaryDirectory() as folder, registry.answering():
        file = Path(folder, copy.pipeline.model.file)
        file.write_bytes(b"not what was trained")
        registry.client.log_model_artifact(challenger.model_id, str(file))


def _evaluated(copy: Copy, challenger: Challenger) -> Signal:
    try:
        evaluate(copy.pipeline, challenger, copy.champion, copy.profile)
    except AirworthyError as error:
        return Signal(alarm="evaluation refuses it", fired=isinstance(error, ModelError), told=str(error))
    return Signal(alarm="evaluation refuses it", fired=False, told="it was evaluated")
