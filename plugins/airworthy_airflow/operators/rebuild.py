"""The operator of `<pipeline>.rebuild`."""

from __future__ import annotations

from typing import Any

from airflow.sdk.exceptions import AirflowSkipException

from airworthy.partitions import utc
from airworthy_airflow import links
from airworthy_airflow.operators.stage import StageOperator, final_errors


class RebuildOperator(StageOperator):
    """Trains a past champion again, and fails unless its files come out bit by bit as they are on record.

    It is the version that the run's parameter names, else a random one, the same whenever this run is run again.
    """

    operator_extra_links = (links.MlflowRun(),)

    def execute(self, context: Any) -> dict[str, Any]:
        from airworthy.registry import Registry
        from airworthy.stages.rebuild import past_champion, require_identical

        moment = utc(context.get("logical_date") or context["dag_run"].run_after)
        with final_errors():
            lineage = past_champion(self.pipeline, self.profile, moment, context["params"].get("version"))
            if lineage is None:
                raise AirflowSkipException(f"No version had been champion at {moment:%Y-%m-%d %H:%M} UTC")
            self.links[links.MlflowRun.__name__] = Registry(self.profile).run_url(lineage.run.run_id)
            found = require_identical(self.pipeline, lineage, self.profile)
        return found.model_dump(mode="json", exclude={"folder"})
