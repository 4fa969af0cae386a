"""Late labels: those of a partition do not come in time, and then they do."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from airworthy.drift import Drift
from airworthy.gameday import Fault, Signal
from airworthy.gameday.copies import ACTOR, Copy
from airworthy.partitions import partition_at
from airworthy.stages.alarms import of_monitoring
from airworthy.stages.decide import decide
from airworthy.stages.monitor import score
from airworthy.stages.performance import FEATURES, Performance, matured, overdue, performance


class LateLabels(Fault):
    """A scored partition has no labels when `monitor.labels.deadline` is over; later it has them."""

    injects = "A scored partition has no labels when their deadline is over; afterwards they come."
    must = ("overdue labels", "alert labels", "performance once they came")

    def inject(self, copy: Copy) -> Iterator[Signal]:
        partition, pipeline = copy.partition, copy.pipeline
        copy.publish(partition, copy.rows(partition))
        known = copy.store.read(FEATURES, partitions=[partition.key])
        copy.store.write(FEATURES, partition, known.assign(**{pipeline.label.column: None}))
        predictions = score(pipeline, partition, copy.profile)
        waiting = performance(pipeline, partition, predictions, copy.profile)
        due = waiting.labels.due
        if due is None:
            yield Signal(alarm="overdue labels", fired=False, told="`monitor.labels.deadline` gives them any time")
        else:
            now = due + timedelta(minutes=1)
            late = [one for one in overdue(pipeline, copy.profile, now) if one.partition == partition.key]
            told = "; ".join(f"{one.told}, due {one.due:%Y-%m-%d %H:%M}" for one in late) or "nobody noticed"
            yield Signal(alarm="overdue labels", fired=bool(late), told=told)
            unmoved = Drift(
                pipeline=copy.name, partition=partition.key, version=waiting.version, rows=0, columns=(), page=""
            )
            decision = decide(pipeline, partition, unmoved, [waiting], copy.profile, ACTOR, record=False)
            copy.tell(*of_monitoring(pipeline, decision, copy.profile, now))
        yield copy.alert("labels", partition.key)
        copy.store.write(FEATURES, partition, known)
        came = matured(pipeline, partition_at(pipeline.partition, partition.end), copy.profile)
        yield _measured([one for one in came if one.labels.partition == partition.key], copy)


def _measured(came: list[Performance], copy: Copy) -> Signal:
    metric = copy.pipeline.metric
    found = [one for one in came if metric in one.metrics]
    told = "; ".join(f"{metric} {one.metrics[metric]:.3f} on {one.rows} labels" for one in found)
    return Signal(alarm="performance once they came", fired=bool(found), told=told or "it was not measured again")
