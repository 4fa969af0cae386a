"""The assets through which a pipeline's three DAGs talk to each other and to everybody else's."""

from __future__ import annotations

from airflow.sdk import Asset

from airworthy.config import Pipeline


def raw(pipeline: Pipeline) -> Asset:
    """Updated when a partition of raw rows is published; the event carries version, digest and origins."""
    return _asset(pipeline, "raw")


def features(pipeline: Pipeline) -> Asset:
    """Updated when a partition of features is published; the event carries what it was made from and left stale."""
    return _asset(pipeline, "features")


def champion(pipeline: Pipeline) -> Asset:
    """Updated when a challenger became champion; the event carries its version, run, features and intervals."""
    return _asset(pipeline, "champion")


def retrain_request(pipeline: Pipeline) -> Asset:
    """Updated when monitoring asks for a retrain; the event carries `as_of` and the reason."""
    return _asset(pipeline, "retrain_request")


def _asset(pipeline: Pipeline, kind: str) -> Asset:
    return Asset(
        name=f"{pipeline.name}.{kind}",
        uri=f"airworthy://{pipeline.name}/{kind}",
        group=pipeline.name,
    )
