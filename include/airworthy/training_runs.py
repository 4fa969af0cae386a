"""Training runs as MLflow's tags tell of them: quick to list, and to mark."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airworthy.config import Moment, Strict
from airworthy.mlflow_server import MlflowServer

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion


class TrainingRun(Strict):
    """A finished training run with the versions that were made of it.

    Attributes:
        window: `[start, end)` of the rows it was trained on.
        holdout: `[start, end)` of the rows it was scored on.
        features_version: Of the features table it read; None if it was imported, as that table is elsewhere.
        tags: All of the run's tags.
        versions: The versions made of it, each with its tags.
    """

    run_id: str
    as_of: Moment
    window: tuple[Moment, Moment]
    holdout: tuple[Moment, Moment]
    features_version: int | None
    tags: dict[str, str]
    versions: dict[str, dict[str, str]]

    @property
    def source(self) -> str:
        """Where an imported run comes from; "" for one of this registry."""
        if "source.registry" not in self.tags:
            return ""
        return f"version {self.tags['source.version']} of {self.tags['source.registry']}"


class TrainingRuns(MlflowServer):
    """The training runs of one MLflow server.

    Every method raises ServiceError when MLflow does not answer, naming its address and what to do.
    """

    def of(self, pipeline: str, run_id: str = "") -> list[TrainingRun]:
        """Returns every finished training run of a pipeline, by `as_of`; with `run_id` only that one."""
        with self.answering():
            experiment = self.client.get_experiment_by_name(pipeline)
            if experiment is None:
                return []
            query = "attributes.status = 'FINISHED' and tags.window != ''"
            name = f"name = '{pipeline}'"
            if run_id:
                query += f" and attributes.run_id = '{run_id}'"
                name += f" and run_id = '{run_id}'"
            ids = [experiment.experiment_id]
            runs = _all_pages(lambda page: self.client.search_runs(ids, query, page_token=page))
            versions = _all_pages(lambda page: self.client.search_model_versions(name, page_token=page))
        found = [_training_run(run, [one for one in versions if one.run_id == run.info.run_id]) for run in runs]
        return sorted(found, key=lambda run: run.as_of)

    def mark(self, pipeline: str, run: TrainingRun, tag: str, value: str | None) -> None:
        """Leaves a tag on a run and on its versions; None takes it off."""
        client = self.client
        with self.answering():
            if value is None:
                for version in (version for version, tags in run.versions.items() if tag in tags):
                    client.delete_model_version_tag(pipeline, version, tag)
                if tag in run.tags:
                    client.delete_tag(run.run_id, tag)
            else:
                for version in run.versions:
                    client.set_model_version_tag(pipeline, version, tag, value)
                client.set_tag(run.run_id, tag, value)


def _training_run(run: Run, versions: Sequence[ModelVersion]) -> TrainingRun:
    tags = run.data.tags
    window, holdout = (tags[name].split(" to ") for name in ("window", "holdout"))
    return TrainingRun(
        run_id=run.info.run_id,
        as_of=datetime.fromisoformat(tags["as_of"]),
        window=tuple(map(datetime.fromisoformat, window)),
        holdout=tuple(map(datetime.fromisoformat, holdout)),
        features_version=int(tags["features.version"]) if "features.version" in tags else None,
        tags=tags,
        versions={str(found.version): found.tags for found in sorted(versions, key=lambda one: int(one.version))},
    )


def _all_pages(fetch: Callable[[str | None], Any]) -> list[Any]:
    page = fetch(None)
    found = list(page)
    while page.token:
        page = fetch(page.token)
        found += page
    return found
