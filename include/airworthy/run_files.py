"""The files that MLflow keeps with a run."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from airworthy.mlflow_server import MlflowServer


class RunFiles(MlflowServer):
    """The artifacts of the runs of one MLflow server.

    Every method raises ServiceError when MLflow does not answer, naming its address and what to do.
    """

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
        from mlflow import artifacts
        from mlflow.utils.uri import append_to_uri_path

        with tempfile.TemporaryDirectory() as folder, self.answering():
            root, parent = self._root(run_id), name.rpartition("/")[0]
            folder_uri = append_to_uri_path(root, parent) if parent else root  # type: ignore[no-untyped-call]
            beside = artifacts.list_artifacts(artifact_uri=folder_uri, tracking_uri=self.uri)
            if PurePosixPath(name).name not in {PurePosixPath(file.path).name for file in beside}:
                return None
            uri = append_to_uri_path(root, name)  # type: ignore[no-untyped-call]
            return Path(artifacts.download_artifacts(uri, dst_path=folder, tracking_uri=self.uri)).read_bytes()

    def _root(self, run_id: str) -> str:
        """Returns where the run's files are, which never changes; asked by run, MLflow looks it up for every call."""
        if run_id not in self._roots:
            self._roots[run_id] = self.client.get_run(run_id).info.artifact_uri
        return self._roots[run_id]

    @cached_property
    def _roots(self) -> dict[str, str]:
        return {}

    def folders(self, run_id: str, parent: str) -> list[str]:
        """Returns the paths of the folders right below one folder of the run's artifacts."""
        with self.answering():
            return [file.path for file in self.client.list_artifacts(run_id, parent) if file.is_dir]

    def load_json(self, run_id: str, name: str) -> Any:
        """Returns what one JSON file of the run holds, or None if there is no such file."""
        content = self.load_artifact(run_id, name)
        return None if content is None else json.loads(content)
