"""Writes the two files of a new pipeline, which run as they are on generated data."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from string import Template

from airworthy.errors import ConfigError

_NAME = re.compile(r"[a-z][a-z0-9_]{0,49}")
_DAYS = 60


def write_starter(name: str, root: Path, today: datetime | None = None) -> tuple[Path, Path]:
    """Leaves `config/pipelines/<name>.yaml` and `include/pipelines/<name>.py` under `root`, and returns both.

    Args:
        name: The new pipeline's name.
        root: The repository.
        today: Its first partition is 60 days before. Default: now.

    Raises:
        ConfigError: The name is not one a pipeline can have, or one of the files exists.
    """
    if not _NAME.fullmatch(name):
        rule = "must be lower case letters, digits and underscores, starting with a letter, at most 50"
        raise ConfigError("NAME", rule, name, "Try `make pipeline NAME=late_parcels`")
    declaration, module = root / "config" / "pipelines" / f"{name}.yaml", root / "include" / "pipelines" / f"{name}.py"
    for file in (declaration, module):
        if file.exists():
            raise ConfigError(str(file.relative_to(root)), "must not exist yet", hint="Choose another NAME")
    start = (today or datetime.now(UTC)) - timedelta(days=_DAYS)
    for file, template in ((module, _MODULE), (declaration, _DECLARATION)):
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf-8") as opened:
            opened.write(Template(template).substitute(name=name, start=f"{start:%Y-%m-%d}"))
    return declaration, module


_DECLARATION = """\
# yaml-language-server: $$schema=../pipeline.schema.json
#
# The pipeline `$name`: what its data is, what it must satisfy, what is learnt from it, and what a new model
# must prove before it answers. The rows come from include/pipelines/$name.py. It runs as it is; replace
# the generated parcels by your own data, and every choice below by yours.

# Shown in Airflow, beside each of its DAGs: $name.ingest, .train, .monitor and .quarantine.
description: Will a parcel be delivered late?
owner: airworthy
tags: [starter]

# Event time is cut into partitions, in UTC: hour, day, week (from Monday) or month. `end: 2027-01-01` would
# stop the schedule. With `catchup: true` Airflow fills in all partitions since `start` by itself; without,
# you say when: Airflow's Backfill button.
start: $start
partition: day
catchup: false
# Where several partitions are due, as in a backfill, one run may bring in up to so many of them. Airflow needs half a
# second for a task whatever it does, so this pays where partitions are small and many.
batch: 1

# Where raw rows come from. Either a function `extract(start, end)` that returns a pandas DataFrame ...
source:
  python: {function: "pipelines.$name:extract"}
# ... or files (.parquet, .csv, .jsonl; the latter two also .gz), one or several per partition, here or on S3:
#   files: {glob: "data/$name/{partition}.parquet"}
#   files: {glob: "s3://bucket/$name/{partition}/*.csv.gz", connection: aws_default}
# ... or a query, or another Delta table. Credentials are named by the id of an Airflow connection:
#   sql: {connection: warehouse, query: "select * from $name where at >= :start and at < :end order by at"}
#   delta: {uri: "s3://bucket/$name", time: at, connection: aws_default}
# A run waits for data that arrives late, without a worker, until `timeout` has passed:
# wait: {timeout: 6 hours, every: 5 minutes}

# Reference data that changes, such as weather or prices: each row gets the newest values known at its event time,
# and serving looks the latest ones up. More about it in the README.
# views:
#   weather:
#     source: {files: {glob: "data/weather/{partition}.parquet"}}
#     key: [depot]
#     time: observed_at
#     columns: [temp, wind]
#     max_age: 3 hours

# The columns with each row's event time, with what identifies a row, and with what to predict.
time: dispatched_at
key: [parcel_id]
label:
  column: late
  task: binary           # binary, multiclass or regression
  matures_after: 2 days  # how long after the event the label is known; younger rows are not trained on

# Personal columns, e.g. [recipient, street]. No model is given them, and no page, log or message shows a value
# of them; only the tables `raw`, `quarantine` and `repairs` keep them, and all tables if they are in the key.
pii: []

# What happens to a partition whose columns, types, categories or share of missing values are not those of the schema
# contract, config/contracts/$name.yaml, which is learnt from the first partition: block, warn or evolve.
contract:
  on_change: block
  null_tolerance: 0.1    # how far the share of missing values may lie outside

# Expectations of Great Expectations, under their own names. Rows that fail one about single rows go to the
# table `quarantine`; if more than `allowed_bad_share` do, or one about the table or a column fails, the
# partition is blocked. That there are rows and that the key is unique is always checked.
checks:
  allowed_bad_share: 0.02
  expectations:
    - expect_table_row_count_to_be_between: {min_value: 100, max_value: 2000}
    - expect_column_values_to_be_in_set: {column: service, value_set: [standard, express, bulky]}
    - expect_column_values_to_be_between: {column: weight_kg, min_value: 0, max_value: 40}
    - expect_column_values_to_be_between: {column: distance_km, min_value: 0, max_value: 500}
    - expect_column_values_to_not_be_null: {column: late}
    - expect_column_mean_to_be_between: {column: late, min_value: 0.02, max_value: 0.8}

# A person decides what becomes of rows in quarantine, in $name.quarantine: drop, release, or repair by a function
# of yours, e.g. `repairs: {in_kilograms: "pipelines.$name:in_kilograms"}`. `ask: true` lets the question come by
# itself; without an answer they stay there. Only `assigned_users` may answer, or everybody who may edit runs.
quarantine:
  ask: false
  repairs: {}
  answer_within: 7 days
  assigned_users: []

# Raw rows in, features out; the same function is called in training and for live requests. Without this key
# every column but key, time, label and personal ones is a feature.
features: pipelines.$name:features

# What validates and processes: local, in bounded memory, or spark, for partitions beyond one machine; the results are
# the same. Spark needs the extra `spark` and Java 17; its master and memory are set in config/profiles.
engine: local

# What is trained. `params` are the library's own; or, for any estimator of scikit-learn, or a class of yours:
#   sklearn: {estimator: sklearn.ensemble.HistGradientBoostingClassifier, params: {max_iter: 100}}
#   python: {class: "pipelines.$name:Model"}
model:
  xgboost: {params: {n_estimators: 80}}

# Optuna draws from `space` (int, float or choice; `log: true` draws by order of magnitude) until `trials` or
# `timeout` seconds are used up. Without `space` nothing is tuned. `prune` stops trials that fall behind; `warm_start`
# begins with what the last run as of an earlier date found. `limits: {latency_ms: 2, size_mb: 1}` narrow the choice.
tune:
  trials: 5
  timeout: 600
  prune: true
  warm_start: true
  space:
    max_depth: {int: [2, 5]}
    learning_rate: {float: [0.03, 0.3], log: true}

# When to train (cron, in UTC; null for never by itself), on how much of the past, and on which last stretch
# of time a model is judged without having seen it.
train:
  schedule: "0 6 * * 1"
  window: expanding      # or a span such as 90 days
  holdout: 7 days
  metric: roc_auc        # what tuning optimises; null for the task's usual one
  seed: 20130101
  threads: 1             # how many cores it may use; that many trials run at once
  imbalance: none        # or balanced: every class counts the same in sum
  exclude: []            # features that are not learned from, but that gates may judge by
  # weight: value        # the feature that says how much a row counts; it is not learned from

# What a challenger must prove. A gate that fails keeps it from being deployed, unless it says `on_fail: warn`, or
# `on_fail: ask`, which lets people decide. There are more: slices, fairness, calibration, stability, signature,
# latency, size, freshness, explained, leakage, approval; what each looks for is in the README.
gates:
  - metric_floor: {metric: roc_auc, floor: 0.65}                     # good enough by itself
  - beats_champion: {metric: roc_auc, margin: 0.0, confidence: 0.9}  # surely better than what answers now
  - servable: {}                                                     # the saved files answer as the model did

# Other ways to train or to judge, which `airworthy backtest compare $name declared wider` tries on the past.
# backtest:
#   policies:
#     wider: {train: {window: 90 days}}

# Where the champion answers, and how many seconds it has to go live before it is rolled back.
target:
  serving: {timeout: 60}

# A challenger that passed its gates may answer some of the requests first, by their key; labels and alarms then widen
# its share or take it back. `canary: {shadow: true}` compares it only. Without canary it is champion at once.
# canary:
#   shares: [0.1, 0.5]
#   error_rate: 0.05

# What serving keeps of its answers, in the table `captured`: which `share` of the requests, how long an answer may wait
# in memory, and whether to `drop` or to `push_back` (answer 503) what has no room while the table cannot be written.
capture:
  share: 1
  flush: 10 seconds
  when_full: drop

# How far a scored partition may be from training. Distances are Evidently's: normed Wasserstein for numbers,
# Jensen-Shannon for categories. Of partitions in which nothing changes, a share of `false_alarms` may raise an alarm.
# Performance counts once `enough` of a partition's labels are known. `kpis` are aggregates of raw rows in DuckDB's
# SQL, e.g. `kpis: {mean_weight: avg(weight)}`; they raise an alarm when their own past does not let expect them.
monitor:
  column_drift: 0.2
  prediction_drift: 0.3
  false_alarms: 0.01
  labels: {enough: 0.8, deadline: 3 days}

# What asks for a retrain: drift of predictions or columns, the metric on labelled rows below `floor` or worse than on
# the holdout by the share `tolerance`, `volume: 5000` new rows. `debounce` is how many partitions in a row must ask,
# `cooldown` the least time between trainings, which doubles with every request that brought no new champion, and
# `budget` how many requests a month may have. `confirm: true` lets labels have the last word on drift.
retrain:
  drift: [prediction]
  decay: {floor: 0.6}
  confirm: false
  debounce: 1
  cooldown: 7 days
  budget: 4

# Whom to tell of gates, drift, decay, data, labels, deploy and approval, once per incident, and what to do at once:
# retrain, roll_back, stop_serving or `fall_back: <version>`. Without `webhook` and `email` only the task's log tells.
# alerts:
#   webhook: {connection: ops_chat}
#   email: {to: [ops@example.com]}
#   respond: {decay: roll_back}
"""

_MODULE = '''\
"""The rows and features of the pipeline `$name`: parcels, generated.

Replace both functions by your own. Everything else is declared in config/pipelines/$name.yaml.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import pandas as pd

PARCELS_PER_DAY = 400


def extract(start: datetime, end: datetime) -> pd.DataFrame:
    """Returns the parcels dispatched in `[start, end)`, in UTC.

    The same interval must always give the same rows: a partition may be asked for again.
    """
    first = start.replace(hour=0, minute=0, second=0, microsecond=0)
    days = [first + timedelta(days=number) for number in range((end - first).days + 1)]
    parcels = pd.concat([_parcels(day) for day in days], ignore_index=True)
    return parcels[(parcels["dispatched_at"] >= start) & (parcels["dispatched_at"] < end)]


def features(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns what is known when a parcel leaves, one row per raw row, as numbers, bools and strings.

    `frame` has the raw columns but the label. Look only at the row itself: a live request is one row.
    """
    return pd.DataFrame(
        {
            "service": frame["service"],
            "depot": frame["depot"],
            "weight_kg": frame["weight_kg"],
            "distance_km": frame["distance_km"],
            "rain_mm": frame["rain_mm"],
            "hour": frame["dispatched_at"].dt.hour,
            "is_weekend": frame["dispatched_at"].dt.dayofweek >= 5,
        }
    )


def _parcels(day: datetime) -> pd.DataFrame:
    """Returns one day's parcels; the date is the seed."""
    random = np.random.default_rng(day.toordinal())
    count = PARCELS_PER_DAY
    hour = np.sort(random.uniform(6, 20, count))
    frame = pd.DataFrame(
        {
            "parcel_id": [f"{day:%Y%m%d}-{number:04d}" for number in range(count)],
            "dispatched_at": pd.Timestamp(day) + pd.to_timedelta((hour * 3600).astype(int), unit="s"),
            "depot": random.choice(["north", "south", "harbour"], count, p=[0.5, 0.3, 0.2]),
            "service": random.choice(["standard", "express", "bulky"], count, p=[0.6, 0.3, 0.1]),
            "weight_kg": random.gamma(2.0, 2.0, count).clip(0.1, 35).round(2),
            "distance_km": random.gamma(2.0, 30.0, count).clip(1, 450).round(1),
            "rain_mm": max(0.0, random.normal(1.0, 3.0)),
        }
    )
    burden = (
        0.02 * frame["distance_km"]
        + 0.15 * frame["rain_mm"]
        + 0.1 * (hour - 13).clip(0)
        + frame["service"].map({"standard": 0.0, "express": -1.2, "bulky": 0.9})
        + frame["depot"].map({"north": 0.0, "south": 0.2, "harbour": 0.8})
    )
    late = random.random(count) < 1 / (1 + np.exp(2.6 - burden))
    return frame.assign(late=late.astype("int64"))
'''
