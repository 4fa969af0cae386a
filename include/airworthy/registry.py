"""What MLflow keeps: training runs, model files, versions and aliases.

An experiment and a registered model per pipeline, both under the pipeline's name, and an experiment for its
backtests, whose models are never registered. MLflow is imported
on first use, because a process that only reads the ledger should not pay a second for it.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from airworthy.config import Moment, Strict
from airworthy.errors import ModelError
from airworthy.mlflow_server import BACKTEST, experiment_name
from airworthy.model_files import Contract
from airworthy.provenance import environment
from airworthy.resources import Usage
from airworthy.run_files import RunFiles
from airworthy.training_tags import TRIALS, run_tags, table
from airworthy.verdict import Verdict

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

CHALLENGER = "challenger.json"
_PAGE = 100
DECLARATION = "pipeline.json"
ENVIRONMENT = "environment.json"
IMPORTED = "import.json"
IMPORTED_LINEAGE = "source/lineage.json"


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
        backtest: True if it was trained for a backtest, so that it never becomes champion.
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
    backtest: bool = False


@dataclass(frozen=True)
class Training:
    """What a training run puts on record.

    Attributes:
        folder: The model's files, as `model_files.write_model` left them.
        digest: What it returned.
        source: The URI of the features table.
        trials: One row per trial: its number, value, cost and parameters.
        pages: Further files of the run, by name.
        tags: The caller's own, e.g. the Airflow run.
        declaration: The whole pipeline, as JSON.
        used: What making it took; None if nobody measured.
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
    pages: Mapping[str, str] = field(default_factory=dict)
    declaration: str = "{}"
    used: Usage | None = None


class Registry(RunFiles):
    """What one MLflow server keeps of the pipelines.

    Every method raises ServiceError when MLflow does not answer, naming its address and what to do.
    """

    def find_training(self, pipeline: str, training_key: str, *, backtest: bool = False) -> Challenger | None:
        """Returns what a finished run with this key recorded, or None."""
        query = f"tags.training_key = '{training_key}' and attributes.status = 'FINISHED'"
        for run in self.search(experiment_name(pipeline, backtest=backtest), query):
            recorded = self.load_artifact(run.info.run_id, CHALLENGER)
            if recorded is not None:
                return Challenger.model_validate_json(recorded).model_copy(update={"reused": True})
        return None

    def trainings(self, pipeline: str) -> list[Challenger]:
        """Returns the challengers of every finished run of a pipeline, by `as_of`."""
        runs = self.search(pipeline, "attributes.status = 'FINISHED'")
        recorded = [self.load_artifact(run.info.run_id, CHALLENGER) for run in runs]
        found = [Challenger.model_validate_json(content) for content in recorded if content is not None]
        return sorted(found, key=lambda challenger: challenger.as_of)

    def challenger(self, run_id: str) -> Challenger:
        """Returns what a finished run recorded.

        Raises:
            ModelError: The run did not get that far.
        """
        recorded = self.load_artifact(run_id, CHALLENGER)
        if recorded is None:
            raise ModelError(f"run {run_id}", f"must have left {CHALLENGER}", hint="Train again")
        return Challenger.model_validate_json(recorded)

    def imported(self, run_id: str) -> Challenger | None:
        """Returns what a run brought in from another registry, as it was recorded there; None if it did not."""
        recorded = self.load_artifact(run_id, IMPORTED)
        return None if recorded is None else Challenger.model_validate_json(recorded)

    def begin(self, pipeline: str, as_of: datetime, tags: Mapping[str, str]) -> str:
        """Returns the id of a new run, which MLflow shows as running."""
        with self.answering():
            experiment = self.experiment(experiment_name(pipeline, backtest=BACKTEST in tags))
            tags = {"pipeline": pipeline, **tags}
            run = self.client.create_run(experiment, run_name=f"as of {as_of:%Y-%m-%d}", tags=tags)
            return str(run.info.run_id)

    def end(self, run_id: str, status: Literal["FAILED", "KILLED"]) -> None:
        """Leaves a run that will not finish with its status."""
        with self.answering():
            self.client.set_terminated(run_id, status)

    def search(self, experiment: str, query: str, order: str = "attributes.start_time ASC") -> Iterator[Run]:
        """Yields the runs of the experiment of this name that fulfil a query of MLflow's."""
        token = None
        while True:
            with self.answering():
                found = self.client.get_experiment_by_name(experiment)
                if found is None:
                    return
                ids = [found.experiment_id]
                page = self.client.search_runs(ids, query, max_results=_PAGE, order_by=[order], page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def log_training(self, training: Training, run_id: str | None = None) -> Challenger:
        """Returns the challenger once its run and its model files are on record; the run finishes last.

        Args:
            training: What to record.
            run_id: A run that `begin` began; None begins one.
        """
        from mlflow.entities import LoggedModelOutput, RunTag

        contract = training.contract
        run_id = run_id or self.begin(contract.pipeline, contract.as_of, training.tags)
        with self.answering():
            client = self.client
            run = client.get_run(run_id)
            client.log_batch(run_id, tags=[RunTag(name, value) for name, value in run_tags(training).items()])
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
            client.log_text(run_id, table(training.trials), TRIALS)
            client.log_text(run_id, json.dumps(environment(), indent=1), ENVIRONMENT)
            client.log_text(run_id, training.declaration, DECLARATION)
            for name, content in training.pages.items():
                client.log_text(run_id, content, name)
            client.log_text(run_id, challenger.model_dump_json(indent=1), CHALLENGER)
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
                **_told(verdicts),
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

    def model_file(self, model_id: str, name: str) -> bytes:
        """Returns the content of one file of a model.

        Raises:
            ModelError: MLflow does not have the model, or not the file, any more.
        """
        import mlflow.artifacts
        from mlflow.exceptions import MlflowException

        with tempfile.TemporaryDirectory() as folder, self.answering():
            try:
                location = f"{self.client.get_logged_model(model_id).artifact_location}/{name}"
                file = mlflow.artifacts.download_artifacts(location, dst_path=folder, tracking_uri=self.uri)
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                raise ModelError(f"model {model_id}: {name}", f"must be in MLflow at {self.uri}") from None
            return Path(file).read_bytes()

    def describe(self, pipeline: str, version: str, text: str) -> None:
        """Leaves Markdown as the description of a version, which its page in MLflow shows."""
        with self.answering():
            self.client.update_model_version(pipeline, version, text)

    def run_url(self, run_id: str) -> str:
        """Returns the address of the run's page, which finds the experiment by itself."""
        return f"{self.uri}/#/runs/{run_id}"

    def experiment(self, name: str) -> str:
        """Returns the id of the experiment of this name; makes it if there is none."""
        from mlflow.exceptions import MlflowException

        found = self.client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        try:
            return str(self.client.create_experiment(name))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            return self.experiment(name)

    def _ensure_registered(self, name: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self.client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _versions(self, challenger: Challenger) -> list[ModelVersion]:
        query = f"name = '{challenger.pipeline}' and tags.model_id = '{challenger.model_id}'"
        return sorted(self.client.search_model_versions(query), key=lambda found: int(found.version))

    def _log_numbers(self, run: Run, model_id: str, params: dict[str, str], training: Training) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param

        now = int(time.time() * 1000)
        numbers = [Metric(name, value, now, 0, model_id=model_id) for name, value in training.metrics.items()]
        run_id = run.info.run_id
        used = training.used._asdict() if training.used else {}
        numbers += [Metric(f"resources/{name}", value, now, 0) for name, value in used.items()]
        self.client.log_batch(run_id, metrics=numbers, params=[Param(k, v) for k, v in params.items()])
        features = training.features
        source = json.dumps({"path": training.source, "delta_table_version": features.version})
        profile = json.dumps({"num_rows": features.rows})
        # MLflow's column for a dataset's digest is 36 characters wide; the whole one is a tag of the run.
        dataset = Dataset("features", features.digest[:36], "delta_table", source, profile=profile)
        self.client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])


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
        backtest=BACKTEST in training.tags,
    )


def _told(verdicts: Sequence[Verdict]) -> dict[str, str]:
    """Returns a tag per verdict; of several gates of one kind the later ones have a number."""
    tags: dict[str, str] = {}
    for verdict in verdicts:
        name = f"gate.{verdict.gate}"
        again = sum(tag == name or tag.startswith(f"{name}.") for tag in tags)
        tags[f"{name}.{again + 1}" if again else name] = f"{verdict.status}: {verdict.reason}"
    return tags
