"""The page of a pipeline over time: drift, performance as labels matured, retrains and what they brought, alerts."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

from airworthy import cli, monitoring_page
from airworthy.alerts.incidents import Incidents
from airworthy.config import Pipeline
from airworthy.errors import ServiceError
from airworthy.features import compute_features
from airworthy.ledger import Ledger
from airworthy.monitoring import monitoring
from airworthy.partitions import Partition, parse_key
from airworthy.stages.alarms import of_monitoring
from airworthy.stages.decide import decide
from airworthy.stages.drift import drift
from airworthy.stages.evaluate import evaluate, judge
from airworthy.stages.monitor import score
from airworthy.stages.performance import matured, performance
from serving_process import promote, trained
from toy_pipeline import Toy

APRIL, MAY, JUNE = (parse_key("month", f"2013-0{month}-01") for month in (4, 5, 6))


def month(toy: Toy, pipeline: Pipeline, partition: Partition) -> None:
    """Does what a run of the monitor DAG does, in its order."""
    predictions = score(pipeline, partition, toy.profile)
    found = drift(pipeline, partition, predictions, toy.profile)
    measured = [performance(pipeline, partition, predictions, toy.profile), *matured(pipeline, partition, toy.profile)]
    decision = decide(pipeline, partition, found, measured, toy.profile, f"run {partition.key}")
    for alert in of_monitoring(pipeline, decision, toy.profile, partition.end):
        Incidents(toy.profile.ledger_url).tell(alert, {"log": lambda _: "told"})


def test_a_drifting_quarter_is_told_with_what_its_retrain_brought(
    toy: Toy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline = toy.pipeline(monitor={"labels": {"enough": 0.5}}, gates=["servable"])
    Ledger(toy.profile.ledger_url).create()
    with pytest.raises(ServiceError, match=rf"has no monitored partition yet. Run {toy.name}.monitor"):
        monitoring_page.publish(pipeline, toy.profile)
    rows = toy.rows(days=181)
    rows.loc[rows["day"].between(90, 119), "distance"] += 2
    late = rows.assign(late=rows["late"].astype("float64"))
    known = np.random.default_rng(0).random(len(rows)) < 0.7
    store = toy.fill(pipeline, late.assign(late=late["late"].where(known | (rows["day"] < 120))))
    first = promote(toy, trained(toy, pipeline))
    month(toy, pipeline, APRIL)

    (request,) = monitoring(pipeline, toy.profile).decisions
    assert request.retrain and request.as_of == APRIL.end + timedelta(days=1)
    (told,) = monitoring(pipeline, toy.profile).retrained
    assert told.outcome == "no training as of then has ended well"
    challenger = trained(toy, pipeline, request.as_of)
    judge(pipeline, challenger, evaluate(pipeline, challenger, first, toy.profile), toy.profile)
    promote(toy, challenger, first)

    month(toy, pipeline, MAY)
    in_may = late[(late["time"] >= MAY.start) & (late["time"] < MAY.end)].reset_index(drop=True)
    identity = in_may[["flight", "day", "time", "late"]]
    store.write("features", MAY, identity.join(compute_features(pipeline, in_may)))
    month(toy, pipeline, JUNE)

    found = monitoring(pipeline, toy.profile)
    assert [one.partition.key for one in found.partitions] == [APRIL.key, MAY.key, JUNE.key]
    april, may, june = found.partitions
    assert (len(april.looks), len(may.looks), len(june.looks)) == (1, 2, 1)
    assert may.looks[0].known < may.looks[1].known == len(in_may)
    kept = store.read("metrics", partitions=[MAY.key]).set_index("metric")
    assert may.now == pytest.approx(kept.loc["roc_auc", "value"]) and may.first != may.now
    assert [one.looks[-1].version for one in found.partitions] == ["1", "1", "2"]  # in May nobody knew version 2
    (told,) = found.retrained
    assert told.outcome == "promoted as version 2" and told.holdout is not None
    assert told.holdout[0] > 0.5 and told.holdout[1] is not None
    assert told.after == (pytest.approx(june.now), 1)
    assert told.before is not None and told.before[1] == 2

    monkeypatch.setattr("os.environ", toy.environment({}))
    monkeypatch.setattr("airworthy.monitoring_page.load_profile", lambda _: toy.profile)
    assert cli.main(["monitoring", toy.name]) == 0
    file = toy.profile.reports_dir / monitoring_page.page_path(pipeline)
    assert capsys.readouterr().out.strip() == str(file)
    page = file.read_text()
    assert "promoted as version 2" in page and ">v2<" in page
    assert "prediction is" in page and "drift of version 1 in 2013-04-01" in page and "log: told" in page
    assert 'href="monitor/2013-05-01.html"' in page
    assert len(page) < 100_000
