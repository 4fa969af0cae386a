"""The gates that look at files, tables and recorded requests, on models that were trained and evaluated."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from pydantic import ValidationError

from airworthy.evidence import Measured
from airworthy.gates import Gate
from airworthy.gates.explained import Explained
from airworthy.gates.freshness import Freshness
from airworthy.gates.latency import Latency
from airworthy.gates.leakage import Leakage
from airworthy.gates.signature import Signature
from airworthy.gates.size import Size
from airworthy.gates.stability import Stability
from airworthy.ledger import Entry
from airworthy.registry import Challenger, FeaturesRef
from airworthy.serving.check import check_in_fresh_process
from airworthy.stages.evaluate import open_case
from airworthy.stages.train import train
from airworthy.verdict import Verdict
from judged_case import case as made_case
from judged_case import holdout, probability, verdict
from test_evaluate import crown
from toy_pipeline import Toy

AS_OF = datetime(2013, 4, 1, tzinfo=UTC)
GATES = (Latency(p99_ms=500, against_champion=20), Size(), Signature(), Freshness(), Explained(), Leakage())
LINEAR = {"sklearn": {"estimator": "sklearn.linear_model.LogisticRegression"}}
FEATURES = 'def features(frame):\n    return frame[["distance", "carrier_name", "wind"]]'


def judged(toy: Toy, pipeline, challenger: Challenger, *gates: Gate, champion: Entry | None = None) -> list[Verdict]:
    declared = pipeline.model_copy(update={"gates": gates})
    with open_case(declared, challenger, champion, toy.profile) as case:
        return [verdict(gate, case) for gate in gates]


def test_a_good_model_passes_them_all_with_and_without_a_champion(toy: Toy) -> None:
    pipeline = toy.pipeline()
    toy.fill(pipeline, toy.rows())
    challenger = train(pipeline, AS_OF, toy.profile)
    for found in judged(toy, pipeline, challenger, *GATES):
        assert found.passed, found
    linear = toy.pipeline(model=LINEAR)
    other = train(linear, AS_OF, toy.profile)
    latency, *rest = judged(toy, linear, other, *GATES, champion=crown(toy, challenger))
    assert all(found.passed for found in (latency, *rest)), rest
    assert latency.evidence["challenger"]["timed"] >= latency.evidence["challenger"]["rounds"] > 0
    assert latency.evidence["champion"]["p50_ms"] > 0
    shares = rest[3].evidence["shares"]
    assert rest[3].evidence["method"] == "permutation" and sum(shares.values()) == pytest.approx(1)
    assert set(list(shares)[:2]) <= {"distance", "wind", "long"}


def test_a_slow_and_large_model_is_stopped(toy: Toy) -> None:
    forest = {"sklearn": {"estimator": "sklearn.ensemble.RandomForestClassifier", "params": {"n_estimators": 400}}}
    pipeline = toy.pipeline()
    toy.fill(pipeline, toy.rows())
    champion = crown(toy, train(pipeline, AS_OF, toy.profile))
    pipeline = toy.pipeline(model=forest)
    slow = train(pipeline, AS_OF, toy.profile)
    gates = Latency(p50_ms=2), Latency(against_champion=2), Size(megabytes=0.5), Size(memory_megabytes=20)
    absolute, relative, files, memory = judged(toy, pipeline, slow, *gates, champion=champion)
    assert absolute.status == relative.status == files.status == memory.status == "failed"
    assert absolute.reason.startswith("p50_ms is ") and "allowed is 2 (" in absolute.reason
    assert "2 times the champion's" in relative.reason
    assert "MB, allowed are 0.5" in files.reason
    assert "MB of memory, allowed are 20" in memory.reason


def test_features_that_sleep_are_slow_on_a_busy_machine_too(toy: Toy) -> None:
    pipeline = toy.pipeline()
    toy.fill(pipeline, toy.rows())
    challenger = train(pipeline, AS_OF, toy.profile)
    module = toy.folder / "code" / "toy_features.py"
    module.write_text("import time\n" + module.read_text().replace("return", "time.sleep(0.05)\n    return"))
    (found,) = judged(toy, pipeline, challenger, Latency(p99_ms=50))
    assert found.status == "failed" and found.evidence["challenger"]["p50_ms"] >= 50


def test_what_no_process_could_measure_is_not_passed(toy: Toy) -> None:
    broken = SimpleNamespace(
        measured=lambda: Measured(0, 0.0, 0.0, error="the file is damaged"),
        measured_champion=lambda: None,
        evidence=SimpleNamespace(),
    )
    for gate in (Latency(p99_ms=50), Size()):
        made = gate.gather(broken)
        found = gate.judge(SimpleNamespace(of=lambda _, made=made: made, has_champion=False))
        assert found.status == "failed" and "the file is damaged" in found.reason


def test_a_check_that_is_not_timed_measures_files_and_memory(toy: Toy) -> None:
    pipeline = toy.pipeline()
    toy.fill(pipeline, toy.rows())
    challenger = train(pipeline, AS_OF, toy.profile)
    with open_case(pipeline, challenger, None, toy.profile) as case:
        found = check_in_fresh_process(case.own.folder, challenger.digest, toy.name)
        size = sum(file.stat().st_size for file in case.own.folder.rglob("*") if file.is_file())
    assert (found.timed, found.p50_ms, found.bytes) == (0, 0.0, size)
    assert 20 < found.peak_megabytes < 2000


def test_a_latency_without_a_limit_is_not_declared() -> None:
    with pytest.raises(ValidationError, match="must have a limit"):
        Latency()


def test_old_and_missing_data_is_named(toy: Toy) -> None:
    pipeline = toy.pipeline(partition="day")
    rows = toy.rows()
    gap = (rows["day"] >= 40) & (rows["day"] < 56)
    toy.fill(pipeline, rows[~gap & (rows["day"] < 85)])
    challenger = train(pipeline, AS_OF, toy.profile)
    (found,) = judged(toy, pipeline, challenger, Freshness())
    assert found.status == "failed"
    assert "the newest row of the holdout is 5." in found.reason and "allowed are 3" in found.reason
    assert "16 of 59 partitions of the window are missing (2013-02-10, 2013-02-11, 2013-02-12, ...)" in found.reason
    (lenient,) = judged(toy, pipeline, challenger, Freshness(age="8 days", partitions=0.5))
    assert lenient.passed, lenient


def test_a_partition_that_began_before_the_pipeline_is_not_missing(toy: Toy) -> None:
    pipeline = toy.pipeline(partition="week")  # from a Tuesday on, so Airflow's first week is the next one
    rows = toy.rows()
    toy.fill(pipeline.model_copy(update={"start": datetime(2013, 1, 7, tzinfo=UTC)}), rows[rows["day"] >= 6])
    (found,) = judged(toy, pipeline, train(pipeline, AS_OF, toy.profile), Freshness())
    assert found.evidence["window_partitions"] == 1, found


def test_days_of_the_week_that_never_have_rows_are_not_missing_and_unknown_labels_are(toy: Toy) -> None:
    pipeline = toy.pipeline(partition="day")
    rows = toy.rows()
    rows["late"] = rows["late"].astype("float64")
    rows.loc[(rows["day"] >= 60) & (rows["day"] % 5 > 1), "late"] = None
    toy.fill(pipeline, rows[(rows["day"] + 1) % 7 < 5])  # 2013-01-01 was a Tuesday
    (found,) = judged(toy, pipeline, train(pipeline, AS_OF, toy.profile), Freshness())
    assert found.status == "failed"
    assert "labels are known" in found.reason and "partitions" not in found.reason


@pytest.mark.parametrize("subsample", [1.0, 0.5])
def test_a_model_is_trained_again_only_if_its_seed_decides_something(toy: Toy, subsample: float) -> None:
    pipeline = toy.pipeline(model={"xgboost": {"params": {"n_estimators": 10, "subsample": subsample}}})
    toy.fill(pipeline, toy.rows())
    (found,) = judged(toy, pipeline, train(pipeline, AS_OF, toy.profile), Stability(spread=1.0, seeds=2))
    assert found.passed and found.evidence["seeds"] == 3
    assert (found.evidence["spread"] > 0) == (subsample < 1)


def test_a_model_that_rests_on_one_feature_is_stopped(toy: Toy) -> None:
    pipeline = toy.pipeline()
    rows = toy.rows()
    toy.fill(pipeline, rows.assign(late=rows["distance"] > 0))
    found = judged(toy, pipeline, train(pipeline, AS_OF, toy.profile), Explained(), Explained(share=1.0))
    assert found[0].status == "failed" and found[0].reason.startswith("distance has ")
    assert found[0].evidence["method"] == "SHAP" and found[1].passed


def permuted(label: np.ndarray, feature: str, seed: int = 0):
    """Returns a case whose model answers with one of its features, and has no contributions."""
    rows, block, _ = holdout(seed)
    made = made_case(rows, block, label, probability(rows[feature].to_numpy()))
    made.own.contract.classes = ("0", "1")
    made.own.contributions = lambda sample: None
    made.own.predict = lambda sample: probability(sample[feature].to_numpy("float64"))
    return made


def test_one_positive_row_is_looked_at_by_permutation() -> None:
    label = np.zeros(6000, dtype=int)
    label[4321] = 1
    found = verdict(Explained(rows=100), permuted(label, "wind"))
    assert (found.status, found.evidence["rows"]) == ("failed", 100)
    assert found.evidence["method"] == "permutation" and "ERROR" not in found.reason


def test_features_that_do_not_help_are_not_called_without_effect() -> None:
    wind = holdout(0)[0]["wind"].to_numpy()
    found = verdict(Explained(), permuted((wind < 10).astype(int), "wind"))
    assert found.status == "failed"
    assert found.reason == "roc_auc is no worse when the values of any one feature are permuted, on 2000 rows"


def test_an_imported_model_is_judged_on_the_rows_of_this_side(toy: Toy, tmp_path: Path) -> None:
    """It learnt from rows until March that are elsewhere; here there are those of April."""
    changes = {"partition": "day", "label": {"column": "late", "matures_after": "10 days"}}
    pipeline = toy.pipeline(**changes)
    toy.fill(pipeline, toy.rows().astype({"late": "float64"}))
    trained = train(pipeline, AS_OF, toy.profile)
    rows = toy.rows(days=120, seed=7)
    rows["late"] = rows["late"].astype("float64")
    april, newest, gap = rows["day"] >= 90, rows["day"] >= 110, (rows["day"] >= 100) & (rows["day"] < 105)
    rows.loc[newest, "late"] = None
    update = {"as_of": datetime(2013, 5, 1, tzinfo=UTC), "holdout": (AS_OF, datetime(2013, 4, 21, tzinfo=UTC))}

    def here(name: str, held) -> list[Verdict]:
        side = Toy(tmp_path / name, toy.mlflow_uri, toy.name)
        side.folder.mkdir()
        version = side.fill(pipeline.model_copy(update={"start": AS_OF}), held).version("features")
        features = FeaturesRef(version=version, digest="", rows=len(held))
        challenger = trained.model_copy(update={**update, "features": features})
        return judged(side, pipeline, challenger, Freshness(), Leakage(), Stability())

    fresh, honest, stable = here("whole", rows[april])
    assert fresh.passed, fresh
    assert stable.passed and stable.reason.endswith("what it learnt from is elsewhere")
    assert honest.passed, honest
    assert fresh.evidence["labels"] == 1 and set(fresh.evidence) == {"labels", "holdout_age_days", "holdout_partitions"}
    rows.loc[newest, "wind"] = None
    fresh, late, _ = here("gap", rows[april & ~gap])
    assert fresh.reason == "5 of 20 partitions of the holdout are missing (2013-04-11, 2013-04-12, 2013-04-13, ...)"
    assert late.reason.startswith("wind is known too late (missing in 100% against ")


def test_times_after_the_rows_own_are_stopped_if_a_prediction_depends_on_them(toy: Toy) -> None:
    rows = toy.rows()
    landed = rows["time"] + timedelta(hours=2) + rows["late"] * timedelta(hours=1)
    pipeline = toy.pipeline()
    unused = rows.assign(landed=landed)
    toy.fill(pipeline, unused)
    (found,) = judged(toy, pipeline, train(pipeline, AS_OF, toy.profile), Leakage())
    assert found.passed
    flown = '.assign(flown=(frame["landed"] - frame["time"]).dt.total_seconds())'
    (toy.folder / "code" / "toy_features.py").write_text(FEATURES + flown + "\n")
    sys.modules.pop("toy_features")
    used = Toy(toy.folder, toy.mlflow_uri, f"{toy.name}_used")
    pipeline = used.pipeline()
    used.fill(pipeline, unused)
    challenger = train(pipeline, AS_OF, used.profile)
    (found,) = judged(used, pipeline, challenger, Leakage())
    assert "landed is after the row's time in 100% of requests" in found.reason
    assert "flown tells the label alone (AUC 1.000" in found.reason
    (known,) = judged(used, pipeline, challenger, Leakage(known=("landed", "flown")))
    assert known.passed


def test_features_that_come_later_than_their_rows_are_stopped(toy: Toy) -> None:
    pipeline = toy.pipeline(label={"column": "late", "matures_after": "10 days"})
    rows = toy.rows(days=90)
    rows.loc[rows["day"] >= 80, "wind"] = None
    rows["late"] = rows["late"].astype("float64")
    rows.loc[rows["day"] >= 80, "late"] = None
    toy.fill(pipeline, rows)
    (found,) = judged(toy, pipeline, train(pipeline, AS_OF, toy.profile), Leakage())
    assert found.status == "failed"
    assert found.reason.startswith("wind is known too late (missing in 100% against ")
