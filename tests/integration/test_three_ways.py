"""The three ways people use it: a backfill as the UI makes it, the REST API, and the schedule."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from airworthy.airflow_api import AirflowApi, wait_for
from airworthy.errors import ServiceError
from airworthy.ledger import Ledger
from airworthy.resource_log import Record, ResourceLog
from airworthy.retrains import Retrains
from airworthy.store import Store

TINY = Path(__file__).with_name("tiny.yaml")
FIRST, LAST = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 10, tzinfo=UTC)


def backfilled(airflow: AirflowApi, dag_id: str, first: datetime, last: datetime, **options: object) -> list[dict]:
    """Returns the runs of the finished backfills of one DAG."""
    airflow.unpause(dag_id)
    airflow.backfill(dag_id, first, last, **options)
    return airflow.wait_for_backfill(dag_id)


def trained(airflow: AirflowApi, pipeline: str, as_of: str) -> str:
    dag_id = f"{pipeline}.train"
    airflow.unpause(dag_id)
    run_id = airflow.trigger(dag_id, as_of=as_of)
    airflow.wait(dag_id, run_id)
    return run_id


@pytest.fixture(scope="module")
def ingested(airflow: AirflowApi) -> list[dict]:
    return backfilled(airflow, "tiny.ingest", FIRST, LAST)


@pytest.fixture(scope="module")
def promoted(airflow: AirflowApi, ingested: list[dict]) -> str:
    return trained(airflow, "tiny", "2026-01-11")


def test_a_backfill_ingests_every_partition(airflow, ingested, store) -> None:
    assert {run["state"] for run in ingested} == {"success"}
    assert len(ingested) == 10
    assert set(store.partitions("features")) >= {f"2026-01-{day:02d}" for day in range(1, 11)}


def test_a_second_backfill_changes_no_table(airflow, ingested, store) -> None:
    before = {table: store.version(table) for table in ("raw", "features")}
    done = "Airflow to mark the first backfill done"
    wait_for(done, lambda: not airflow.backfilling("tiny.ingest") or None, timeout=90)
    again = backfilled(airflow, "tiny.ingest", FIRST, FIRST + timedelta(days=1), reprocess_behavior="completed")
    assert {run["state"] for run in again} == {"success"}
    assert {table: store.version(table) for table in before} == before


def test_twenty_runs_of_one_partition_at_once_leave_one_result(airflow, ingested, store) -> None:
    runs = [airflow.trigger("tiny.ingest", partition="2026-01-20") for _ in range(20)]
    assert [airflow.wait("tiny.ingest", run)["state"] for run in runs] == ["success"] * 20
    for table in ("raw", "features"):
        writes = [write for write in store.history(table) if write.partition == "2026-01-20"]
        assert len(writes) == 1, writes
        assert len(list(Path(store.uri(table)).glob("partition=2026-01-20/*.parquet"))) == 1
    references = {airflow.xcom("tiny.ingest", run, "process")[0]["digest"] for run in runs}
    assert references == {writes[0].digest}


def test_a_rest_call_trains_promotes_and_serves(airflow, promoted, stack) -> None:
    assert airflow.run("tiny.train", promoted)["state"] == "success"
    release = airflow.xcom("tiny.train", promoted, "deploy")
    answer = httpx.post(
        f"{stack.serving_url}/invocations",
        params={"pipeline": "tiny"},
        json={"dataframe_records": [{"id": "x", "at": "2026-01-12T05:00:00Z", "load": 0.5, "line": "blue"}]},
        timeout=60,
    ).json()
    assert answer["model_version"] == release["version"]
    assert 0.5 < answer["predictions"][0] <= 1


def test_what_every_task_took_is_on_record(ingested, promoted, stack) -> None:
    """Memory is the task's own: the worker that it is forked from has several hundred MB."""
    runs = {promoted, *(run["dag_run_id"] for run in ingested)}
    stages = {"ingest", "validate", "process", "train", "evaluate", "gates", "deploy"}

    def told() -> list[Record] | None:
        last = ResourceLog(stack.environment["AIRWORTHY_LEDGER_URL"]).last("tiny", 200)
        found = [one for records in last.values() for one in records if one.run in runs and one.state == "success"]
        return found if {one.stage for one in found} >= stages else None

    for one in wait_for("the record of every stage", told, timeout=30):
        assert 0 < one.cpu_seconds < 60 and 0 < one.peak_mb < one.resident_mb - 100


def test_training_again_as_of_the_same_date_makes_no_second_version(airflow, promoted, stack) -> None:
    entries = len(Ledger(stack.environment["AIRWORTHY_LEDGER_URL"]).entries("tiny"))
    again = trained(airflow, "tiny", "2026-01-11")
    assert airflow.tasks("tiny.train", again)["deploy"]["state"] in {"success", "skipped"}
    first, second = (airflow.xcom("tiny.train", run, "train") for run in (promoted, again))
    assert second["run_id"] == first["run_id"] and second["reused"]
    assert len(Ledger(stack.environment["AIRWORTHY_LEDGER_URL"]).entries("tiny")) == entries
    versions = httpx.get(
        f"{stack.mlflow_url}/api/2.0/mlflow/model-versions/search", params={"filter": "name='tiny'"}, timeout=60
    ).json()["model_versions"]
    assert len({version["source"] for version in versions}) == len(versions)


def test_a_challenger_that_learnt_nothing_is_refused_with_the_reason(airflow, stack, chat) -> None:
    backfilled(airflow, "noise.ingest", FIRST, FIRST + timedelta(days=5))
    run_id = trained(airflow, "noise", "2026-01-07")
    tasks = airflow.tasks("noise.train", run_id)
    assert tasks["gates"]["state"] == "success" and tasks["deploy"]["state"] == "skipped"
    floor = next(v for v in airflow.xcom("noise.train", run_id, "gates") if v["gate"] == "metric_floor")
    assert floor["status"] == "failed" and "is not surely at least 0.700" in floor["reason"]
    assert Ledger(stack.environment["AIRWORTHY_LEDGER_URL"]).champion("noise") is None
    (told,) = (posted["text"] for _, posted in chat.posted if "noise: metric_floor stopped" in posted["text"])
    assert told.startswith("noise: metric_floor stopped the challenger as of ")


def test_an_invalid_parameter_is_refused_with_a_clear_message(airflow) -> None:
    with pytest.raises(ServiceError, match=r"400.*as_of.*'yesterday' does not match"):
        airflow.trigger("tiny.train", as_of="yesterday")
    with pytest.raises(ServiceError, match=r"400.*partition"):
        airflow.trigger("tiny.ingest", partition="../../etc")


def test_nobody_knows_the_future(airflow, stack) -> None:
    airflow.unpause("tiny.train")
    run_id = airflow.trigger("tiny.train", as_of="2099-01-01")
    assert airflow.wait("tiny.train", run_id)["state"] == "failed"
    assert "must not be in the future. Got '2099-01-01'" in airflow.log("tiny.train", run_id, "train")
    log = ResourceLog(stack.environment["AIRWORTHY_LEDGER_URL"])

    def failed() -> bool | None:
        return any((one.run, one.state) == (run_id, "failed") for one in log.last("tiny").get("train", ())) or None

    wait_for("the record of the failure", failed, timeout=30)


def test_a_run_without_a_partition_fails_with_a_hint_and_an_alert(airflow, chat) -> None:
    run_id = airflow.trigger("tiny.ingest")
    assert airflow.wait("tiny.ingest", run_id)["state"] == "failed"
    assert "needs a partition" in airflow.log("tiny.ingest", run_id, "ingest")
    assert [posted["text"] for _, posted in chat.posted if run_id in posted["text"]] == [
        f"tiny: data is missing or bad: {run_id}"
    ]


def test_a_backfill_of_training_judges_but_never_promotes(airflow, promoted, stack) -> None:
    entries = Ledger(stack.environment["AIRWORTHY_LEDGER_URL"]).entries("tiny")
    runs = backfilled(airflow, "tiny.train", LAST, LAST)
    assert runs and {run["state"] for run in runs} == {"success"}
    tasks = airflow.tasks("tiny.train", runs[0]["dag_run_id"])
    assert tasks["gates"]["state"] == "success" and tasks["deploy"]["state"] == "skipped"
    assert airflow.xcom("tiny.train", runs[0]["dag_run_id"], "train")["backtest"], "it was skipped for another reason"
    assert Ledger(stack.environment["AIRWORTHY_LEDGER_URL"]).entries("tiny") == entries


def test_drift_requests_a_retrain_that_runs_on_its_own(airflow, promoted, stack, chat) -> None:
    """Closes the loop: shifted partition -> drift -> retrain_request -> a training run nobody started.

    Monitored again, the same partition asks for nothing and tells nobody.
    """
    shifted = airflow.trigger("tiny.ingest", partition="2026-02-01")
    assert airflow.wait("tiny.ingest", shifted)["state"] == "success"
    airflow.unpause("tiny.monitor")
    calm = airflow.trigger("tiny.monitor", partition="2026-01-09")
    drifted = airflow.trigger("tiny.monitor", partition="2026-02-01")
    assert airflow.wait("tiny.monitor", calm)["state"] == "success"
    assert airflow.wait("tiny.monitor", drifted)["state"] == "success"
    assert airflow.tasks("tiny.monitor", calm)["decide"]["state"] == "skipped"
    assert airflow.tasks("tiny.monitor", drifted)["decide"]["state"] == "success"

    def asked() -> dict | None:
        return next((run for run in airflow.runs("tiny.train") if run["run_type"] == "asset_triggered"), None)

    run = wait_for("the training run that the retrain request starts", asked, timeout=60)
    airflow.wait("tiny.train", run["dag_run_id"])
    assert airflow.xcom("tiny.train", run["dag_run_id"], "train")["as_of"].startswith("2026-02-02")

    again = airflow.trigger("tiny.monitor", partition="2026-02-01")
    assert airflow.wait("tiny.monitor", again)["state"] == "success"
    assert airflow.tasks("tiny.monitor", again)["decide"]["state"] == "skipped"
    decisions = Retrains(stack.environment["AIRWORTHY_LEDGER_URL"]).decisions("tiny")
    (request,) = (one for one in decisions if one.retrain)
    assert (request.partition, request.cause) == ("2026-02-01", "drift") and drifted in request.actor
    assert {one.cause for one in decisions if one.action == "train"} == {"person"}
    (told,) = (posted["text"] for _, posted in chat.posted if "drift" in posted["text"])
    assert told == f"tiny: drift of version {request.version} in 2026-02-01"


def test_the_schedule_ingests_trains_and_monitors_on_its_own(airflow: AirflowApi, stack, config_dir: Path) -> None:
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    text = TINY.read_text()
    for old, new in (
        ("start: 2026-01-01", f"start: {now - timedelta(hours=4):%Y-%m-%dT%H:%M:%SZ}"),
        ("end: 2026-03-01", "catchup: true"),
        ("partition: day", "partition: hour"),
        ("matures_after: 1 hour", "matures_after: 0 hours"),
        ('schedule: "0 0 * * *", holdout: 3 days', 'schedule: "0 * * * *", holdout: 2 hours'),
        ("  - metric_floor: {metric: roc_auc, floor: 0.7}\n  - beats_champion: {confidence: 0.9}\n", ""),  # one day
    ):
        assert old in text
        text = text.replace(old, new)
    (config_dir / "pipelines" / "ticking.yaml").write_text(text)

    airflow.wait_for_dags("ticking.ingest", "ticking.train", "ticking.monitor")
    airflow.unpause("ticking.ingest")
    store = Store(f"{stack.home}/store", "ticking")
    wait_for("four hourly partitions", lambda: store.partitions("features")[3:] or None, timeout=120)
    assert {run["run_type"] for run in airflow.runs("ticking.ingest")} == {"scheduled"}

    airflow.unpause("ticking.train")
    try:
        ledger = Ledger(stack.environment["AIRWORTHY_LEDGER_URL"])
        champion = wait_for("a champion that the schedule made", lambda: ledger.champion("ticking"), timeout=180)
        assert champion.actor.startswith("scheduled")
        airflow.unpause("ticking.monitor")
        wait_for("predictions that the schedule made", lambda: store.partitions("predictions") or None, timeout=120)
        assert {run["run_type"] for run in airflow.runs("ticking.monitor")} == {"scheduled"}
    finally:
        airflow.unpause("ticking.monitor", paused=True)
        airflow.unpause("ticking.train", paused=True)
        airflow.unpause("ticking.ingest", paused=True)
