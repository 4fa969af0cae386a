"""The operator of `<pipeline>.rollback`."""

from __future__ import annotations

from typing import Any

from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from airworthy.errors import ConflictError
from airworthy_airflow import assets, links
from airworthy_airflow.operators.stage import StageOperator, final_errors


class RollbackOperator(StageOperator):
    """Makes an earlier champion champion again, and waits until its target answers with it.

    A retry finishes what the first attempt put on the ledger, and goes no further back.
    """

    operator_extra_links = (links.MlflowRun(), links.Endpoint())

    def execute(self, context: Any) -> dict[str, Any]:
        from airworthy.registry import Registry
        from airworthy.stages.rollback import rollback

        to, reason = (context["params"].get(name) or "" for name in ("to", "reason"))
        user = context["dag_run"].triggering_user_name
        actor = f"{context['run_id']} by {user}" if user else context["run_id"]
        registry = Registry(self.profile)
        with final_errors():
            try:
                done = rollback(self.pipeline, self.profile, actor, to=to, reason=reason, once=True)
            except ConflictError as conflict:  # a retry would roll back from a champion that nobody meant
                raise AirflowFailException(str(conflict)) from conflict
            self.links[links.Endpoint.__name__] = done.endpoint
            self.links[links.MlflowRun.__name__] = registry.run_url(done.run_id)
            if not done.changed:
                raise AirflowSkipException(f"Version {done.version} is champion already, and answers")
            self.log.info("Version %s is champion again, and answers", done.version)
            said = {"version": done.version, "replaced": done.replaced, "reason": reason}
            assets.update_champion(context, self.pipeline, registry.challenger(done.run_id), self.profile, **said)
        return done.model_dump(mode="json")
