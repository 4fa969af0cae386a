"""The assets through which a pipeline's three DAGs talk to each other and to everybody else's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset

from airworthy.config import Pipeline

if TYPE_CHECKING:
    from airworthy.profile import Profile
    from airworthy.registry import Challenger


def raw(pipeline: Pipeline) -> Asset:
    """Updated when a partition of raw rows is published; the event carries version, digest and origins."""
    return _asset(pipeline, "raw")


def features(pipeline: Pipeline) -> Asset:
    """Updated when a partition of features is published; the event carries what it was made from and left stale."""
    return _asset(pipeline, "features")


def champion(pipeline: Pipeline) -> Asset:
    """Updated when a challenger became champion; the event carries its version, run, features and intervals."""
    return _asset(pipeline, "champion")


def update_champion(
    context: Any, pipeline: Pipeline, challenger: Challenger, profile: Profile, **said: str | None
) -> None:
    """Updates the asset `champion` with what the new one was made from, and what else is said of it.

    Raises:
        AirworthyError: It cannot be found out what it was made from.
    """
    from airworthy.lineage import facts

    made_from = facts.of_model(pipeline, challenger, profile)
    context["outlet_events"][champion(pipeline)].extra = {
        **said,
        "as_of": challenger.as_of.isoformat(),
        **made_from,
    }


def retrain_request(pipeline: Pipeline) -> Asset:
    """Updated when monitoring asks for a retrain; the event carries `as_of` and the reason."""
    return _asset(pipeline, "retrain_request")


def _asset(pipeline: Pipeline, kind: str) -> Asset:
    return Asset(
        name=f"{pipeline.name}.{kind}",
        uri=f"airworthy://{pipeline.name}/{kind}",
        group=pipeline.name,
    )
