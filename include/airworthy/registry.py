"""What MLflow keeps: training runs, model files, versions and aliases.

An experiment and a registered model per pipeline, both under the pipeline's name. MLflow is imported
on first use, because a process that only reads the ledger should not pay a second for it.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airworthy.config import Moment, Strict
from airworthy.errors import ModelError
from airworthy.mlflow_server import MlflowServer
from airworthy.model_files import Contract
from airworthy.provenance import code_version, environment
from airworthy.verdict import Verdict

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

_CHALLENGER = "challenger.json"
DECLARATION = "pipeline.json"


class FeaturesRef(Strict):
    """The features a model was trained and scored on: the table's version and a SHA-256 of the rows used."""

    version: int
    digest: str
    rows: int


class Challenger(Strict):
    """A trained model that may become champion.

    Attributes:
        training_key: SHA-256 of everything that decides what the training gives; equal keys, equal models.
        metrics: Metric name to value on the holdout.
        reused: True if an earlier run had the same key, so that nothing was trained.
    """

    pipeline: str
    run_id: str
    model_id: str
    digest: str
    as_of: Moment
    training_key: str
    features: FeaturesRef
    holdout: tuple[Moment, Moment]
    metrics: dict[str, float]
    reused: bool = False


@dataclass(frozen=True)
class Training:
    """What a training run puts on record.

    Attributes:
        folder: The model's files, as `model_files.write_model` left them.
        digest: What it returned.
        source: The URI of the features table.
        trials: One row per trial: its number, value, seconds and parameters.
        tags: The caller's own, e.g. the Airflow run.
        declaration: The whole pipeline, as JSON.
    """

    contract: Contract
    folder: Path
    digest: str
    training_key: str
    features: FeaturesRef
    source: str
    metrics: dict[str, float]
    metric: str
    trials: Sequence[Mapping[str, Any]] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    declaration: str = "{}"


class Registry(MlflowServer):
    """What one MLflow server keeps of the pipelines.

    Every method raises ServiceError when MLflow does not answer, naming its address and what to do.
    """

    def find_training(self, pipeline: str, training_key: str) -> Challenger | None:
        """Returns what a finished run with this key recorded, or None."""
        with self.answering():
            experiment = self.client.get_experiment_by_name(pipeline)
            if experiment is None:
                return None
            query = f"tags.training_key = '{training_key}' and attributes.status = 'FINISHED'"
            order = ["attributes.start_time ASC"]
            runs = self.client.search_runs([experiment.experiment_id], query, max_results=1, order_by=order)
        for run in runs:
            recorded = self.load_artifact(run.info.run_id, _CHALLENGER)
            if recorded is not None:
                return Challenger.model_validate_json(recorded).model_copy(update={"reused": True})
        return None

    def trainings(self, pipeline: str) -> list[Challenger]:
        """Returns the challengers of every finished run of a pipeline, by `as_of`."""
        with self.answering():
            experiment = self.client.get_experiment_by_name(pipeline)
            if experiment is None:
                return []
            runs = self.client.search_runs([experiment.experiment_id], "attributes.status = 'FINISHED'")
        recorded = [self.load_artifact(run.info.run_id, _CHALLENGER) for run in runs]
        found = [Challenger.model_validate_json(content) for content in recorded if content is not None]
        return sorted(found, key=lambda challenger: challenger.as_of)

    def challenger(self, run_id: str) -> Challenger:
        """Returns what a finished run recorded.

        Raises:
            ModelError: The run did not get that far.
        """
        recorded = self.load_artifact(run_id, _CHALLENGER)
        if recorded is None:
            raise ModelError(f"run {run_id}", f"must have left {_CHALLENGER}", hint="Train again")
        return Challenger.model_validate_json(recorded)

    def log_training(self, training: Training) -> Challenger:
        """Returns the challenger once its run and its model files are on record; the run finishes last."""
        from mlflow.entities import LoggedModelOutput

        contract = training.contract
        with self.answering():
            client = self.client
            run = client.create_run(
                self._experiment(contract.pipeline),
                run_name=f"as of {contract.as_of:%Y-%m-%d}",
                tags=_run_tags(training),
            )
            run_id = run.info.run_id
            params = {name: str(value) for name, value in contract.params.items()}
            model = client.create_logged_model(
                run.info.experiment_id,
                name=contract.pipeline,
                source_run_id=run_id,
                tags={"digest": training.digest, "training_key": training.training_key},
                params=params,
                model_type=contract.kind,
            )
            client.log_model_artifacts(model.model_id, str(training.folder))
            client.finalize_logged_model(model.model_id, "READY")
            client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
            self._log_numbers(run, model.model_id, params, training)
            challenger = _challenger(training, run_id, model.model_id)
            client.log_text(run_id, _table(training.trials), "trials.json")
            client.log_text(run_id, json.dumps(environment(), indent=1), "environment.json")
            client.log_text(run_id, training.declaration, DECLARATION)
            client.log_text(run_id, challenger.model_dump_json(indent=1), _CHALLENGER)
            client.set_terminated(run_id, "FINISHED")
        return challenger

    def register(self, challenger: Challenger, verdicts: Sequence[Verdict] = ()) -> str:
        """Returns the version that holds the challenger's model, with its verdicts as tags; makes one if there is none.

        Asked again, or by two at once, it returns the same version.
        """
        name = challenger.pipeline
        with self.answering():
            client = self.client
            tags = {
                "training_key": challenger.training_key,
                "model_id": challenger.model_id,
                "digest": challenger.digest,
                "as_of": challenger.as_of.isoformat(),
                **{f"gate.{verdict.gate}": f"{verdict.status}: {verdict.reason}" for verdict in verdicts},
            }
            found = self._versions(challenger)
            if found:
                for key, value in tags.items():
                    if found[0].tags.get(key) != value:
                        client.set_model_version_tag(name, found[0].version, key, value)
                return str(found[0].version)
            self._ensure_registered(name)
            source = f"models:/{challenger.model_id}"
            made = client.create_model_version(
                name, source, challenger.run_id, tags=tags, await_creation_for=0, model_id=challenger.model_id
            )
            # Two that register at once both see both versions here, and agree on the older one.
            oldest = self._versions(challenger)[0]
            if oldest.version != made.version:
                client.delete_model_version(name, made.version)
            link = json.dumps([{"name": name, "version": oldest.version}])
            client.set_logged_model_tags(challenger.model_id, {"mlflow.modelVersions": link})
            return str(oldest.version)

    def set_alias(self, pipeline: str, alias: str, version: str | None) -> None:
        """Leaves the alias on a version; on none if `version` is None."""
        with self.answering():
            if version is None:
                self.client.delete_registered_model_alias(pipeline, alias)
            else:
                self.client.set_registered_model_alias(pipeline, alias, version)

    def alias(self, pipeline: str, alias: str) -> str | None:
        """Returns the version the alias is on, or None."""
        from mlflow.exceptions import MlflowException

        with self.answering():
            try:
                return str(self.client.get_model_version_by_alias(pipeline, alias).version)
            except MlflowException as error:
                if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                    return None
                raise

    def download(self, model_id: str, folder: Path) -> Path:
        """Returns the folder below `folder` that holds the model's files; check their digest before loading them.

        Raises:
            ModelError: MLflow does not have the model any more.
        """
        import mlflow.artifacts
        from mlflow.exceptions import MlflowException

        folder.mkdir(parents=True, exist_ok=True)
        with self.answering():
            try:
                location = self.client.get_logged_model(model_id).artifact_location
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                hint = "It was deleted there; train again"
                raise ModelError(f"model {model_id}", f"must be in MLflow at {self.uri}", hint=hint) from None
            return Path(mlflow.artifacts.download_artifacts(location, dst_path=str(folder), tracking_uri=self.uri))

    def store_artifacts(self, run_id: str, files: Mapping[str, bytes]) -> None:
        """Leaves files with the run, under the given paths."""
        with tempfile.TemporaryDirectory() as folder, self.answering():
            for name, content in files.items():
                file = Path(folder, name)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
            self.client.log_artifacts(run_id, folder)

    def load_artifact(self, run_id: str, name: str) -> bytes | None:
        """Returns the content of one file of the run, or None if there is no such file."""
        parent = name.rpartition("/")[0] or None
        with tempfile.TemporaryDirectory() as folder, self.answering():
            if name not in {file.path for file in self.client.list_artifacts(run_id, parent)}:
                return None
            return Path(self.client.download_artifacts(run_id, name, folder)).read_bytes()

    def load_json(self, run_id: str, name: str) -> Any:
        """Returns what one JSON file of the run holds, or None if there is no such file."""
        content = self.load_artifact(run_id, name)
        return None if content is None else json.loads(content)

    def run_url(self, run_id: str) -> str:
        """Returns the address of the run's page, which finds the experiment by itself."""
        return f"{self.uri}/#/runs/{run_id}"

    def _experiment(self, pipeline: str) -> str:
        from mlflow.exceptions import MlflowException

        found = self.client.get_experiment_by_name(pipeline)
        if found is not None:
            return str(found.experiment_id)
        try:
            return str(self.client.create_experiment(pipeline))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            return self._experiment(pipeline)

    def _ensure_registered(self, name: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self.client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _versions(self, challenger: Challenger) -> list[ModelVersion]:
        query = f"name = '{challenger.pipeline}' and tags.training_key = '{challenger.training_key}'"
        return sorted(self.client.search_model_versions(query), key=lambda found: int(found.version))

    def _log_numbers(self, run: Run, model_id: str, params: dict[str, str], training: Training) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param

        now = int(time.time() * 1000)
        numbers = [Metric(name, value, now, 0, model_id=model_id) for name, value in training.metrics.items()]
        numbers += [
            Metric(f"trial_{training.metric}", trial["value"], now, trial["trial"]) for trial in training.trials
        ]
        run_id = run.info.run_id
        self.client.log_batch(run_id, metrics=numbers, params=[Param(k, v) for k, v in params.items()])
        features = training.features
        source = json.dumps({"path": training.source, "delta_table_version": features.version})
        profile = json.dumps({"num_rows": features.rows})
        # MLflow's column for a dataset's digest is 36 characters wide; the whole one is a tag of the run.
        dataset = Dataset("features", features.digest[:36], "delta_table", source, profile=profile)
        self.client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])


def _run_tags(training: Training) -> dict[str, str]:
    contract = training.contract
    code = code_version()
    return {
        "pipeline": contract.pipeline,
        "training_key": training.training_key,
        "digest": training.digest,
        "as_of": contract.as_of.isoformat(),
        "window": _interval(contract.window),
        "holdout": _interval(contract.holdout),
        "features.version": str(training.features.version),
        "features.digest": training.features.digest,
        "features.function": contract.features_function or "",
        "features.function_digest": contract.features_digest,
        "code": code,
        "mlflow.source.name": "airworthy",
        "mlflow.source.type": "JOB",
        "mlflow.source.git.commit": code.removesuffix("-dirty"),
        "mlflow.loggedArtifacts": json.dumps([{"path": "trials.json", "type": "table"}]),
        **training.tags,
    }


def _challenger(training: Training, run_id: str, model_id: str) -> Challenger:
    return Challenger(
        pipeline=training.contract.pipeline,
        run_id=run_id,
        model_id=model_id,
        digest=training.digest,
        as_of=training.contract.as_of,
        training_key=training.training_key,
        features=training.features,
        holdout=training.contract.holdout,
        metrics=training.metrics,
    )


def _interval(interval: tuple[datetime, datetime]) -> str:
    # A run started by hand is as of this very moment, and what reads the tag must know where its last hour ends.
    moments = [moment.astimezone(UTC).replace(tzinfo=None) for moment in interval]
    exact = any(moment.second or moment.microsecond for moment in moments)
    return " to ".join(moment.isoformat(" ", "auto" if exact else "minutes") for moment in moments)


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns rows as the JSON that MLflow's pages show as a table."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    return json.dumps({"columns": columns, "data": [[row.get(key) for key in columns] for row in rows]})
