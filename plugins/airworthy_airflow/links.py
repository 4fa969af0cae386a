"""The buttons on a task's page: what a person wants to open after it ran.

An operator leaves addresses in `self.links`; Airflow stores each link when the task ends, also when
it failed.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import BaseOperatorLink


class _StageLink(BaseOperatorLink):
    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """Returns the address, or "" (Airflow then shows no button) if the task did not get that far."""
        return str(getattr(operator, "links", {}).get(type(self).__name__, ""))


class MlflowRun(_StageLink):
    name = "MLflow run"


class Lineage(_StageLink):
    name = "Lineage"


class ModelCard(_StageLink):
    name = "Model card"


class ValidationResult(_StageLink):
    name = "Validation result"


class DataDocs(_StageLink):
    name = "Data Docs"


class Profile(_StageLink):
    name = "Profile"


class SchemaContract(_StageLink):
    name = "Schema contract"


class DriftReport(_StageLink):
    name = "Drift report"


class MonitoringPage(_StageLink):
    name = "Monitoring"


class Endpoint(_StageLink):
    name = "Serving"


class GameDayReport(_StageLink):
    name = "Game day report"
