"""Operators of `game_day`: copy, inject, report, remove."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from airworthy.profile import load_profile, pipelines_dir
from airworthy_airflow import links, reports
from airworthy_airflow.operators.stage import final_errors

LENT = "lent"  # what `CopyOperator` says beside the faults


class CopyOperator(BaseOperator):
    """Makes the copy of the pipeline that the run names. Returns the names of the faults to come."""

    def execute(self, context: Any) -> list[str]:
        from airworthy.config import load_pipeline
        from airworthy.gameday.making import make

        with final_errors():
            copy = make(load_pipeline(pipelines_dir() / f"{context['params']['pipeline']}.yaml"), load_profile())
        for told in copy.lent:
            self.log.warning("%s", told)
        context["ti"].xcom_push(LENT, list(copy.lent))
        return list(context["params"]["faults"])


class InjectOperator(BaseOperator):
    """Puts one fault into the copy, and fails unless all its alarms fire.

    Args:
        fault: Its name.
    """

    template_fields: Sequence[str] = ("fault",)

    def __init__(self, *, fault: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.fault = fault

    def execute(self, context: Any) -> dict[str, Any]:
        from airworthy.gameday.copies import Copy
        from airworthy.gameday.day import play

        with final_errors():
            outcome = play(self.fault, Copy.of(context["params"]["pipeline"], load_profile()))
        told = outcome.model_dump(mode="json")
        if outcome.status != "passed":
            context["ti"].xcom_push("return_value", told)
            raise AirflowFailException(outcome.told)
        return told


class ReportOperator(BaseOperator):
    """Writes the report, and fails unless every alarm fired; a fault that left no result has fired none.

    Args:
        outcomes: What each `InjectOperator` returned.
        lent: What the copy has that the pipeline does not declare.
    """

    template_fields: Sequence[str] = ("outcomes", "lent")
    operator_extra_links = (links.GameDayReport(),)

    def __init__(self, *, outcomes: Any, lent: Any, **kwargs: Any) -> None:
        super().__init__(trigger_rule="all_done", **kwargs)
        self.outcomes = outcomes
        self.lent = lent
        self.links: dict[str, str] = {}

    def execute(self, context: Any) -> str:
        from airworthy.gameday import Outcome
        from airworthy.gameday.page import GameDay, in_order, publish, require_all

        profile, params = load_profile(), context["params"]
        outcomes = [Outcome.model_validate(one) for one in self.outcomes or ()]
        day = GameDay(
            pipeline=params["pipeline"],
            at=context["dag_run"].start_date,
            lent=tuple(self.lent or ()),
            outcomes=in_order(params["faults"], outcomes),
        )
        publish(day, profile.reports_dir)
        self.links[links.GameDayReport.__name__] = reports.url(day.page)
        with final_errors():
            require_all(day)
        return day.page


class RemoveOperator(BaseOperator):
    """Leaves nothing of the copy, whatever became of it."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(trigger_rule="all_done", **kwargs)

    def execute(self, context: Any) -> None:
        from airworthy.gameday.making import remove

        with final_errors():
            remove(context["params"]["pipeline"], load_profile())
