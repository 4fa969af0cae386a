"""Drift: the rows that come are not like those the champion was trained on."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from airworthy.drift import PREDICTION
from airworthy.gameday import Fault, Signal
from airworthy.gameday.copies import ACTOR, Copy
from airworthy.partitions import Partition
from airworthy.retrains import Decision
from airworthy.stages.alarms import of_monitoring
from airworthy.stages.decide import decide
from airworthy.stages.drift import drift
from airworthy.stages.monitor import loaded, score
from airworthy.stages.performance import performance

_SHARE = 5  # a fifth of the rows


class Drift(Fault):
    """Every row of as many partitions as `retrain.debounce` asks for gets the inputs of one that is rated high.

    Keys, times and labels stay, so that nothing else is wrong with them.
    """

    injects = "All rows get the inputs of the fifth that the champion rates highest; keys, times and labels stay."
    must = ("drift of the prediction", "alert drift", "retrain request")

    def inject(self, copy: Copy) -> Iterator[Signal]:
        for partition in copy.partitions:
            found, decision = self._monitored(copy, partition)
        yield Signal(alarm="drift of the prediction", fired=found[0], told=found[1])
        copy.tell(*of_monitoring(copy.pipeline, decision, copy.profile))
        yield copy.alert("drift")
        yield Signal(alarm="retrain request", fired=decision.retrain, told=f"{decision.action}: {decision.reason}")

    def _monitored(self, copy: Copy, partition: Partition) -> tuple[tuple[bool, str], Decision]:
        copy.publish(partition, _shifted(copy, partition))
        predictions = score(copy.pipeline, partition, copy.profile)
        found = drift(copy.pipeline, partition, predictions, copy.profile)
        measured = performance(copy.pipeline, partition, predictions, copy.profile)
        decision = decide(copy.pipeline, partition, found, [measured], copy.profile, ACTOR)
        column = next(one for one in found.columns if one.column == PREDICTION)
        far = "no values to compare" if column.score is None else f"{column.score:.3f}"
        told = f"{partition.key}: {far} from training, {column.threshold:g} is drift"
        return (column.drifted, column.note or told), decision


def _shifted(copy: Copy, partition: Partition) -> pd.DataFrame:
    rows = copy.rows(partition)
    entry = copy.champion
    assert entry is not None
    with loaded(copy.pipeline, entry, copy.profile) as model:
        prediction = model.predict_raw(rows)
    rate = prediction if prediction.ndim == 1 else prediction[:, prediction.mean(axis=0).argmin()]
    donors = rows.iloc[(-rate).argsort(kind="stable")[: max(1, len(rows) // _SHARE)]]
    drawn = donors.sample(len(rows), replace=True, random_state=0)
    inputs = copy.inputs(rows)
    return rows.assign(**{name: drawn[name].to_numpy() for name in inputs})
