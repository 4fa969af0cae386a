from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from mlflow import MlflowClient

from airworthy.config import Pipeline
from airworthy.distances import distance
from airworthy.drift import ColumnDrift, Drift, Limits, compare
from airworthy.errors import AirworthyError, DataError
from airworthy.kpis import KpiFinding
from airworthy.ledger import Ledger
from airworthy.model_files import load_model
from airworthy.partitions import Partition, parse_key
from airworthy.reference import load_reference
from airworthy.registry import Registry
from airworthy.retrains import Decision, Retrains
from airworthy.sketches import sketch_chunks, sketch_frame
from airworthy.stages.decide import decide
from airworthy.stages.drift import drift
from airworthy.stages.monitor import columns_of, score, write_predictions
from airworthy.stages.performance import Labels, Performance, performance
from airworthy.store import Store, TableRef
from serving_process import MARCH, promote, trained
from toy_pipeline import Toy

APRIL = parse_key("month", "2013-04-01")
MAY_1 = datetime(2013, 5, 1, tzinfo=UTC)
IN_APRIL = (90, 120)


@dataclass
class Watched:
    """A pipeline with a champion as of April, and its April."""

    toy: Toy
    pipeline: Pipeline

    def score(self, partition: Partition = APRIL) -> TableRef:
        return score(self.pipeline, partition, self.toy.profile)

    def drift(self) -> Drift:
        return drift(self.pipeline, APRIL, self.score(), self.toy.profile)

    def decide(self, findings: Drift, measured: Performance, **options: bool) -> Decision:
        return decide(self.pipeline, APRIL, findings, [measured], self.toy.profile, "run", **options)

    def performance(self) -> Performance:
        return performance(self.pipeline, APRIL, self.score(), self.toy.profile)

    @property
    def store(self) -> Store:
        return Store(self.toy.profile.store_uri, self.pipeline.name)


def watch(toy: Toy, rows: pd.DataFrame, **changes: object) -> Watched:
    pipeline = toy.pipeline(**changes)
    toy.fill(pipeline, rows)
    promote(toy, trained(toy, pipeline))
    return Watched(toy, pipeline)


def in_april(rows: pd.DataFrame) -> pd.Series:
    return rows["day"].between(*IN_APRIL, inclusive="left")


def known(metrics: dict[str, float]) -> Performance:
    """Returns what `performance` says of a partition whose labels are all there, or have not come."""
    rows = 600 if metrics else 0
    labels = Labels(
        partition=APRIL.key,
        predicted=600,
        known=rows,
        wrong_keys=0,
        contradicted=0,
        digest="",
        features=1,
        enough=0.8,
        due=None,
    )
    return Performance(version="1", labels=labels, metrics=metrics, table=None)


def quiet() -> Drift:
    return Drift(pipeline="", partition=APRIL.key, version="1", rows=600, columns=(), page="")


def found(findings: Drift, column: str) -> ColumnDrift:
    return next(one for one in findings.columns if one.column == column)


def test_a_partition_is_scored_once_by_the_champion_of_its_time(toy: Toy) -> None:
    watched = watch(toy, toy.rows(days=120))
    reference = watched.score()
    predictions = watched.store.read("predictions", partitions=[APRIL.key])
    assert list(predictions) == ["flight", "day", "time", "prediction", "version"]
    assert (reference.rows, reference.changed, set(predictions["version"])) == (600, True, {"1"})
    features = watched.store.read("features", partitions=[APRIL.key])
    assert np.corrcoef(predictions["prediction"], features["late"])[0, 1] > 0.4
    later = trained(toy, watched.pipeline, MAY_1)
    promote(toy, later, Ledger(toy.profile.ledger_url).champion(toy.name))
    assert watched.score() == reference.model_copy(update={"changed": False})


def test_a_version_that_was_rolled_back_scores_nothing(toy: Toy) -> None:
    watched = watch(toy, toy.rows(days=120))
    ledger = Ledger(toy.profile.ledger_url)
    first = ledger.champion(toy.name)
    second = promote(toy, trained(toy, toy.pipeline(model={"xgboost": {"params": {"n_estimators": 5}}})), first)
    ledger.rollback(toy.name, second.version, "test")
    watched.score()
    assert set(watched.store.read("predictions")["version"]) == {"1"}


def test_without_champion_or_rows_it_says_what_to_run(toy: Toy) -> None:
    pipeline = toy.pipeline()
    toy.fill(pipeline, toy.rows(days=100))
    Ledger(toy.profile.ledger_url).create()
    with pytest.raises(AirworthyError, match=rf"must have a champion to monitor. Run {toy.name}.train first"):
        score(pipeline, APRIL, toy.profile)
    promote(toy, trained(toy, pipeline))
    with pytest.raises(DataError, match=r"features\[2013-06-01\]: must hold rows"):
        score(pipeline, parse_key("month", "2013-06-01"), toy.profile)


def test_nothing_drifts_between_two_draws_of_the_same_world(toy: Toy) -> None:
    findings = watch(toy, toy.rows(days=120)).drift()
    assert findings.drifted == ()
    names = ["distance", "carrier_name", "wind", "hour", "long", "prediction"]
    assert [column.column for column in findings.columns] == names
    assert Drift.model_validate(findings.model_dump(mode="json")) == findings
    assert "No column has drifted" in (toy.profile.reports_dir / findings.page).read_text()
    assert not list(toy.profile.reports_dir.rglob("*.evidently.html"))


def test_a_planted_shift_is_found_shown_and_acted_on(toy: Toy) -> None:
    rows = toy.rows(days=120)
    rows.loc[in_april(rows), "distance"] += 2
    watched = watch(toy, rows)
    findings = watched.drift()
    assert {column.column for column in findings.drifted} == {"distance", "long", "prediction"}
    assert found(findings, "distance").score == pytest.approx(2, abs=0.2)
    assert all(one.sampled is not None and one.sampled >= one.threshold for one in findings.drifted)  # Evidently agrees
    assert all(one.chance < 0.01 and one.remedy for one in findings.drifted)
    page = toy.profile.reports_dir / findings.page
    assert page.stat().st_size < 100_000 and "2013-04-01.evidently.html" in page.read_text()
    assert findings.page == f"{toy.name}/monitor/2013-04-01.html"
    assert "<td>distance</td>" in page.read_text()
    assert Drift.model_validate_json(page.with_suffix(".json").read_text()) == findings
    assert page.with_name("2013-04-01.evidently.html").stat().st_size > 1_000_000
    decision = watched.decide(findings, known({}))
    assert (decision.action, decision.cause, decision.version, decision.champion) == ("request", "drift", "1", "1")
    assert decision.as_of == datetime(2013, 5, 2, tzinfo=UTC)  # the labels of the last day of April are known
    assert decision.reason.startswith("prediction is ")
    assert Decision.model_validate(decision.model_dump(mode="json")) == decision


def test_a_column_that_is_gone_is_a_finding_of_its_own(toy: Toy) -> None:
    rows = toy.rows(days=120)
    rows.loc[in_april(rows), "wind"] = np.nan
    rows.loc[in_april(rows) & (rows["flight"] < 10), "carrier_name"] = None
    watched = watch(toy, rows, retrain={"drift": ["columns"]}, monitor={"prediction_drift": 9})
    findings = watched.drift()
    wind, carrier = found(findings, "wind"), found(findings, "carrier_name")
    assert (wind.score, wind.missing, wind.drifted) == (None, 1.0, True)
    assert (carrier.missing, carrier.drifted) == (0.5, True)
    assert carrier.score is not None and carrier.score < 0.1  # a distance leaves missing values out
    reason = watched.decide(findings, known({})).reason
    assert reason == (
        "carrier_name is missing in 50% of rows, in training 0%; wind is missing in 100% of rows, in training 5%"
    )


def test_a_model_from_before_there_were_sketches_is_compared_with_its_sample(toy: Toy) -> None:
    pipeline = toy.pipeline()
    toy.fill(pipeline, toy.rows(days=120))
    files = Registry(toy.profile).download(trained(toy, pipeline).model_id, toy.folder / "files")
    contract = load_model(files, digest=None, pipeline=pipeline).contract
    whole = load_reference(files, contract)
    old = load_reference(files, contract.model_copy(update={"sketched": False}))
    assert (old.label, old.raw, old.calibration) == ({}, {}, None)
    assert whole.label.keys() == {"label"} and whole.raw.keys() == {"carrier_name"} and whole.calibration is not None
    for name, sketch in whole.columns.items():
        assert distance(sketch, old.columns[name]) == pytest.approx(0, abs=1e-9)
        assert sketch.rows == old.columns[name].rows == 59 * 20


def test_performance_is_measured_where_labels_are_known(toy: Toy) -> None:
    rows = toy.rows(days=120)
    rows["late"] = rows["late"].astype("float64")
    rows.loc[rows["day"] >= 110, "late"] = np.nan
    watched = watch(toy, rows, monitor={"labels": {"enough": 0.5}})
    measured = watched.performance()
    assert (measured.version, measured.rows) == ("1", 400)
    assert set(measured.metrics) == {"roc_auc", "average_precision", "log_loss", "accuracy"}
    assert 0.7 < measured.metrics["roc_auc"] < 1
    stored = watched.store.read("metrics", partitions=[APRIL.key])
    assert dict(zip(stored["metric"], stored["value"], strict=True)) == measured.metrics
    assert (set(stored["rows"]), set(stored["version"])) == ({400}, {"1"})
    again = watched.performance()
    assert again.table is not None and not again.table.changed
    assert Performance.model_validate(measured.model_dump(mode="json")) == measured


def test_performance_waits_for_labels(toy: Toy) -> None:
    rows = toy.rows(days=120)
    rows["late"] = rows["late"].astype("float64")
    rows.loc[in_april(rows), "late"] = np.nan
    assert watch(toy, rows).performance().metrics == {}


def test_a_metric_that_needs_two_classes_is_left_out(toy: Toy) -> None:
    rows = toy.rows(days=120)
    rows.loc[in_april(rows), "late"] = False
    measured = watch(toy, rows).performance()
    assert set(measured.metrics) == {"log_loss", "accuracy"}


def test_performance_asks_for_a_retrain_when_it_decays(toy: Toy) -> None:
    watched = watch(toy, toy.rows(days=100))
    cases: list[tuple[dict[str, float] | None, str, float, bool]] = [
        ({"floor": 0.7}, "roc_auc", 0.65, True),
        ({"floor": 0.7}, "roc_auc", 0.75, False),
        ({"floor": 0.5}, "log_loss", 0.6, True),
        ({"floor": 0.5}, "log_loss", 0.4, False),
        ({"tolerance": 0.1}, "roc_auc", 0.7, True),  # about 0.87 on the holdout
        ({"tolerance": 0.1}, "roc_auc", 0.86, False),
        ({"tolerance": 0.5}, "roc_auc", 0.7, False),
        (None, "roc_auc", 0.1, False),
    ]
    for decay, metric, value, retrain in cases:
        watched.pipeline = toy.pipeline(retrain={"decay": decay, "drift": []}, train={"metric": metric})
        decision = watched.decide(quiet(), known({metric: value}), record=False)
        assert (decision.retrain, decision.cause) == (retrain, "decay" if retrain else ""), decision.reason
    watched.pipeline = toy.pipeline(retrain={"decay": {"floor": 0.9}, "drift": []})
    of_another = known({"roc_auc": 0.1}).model_copy(update={"version": "0"})
    assert watched.decide(quiet(), of_another, record=False).cause == ""


def test_a_version_that_knows_other_classes_scores_into_the_same_table(tmp_path: Path) -> None:
    store = Store(str(tmp_path), "toy")
    for day, classes in ((1, ("a", "b")), (2, ("a", "b", "c")), (3, ("a", "c"))):
        probabilities = np.full((4, len(classes)), 1 / len(classes))
        frame = pd.DataFrame({"flight": range(4)}).assign(**columns_of(probabilities, classes))
        write_predictions(store, "predictions", parse_key("day", f"2013-04-0{day}"), frame)
    assert store.read("predictions", partitions=["2013-04-03"])["p_b"].isna().all()
    assert store.read("predictions", partitions=["2013-04-01"])["p_c"].isna().all()
    assert store.read("predictions", partitions=["2013-04-02"])[["p_a", "p_b", "p_c"]].notna().all(axis=None)


def test_labels_confirm_drift_or_do_not_and_new_rows_ask_by_themselves(toy: Toy) -> None:
    watched = watch(toy, toy.rows(days=120), retrain={"confirm": True, "decay": {"floor": 0.7}, "volume": 600})
    rows = watched.toy.rows(days=120)
    rows.loc[in_april(rows), "distance"] += 2
    watched.toy.fill(watched.pipeline, rows)
    findings = watched.drift()
    assert found(findings, "prediction").drifted
    assert watched.decide(findings, known({}), record=False).cause == "drift, volume"
    assert watched.decide(findings, known({"roc_auc": 0.6}), record=False).cause == "drift, decay, volume"
    one_class = watched.decide(findings, known({"log_loss": 0.1, "accuracy": 1.0}), record=False)
    assert one_class.cause == "drift, volume"  # labels that define no roc_auc confirm nothing
    held = watched.decide(findings, known({"roc_auc": 0.8}), record=False)
    assert held.cause == "volume" and held.reason == "600 rows are newer than the champion, 600 ask"
    assert Retrains(toy.profile.ledger_url).decisions(toy.name) == []  # a backfill decides nothing
    for response, cause in (({}, ""), ({"drift": "retrain"}, "drift")):
        watched.pipeline = toy.pipeline(retrain={"drift": []}, alerts={"respond": response})
        assert watched.decide(findings, known({}), record=False).cause == cause


def test_what_else_is_declared_asks_and_nothing_that_is_not(toy: Toy) -> None:
    rows = toy.rows(days=120)
    rows.loc[in_april(rows), "carrier_name"] = rows.loc[in_april(rows), "carrier_name"].str.lower()
    rows.loc[in_april(rows), "late"] = ~rows.loc[in_april(rows), "late"]
    watched = watch(toy, rows, monitor={"prediction_drift": 9})
    findings = watched.drift()
    assert findings.concept is not None and findings.concept.drifted
    assert findings.label is not None and findings.label.drifted and findings.formats
    unusual = KpiFinding(kpi="performance", value=0.4, expected=0.8, low=0.7, high=0.9, alarm=True)
    for policy, cause, told in (
        ({"drift": ["prediction"]}, "", "prediction is"),
        ({"drift": ["label"]}, "drift", "late is 0."),
        ({"drift": ["concept"]}, "drift", "where the model says the same, labels are 0."),
        ({"drift": ["format"]}, "drift", "carrier_name: values came in lower case in 100% of rows"),
        ({"drift": [], "kpis": ["performance"]}, "anomaly", "performance is 0.4, expected 0.8, allowed 0.7 to 0.9"),
        ({"drift": [], "kpis": ["rows"]}, "", "too few to judge by"),
    ):
        watched.pipeline = toy.pipeline(retrain=policy)
        found = decide(
            watched.pipeline, APRIL, findings, [], toy.profile, "run", record=False, performance=[unusual]
        )  # fmt: skip
        assert found.cause == cause and told in found.reason, (policy, found.reason)


def test_classes_are_compared_by_how_often_each_is_the_likeliest(toy: Toy) -> None:
    rows = toy.rows(days=120)
    rows.loc[in_april(rows), "distance"] += 2
    signal = rows["distance"] + rows["wind"].fillna(0)
    rows["late"] = np.select([signal > 1, signal < -1], ["late", "early"], "on time")
    watched = watch(toy, rows, label={"column": "late", "task": "multiclass"}, monitor={"prediction_drift": 0.2})
    findings = watched.drift()
    prediction = found(findings, "prediction")
    assert (prediction.kind, prediction.drifted) == ("category", True)
    predictions = watched.store.read("predictions")
    assert {"p_early", "p_late", "p_on time"} <= set(predictions)
    assert set(predictions["prediction"]) <= {"early", "late", "on time"}
    measured = watched.performance()
    assert measured.metrics["accuracy"] > 0.5


def test_columns_that_cannot_be_compared_do_not_stop_the_others() -> None:
    rng = np.random.default_rng(0)
    normal = rng.normal(size=2_000)
    reference = pd.DataFrame({"same": 1.0, "number": normal, "text": "a", "gone": normal, "flag": [True, None] * 1_000})
    current = pd.DataFrame({"same": 1.0, "number": np.inf, "text": ["b"] * 2_000, "flag": [True, None] * 1_000})
    kinds = {"same": "number", "number": "number", "text": "category", "gone": "number", "flag": "number"}
    before = sketch_frame(reference, kinds)
    now = sketch_chunks([pa.Table.from_pandas(current)], {name: one.like() for name, one in before.items()})
    findings, _ = compare(before, now, Limits(dict.fromkeys(kinds, 0.1)))
    by_name = {one.column: one for one in findings}
    assert {name for name, one in by_name.items() if one.drifted} == {"number", "text", "gone"}
    assert (by_name["same"].score, by_name["flag"].score, by_name["number"].score) == (0.0, 0.0, None)
    assert (by_name["gone"].missing, by_name["number"].missing, by_name["flag"].missing) == (1.0, 1.0, 0.5)
    assert by_name["text"].score is not None and by_name["text"].score > 0.5
    assert json.loads(by_name["text"].model_dump_json())["drifted"] is True


def test_the_model_files_must_be_the_ones_on_record(toy: Toy) -> None:
    watched = watch(toy, toy.rows(days=120))
    champion = Ledger(toy.profile.ledger_url).champion(toy.name)
    assert champion is not None and champion.as_of == MARCH
    folder = toy.folder / "damaged"
    folder.mkdir()
    (folder / "model.ubj").write_bytes(b"not a model")
    MlflowClient(Registry(toy.profile).uri).log_model_artifact(champion.model_id, str(folder / "model.ubj"))
    with pytest.raises(AirworthyError, match="must have the recorded SHA-256"):
        watched.score()
