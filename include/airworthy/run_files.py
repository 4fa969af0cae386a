"""The files that MLflow keeps with a run."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
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
        parent = name.rpartition("/")[0] or None
        with tempfile.TemporaryDirectory() as folder, self.answering():
            if name not in {file.path for file in self.client.list_artifacts(run_id, parent)}:
                return None
            return Path(self.client.download_artifacts(run_id, name, folder)).read_bytes()

    def folders(self, run_id: str, parent: str) -> list[str]:
        """Returns the paths of the folders right below one folder of the run's artifacts."""
        with self.answering():
            return [file.path for file in self.client.list_artifacts(run_id, parent) if file.is_dir]

    def load_json(self, run_id: str, name: str) -> Any:
        """Returns what one JSON file of the run holds, or None if there is no such file."""
        content = self.load_artifact(run_id, name)
        return None if content is None else json.loads(content)
