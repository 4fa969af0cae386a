"""Has Airflow run backtests: a backfill of the training DAG for each training that policies need."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from airworthy.airflow_api import ENDED, AirflowApi, wait_for
from airworthy.backtest import results
from airworthy.config import Pipeline
from airworthy.errors import ConflictError, ServiceError
from airworthy.profile import Profile
from airworthy.stages.train import declaration_key
from airworthy.store import Store

# Each run is one at a time, as live ones are, and an old run of the same date makes room for one with another policy.
_AS_LIVE = {"max_active_runs": 1, "reprocess_behavior": "completed"}
_FREED_WITHIN = 120.0  # seconds; Airflow marks a backfill done up to 30 s after its last run
_PER_RUN = 3600.0  # seconds


class Driver:
    """Drives backtests of one pipeline, and tells what happens as it happens."""

    def __init__(self, pipeline: Pipeline, airflow: AirflowApi, profile: Profile, say: Callable[[str], object]) -> None:
        self.pipeline = pipeline
        self.dag_id = f"{pipeline.name}.train"
        self._airflow = airflow
        self._profile = profile
        self._say = say

    def run(self, policies: Sequence[str], first: datetime, last: datetime, *, again: bool = True) -> None:
        """Returns once every date of the schedule has a result for each policy.

        Policies that differ in gates only share one training.

        Args:
            policies: Whose trainings.
            first: The first day.
            last: The last day, which counts.
            again: Whether to run dates, too, that are on record already.

        Raises:
            ServiceError: The DAG is switched off or has no run in this time, a run failed, or Airflow does not answer.
            ConflictError: Another backfill of the DAG is running, or live runs have the same dates.
        """
        self._ensure_on()
        end = last + timedelta(days=1) - timedelta(seconds=1)
        dates = self._airflow.backfill_dates(self.dag_id, first, end, reprocess_behavior="completed")
        if not dates:
            rule = f"must have a training between {first:%Y-%m-%d} and {last:%Y-%m-%d}"
            raise ServiceError(f"{self.dag_id}: schedule", rule, self.pipeline.train.schedule)
        done: set[str] = set()
        for policy in policies:
            under = self.pipeline.under(policy)
            missing = dates if again else self.missing(under, dates)
            if declaration_key(under) in done:
                self._say(f"{policy} trains as one of the policies before it does")
            elif not missing:
                self._say(f"{policy}: all {len(dates)} dates are on record")
            else:
                self._backfill(policy, [date for date in dates if missing[0] <= date <= missing[-1]])
            done.add(declaration_key(under))

    def missing(self, under: Pipeline, dates: Sequence[datetime]) -> list[datetime]:
        """Returns the dates for which nothing is on record that was trained just so."""
        store = Store(self._profile.store_uri, self.pipeline.name)
        known = {result.challenger.as_of for result in results.read(under, store)}
        return [date for date in dates if date not in known]

    def _ensure_on(self) -> None:
        self._airflow.wait_for_dags(self.dag_id)
        if self._airflow.get(f"dags/{self.dag_id}")["is_paused"]:
            hint = "Switch it on in Airflow; it then also trains on its schedule"
            raise ServiceError(self.dag_id, "must be switched on, or no backfill of it runs", hint=hint)

    def _require_no_live_runs(self, dates: Sequence[datetime], between: Mapping[str, str]) -> None:
        """Returns if Airflow has no other runs of these dates, which it would turn into runs of the backfill."""
        runs = [run for run in self._airflow.runs(self.dag_id, **between) if run["run_type"] != "backfill"]
        if live := sorted(run["dag_run_id"] for run in runs if datetime.fromisoformat(run["logical_date"]) in dates):
            rule = "must have no live runs of these dates, because Airflow would make them runs of the backtest"
            raise ConflictError(self.dag_id, rule, ", ".join(live), "Choose other dates with --from and --to")

    def _backfill(self, policy: str, dates: Sequence[datetime]) -> None:
        first, last = dates[0], dates[-1]
        between = {"logical_date_gte": first.isoformat(), "logical_date_lte": last.isoformat()}
        self._wait_until_free()
        self._require_no_live_runs(dates, between)
        self._say(f"backfill of {self.dag_id} with policy {policy}, {first:%Y-%m-%d} to {last:%Y-%m-%d}")
        started = time.monotonic()
        self._airflow.backfill(self.dag_id, first, last, dag_run_conf={"policy": policy}, **_AS_LIVE)
        told: set[str] = set()

        def ended() -> bool | None:
            runs = self._airflow.runs(self.dag_id, run_type="backfill", **between)
            for run in sorted(runs, key=lambda run: str(run["logical_date"])):
                if run["state"] in ENDED and run["dag_run_id"] not in told:
                    told.add(run["dag_run_id"])
                    self._tell(policy, run["dag_run_id"], run["logical_date"], run["state"])
            return len(told) == len(runs) > 0 or None

        wait_for(f"backfill of {self.dag_id}", ended, timeout=_PER_RUN * len(dates), pause=1)
        self._say(f"policy {policy}: {len(told)} runs in {time.monotonic() - started:.0f} s")

    def _tell(self, policy: str, run_id: str, logical_date: str, state: str) -> None:
        day = f"{datetime.fromisoformat(logical_date).astimezone(UTC):%Y-%m-%d}"
        if state != "success":
            raise ServiceError(f"{self.dag_id} {run_id}", "must not fail", hint="Open the failed task's log in Airflow")
        metric = self.pipeline.under(policy).metric
        challenger = self._airflow.xcom(self.dag_id, run_id, "train")
        self._say(f"{policy}, as of {day}: {metric} {challenger['metrics'][metric]:.4f} on its holdout")

    def _wait_until_free(self) -> None:
        try:
            wait_for("free", lambda: not self._airflow.backfilling(self.dag_id) or None, _FREED_WITHIN, pause=2)
        except ServiceError:
            hint = "Wait for it, or cancel it in Airflow"
            raise ConflictError(
                self.dag_id, "has another backfill, and Airflow allows one at a time", hint=hint
            ) from None
