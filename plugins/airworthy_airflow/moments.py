"""Which partition, and which moment, a run is about."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.utils.types import DagRunType

from airworthy.config import Pipeline
from airworthy.errors import ConfigError
from airworthy.partitions import Partition, parse_key, partition_at, partitions_between, utc
from airworthy.policies import DECLARED

_SKEW = timedelta(minutes=1)  # between the clocks of the scheduler and of this machine


def partition_of(context: Any, pipeline: Pipeline) -> Partition:
    """Returns the partition a run works on: its `partition` parameter, else its data interval.

    Raises:
        DataError: The parameter does not name a partition.
        ConfigError: The run has neither.
    """
    if key := context["params"].get("partition"):
        return parse_key(pipeline.partition, key)
    start = context.get("data_interval_start") or context.get("logical_date")
    if start is None:
        hint = 'Trigger it with {"conf": {"partition": "2013-01-07"}} or a logical_date'
        raise ConfigError(f"run {context['run_id']}", "needs a partition", hint=hint)
    return partition_at(pipeline.partition, start)


def partitions_of(context: Any, pipeline: Pipeline) -> list[Partition]:
    """Returns every partition a run works on: that of `partition_of`, and those in its data interval after it.

    Raises:
        DataError: The parameter does not name a partition.
        ConfigError: The run has neither.
    """
    first = partition_of(context, pipeline)
    end = context.get("data_interval_end")
    if context["params"].get("partition") or end is None or end <= first.end:
        return [first]
    return list(partitions_between(pipeline.partition, first.start, end))


def as_of(context: Any) -> datetime:
    """Returns the moment a training run knows: its parameter, the request that caused it, or its date.

    Raises:
        ConfigError: It is none, or is yet to come.
    """
    where, value = f"run {context['run_id']}: as_of", _asked_for(context)
    try:
        moment = utc(value if isinstance(value, datetime) else datetime.fromisoformat(value))
    except (TypeError, ValueError):
        raise ConfigError(where, "must be a moment in ISO 8601", value) from None
    if moment > datetime.now(UTC) + _SKEW:
        hint = "A champion of the future would keep out every challenger until then"
        raise ConfigError(where, "must not be in the future", str(value), hint)
    return moment


def _asked_for(context: Any) -> Any:
    if value := context["params"].get("as_of"):
        return value
    events = [event for found in (context.get("triggering_asset_events") or {}).values() for event in found]
    asked = [event.extra["as_of"] for event in events if "as_of" in (event.extra or {})]
    return max(asked, key=str) if asked else context.get("logical_date") or context["dag_run"].run_after


def is_backfill(context: Any) -> bool:
    # A task has the type as an enum of its own, whose text is `DagRunType.BACKFILL`; its value is the same.
    return bool(context["dag_run"].run_type == DagRunType.BACKFILL_JOB.value)


def policy(context: Any) -> str:
    """Returns the policy a training run follows."""
    return str(context["params"].get("policy") or DECLARED)


def is_backtest(context: Any) -> bool:
    """Returns whether a training run may train and be judged, but never promote.

    That is so for every run of a backfill, and for a run that follows another policy than the declared one.
    """
    return is_backfill(context) or policy(context) != DECLARED
