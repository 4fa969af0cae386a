"""Searches on a real PostgreSQL, by real processes, one of which is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from threading import Barrier

import pytest
import sqlalchemy as sa
from mlflow import MlflowClient
from optuna.distributions import IntDistribution

from airworthy.registry import Registry
from airworthy.searches import Trial
from airworthy.stages.study import Study
from airworthy.stages.train import train
from postgres_process import postgres_server
from test_tuning import SPACE
from toy_pipeline import Toy

AS_OF = datetime(2013, 4, 1, tzinfo=UTC)
AT_ONCE = 6
TRAIN = """
import logging, sys, time
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, {tests!r})
from airworthy.config import load_pipeline
from airworthy.stages.train import train
from toy_pipeline import Toy

def slow(record):
    if record.getMessage().startswith("trial {later} of "):
        time.sleep(60)  # the search is not over before it is killed
    return True

logging.basicConfig(level="INFO", stream=sys.stdout, format="%(message)s")
logging.getLogger().handlers[0].addFilter(slow)
toy = Toy(Path({folder!r}), {mlflow!r}, {name!r})
profile = toy.profile.model_copy(update={{"tuning_url": {url!r}}})
pipeline = load_pipeline(toy.folder / "config" / "pipelines" / f"{{toy.name}}.yaml")
train(pipeline, datetime(2013, 4, 1, tzinfo=UTC), profile)
"""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with postgres_server() as found:
        yield found


def kill_in_search(toy: Toy, url: str, after: int) -> None:
    """Starts a training in a process of its own, and kills it while it works on the trial after `after`."""
    script = TRAIN.format(
        tests=str(Path(__file__).parent),
        folder=str(toy.folder),
        mlflow=toy.mlflow_uri,
        name=toy.name,
        url=url,
        later=after + 1,
    )
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if line.startswith(f"trial {after} of "):
            os.kill(process.pid, signal.SIGKILL)
    assert process.wait(timeout=60) == -signal.SIGKILL, "".join(said)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_killed_training_goes_on_where_it_was(
    toy: Toy, url: str, threads: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    pipeline = toy.pipeline(
        model={"xgboost": {"params": {"n_estimators": 500}}},
        tune={"trials": 12, "space": SPACE},
        train={"holdout": "1 month", "threads": threads},
    )
    toy.fill(pipeline, toy.rows())
    whole = train(pipeline, AS_OF, toy.profile)  # without interruption, and without a database
    client, registry = MlflowClient(toy.mlflow_uri), Registry(toy.profile)
    uninterrupted = registry.load_json(whole.run_id, "trials.json")
    client.delete_run(whole.run_id)

    kill_in_search(toy, url, after=4)
    kill_in_search(toy, url, after=8)
    caplog.clear()
    profile = toy.profile.model_copy(update={"tuning_url": url})
    challenger = train(pipeline, AS_OF, profile)
    (told,) = [line for line in caplog.messages if line.startswith("The search goes on after ")]
    assert 8 <= int(told.split()[5]) < 12
    resumed = registry.load_json(challenger.run_id, "trials.json")

    def without_times(table: dict) -> list[dict]:
        rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
        taken = ("seconds", "cpu_seconds", "peak_mb", "latency_ms")
        return [{name: row[name] for name in row if name not in taken} for row in rows]

    assert without_times(resumed) == without_times(uninterrupted)
    assert challenger.digest == whole.digest and challenger.training_key == whole.training_key
    experiment = client.get_experiment_by_name(pipeline.name).experiment_id
    assert sorted(run.info.status for run in client.search_runs([experiment])) == ["FINISHED", "KILLED", "KILLED"]


def test_processes_that_make_the_tables_at_once_share_them(url: str) -> None:
    with sa.create_engine(url).begin() as connection:
        connection.execute(sa.text("DROP SCHEMA IF EXISTS tuning CASCADE"))
    start = Barrier(AT_ONCE)

    def keep(number: int) -> None:
        start.wait(timeout=60)
        trial = Trial(number=number, params={"a": number}, value=0.1 + number, reports={50: 0.3}, seconds=1)
        Study("shared", url).keep(trial, {"a": IntDistribution(0, 9)})

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(keep, range(AT_ONCE)))
    found = Study("shared", url)
    assert [found.find(number, {"a": number}).value for number in range(AT_ONCE)] == [
        0.1 + number for number in range(AT_ONCE)
    ]
    assert found.find(0, {"a": 1}) is None and Study("other", url).find(0, {"a": 0}) is None


def test_other_tables_of_the_database_are_left_alone(url: str) -> None:
    """MLflow keeps its version in the table that Optuna keeps its own in."""
    with sa.create_engine(url).begin() as connection:
        connection.execute(sa.text("CREATE TABLE public.alembic_version (version_num varchar(32))"))
        connection.execute(sa.text("INSERT INTO public.alembic_version VALUES ('of another')"))
    Study("one", url)
    with sa.create_engine(url).begin() as connection:
        found = connection.execute(sa.text("SELECT version_num FROM public.alembic_version")).scalars().all()
        tables = sa.inspect(connection).get_table_names("public")
    assert found == ["of another"] and tables == ["alembic_version"]
