"""Backtests: trained as of past dates, scored on what came after, replayed through the gates; nothing promoted."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from airworthy.backtest import command, drive, page, results, runs
from airworthy.backtest.accounts import BLIND, CHAMPION, STATIC, Account, accounts, contests
from airworthy.backtest.comparison import counted
from airworthy.backtest.drive import Driver
from airworthy.backtest.replay import Decision
from airworthy.backtest.results import AFTER, HOLDOUT
from airworthy.config import Pipeline
from airworthy.errors import ConfigError, ConflictError, Problems, ServiceError
from airworthy.evidence import Measured
from airworthy.ledger import Ledger
from airworthy.lineage import lineages
from airworthy.metrics import score
from airworthy.mlflow_server import experiment_name
from airworthy.model_files import load_model
from airworthy.partitions import parse_key
from airworthy.registry import Challenger, FeaturesRef, Registry
from airworthy.searches import begun_with
from airworthy.stages.deploy import deploy
from airworthy.stages.evaluate import judge
from airworthy.stages.train import declaration_key, train
from airworthy.store import Store
from toy_pipeline import Toy, toy_at

DATES = [datetime(2013, month, 1, 6, tzinfo=UTC) for month in (3, 4, 5)]
POLICIES = {
    "recent": {"train": {"window": "1 month"}},
    "strict": {"gates": [{"metric_floor": {"metric": "roc_auc", "floor": 0.99}}]},
}
GATES = [{"metric_floor": {"metric": "roc_auc", "floor": 0.5}}, {"beats_champion": {"margin": 0.0}}]


def changing() -> pd.DataFrame:
    """150 days of flights that are late for other reasons after 70 days, so that models grow old."""
    rows = Toy(Path(), "", "").rows(days=150)
    late = rows["day"] > 70
    other = rows["distance"].fillna(0) - 2 * rows["wind"].fillna(0) > 0.5
    return rows.assign(late=rows["late"].where(~late, other))


@dataclass
class World:
    """A pipeline whose policies `declared` and `recent` have been followed over all dates."""

    toy: Toy
    pipeline: Pipeline
    store: Store

    def accounts(self, *policies: str) -> list[Account]:
        return accounts(self.pipeline, policies, self.toy.profile)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, mlflow_uri: str) -> Iterator[World]:
    with pytest.MonkeyPatch.context() as patched:
        toy = toy_at(tmp_path_factory.mktemp("world"), mlflow_uri, patched)
        Ledger(toy.profile.ledger_url).create()
        pipeline = toy.pipeline(gates=GATES, backtest={"policies": POLICIES})
        store = toy.fill(pipeline, changing())
        walked(toy, pipeline, "declared", "recent")
        yield World(toy, pipeline, store)


def walked(toy: Toy, pipeline: Pipeline, *policies: str, dates: Any = DATES) -> None:
    for policy in policies:
        for as_of in dates:
            runs.evaluate(pipeline, policy, runs.train(pipeline, policy, as_of, toy.profile), toy.profile)


def test_what_came_after_is_scored_month_by_month_once(world: World) -> None:
    first, second, _ = results.read(world.pipeline, world.store)
    after = first.scored[first.scored["part"] == AFTER]
    assert [f"{month:%Y-%m}" for month in after["start"]] == ["2013-03", "2013-04", "2013-05"]
    assert after["start"].iloc[0] == DATES[0] and second.scored["part"].tolist().count(HOLDOUT) == 1
    rows = world.store.read("features")
    rows = rows[rows["time"].dt.strftime("%Y-%m") == "2013-05"]
    files = Registry(world.toy.profile).download(first.challenger.model_id, world.toy.folder / "alone")
    model = load_model(files, digest=first.challenger.digest, pipeline=world.pipeline)
    expected = score("binary", "roc_auc", rows["late"].to_numpy(), model.predict(rows))
    assert after["roc_auc"].iloc[2] == pytest.approx(expected)
    assert after["rows"].iloc[2] == len(rows)

    version = world.store.version(results.BACKTESTS)
    walked(world.toy, world.pipeline, "declared", dates=DATES[2:])
    assert world.store.version(results.BACKTESTS) == version, "a rerun left other rows"


def test_a_backtest_is_none_of_the_runs_that_may_become_champion(world: World) -> None:
    profile, pipeline = world.toy.profile, world.pipeline
    registry = Registry(profile)
    challenger = runs.train(pipeline, "declared", DATES[0], profile)
    evaluation = runs.evaluate(pipeline, "declared", challenger, profile)
    verdicts = judge(pipeline, challenger, evaluation, profile)
    assert challenger.backtest and not [verdict for verdict in verdicts if verdict.blocks]
    assert registry.trainings(pipeline.name) == [] and lineages(pipeline, profile) == []
    release = deploy(pipeline, challenger, evaluation, verdicts, profile, actor="somebody")
    assert release.action == "refused" and "backtest" in release.reason
    assert Ledger(profile.ledger_url).entries(pipeline.name) == []
    assert not registry.client.search_model_versions(f"name = '{pipeline.name}'")

    live = train(pipeline, DATES[0], profile)
    assert not live.reused and not live.backtest and live.run_id != challenger.run_id
    assert (live.training_key, live.digest) == (challenger.training_key, challenger.digest)
    tags, live_tags = (registry.client.get_run(one.run_id).data.tags for one in (challenger, live))
    assert tags["backtest"] == declaration_key(pipeline) and "backtest" not in live_tags
    again = runs.train(pipeline, "declared", DATES[0], profile)
    assert again.run_id == challenger.run_id, "a live run was taken into a backtest"


def test_policies_that_differ_in_gates_share_their_trainings(world: World) -> None:
    strict, recent = world.pipeline.under("strict"), world.pipeline.under("recent")
    assert declaration_key(strict) == declaration_key(world.pipeline) != declaration_key(recent)
    assert len(results.read(strict, world.store)) == len(DATES)
    assert len(results.read(recent, world.store, DATES[1], DATES[1])) == 1


def test_the_newest_record_counts_and_never_parts_of_two(toy: Toy) -> None:
    pipeline = toy.pipeline(gates=GATES, backtest={"policies": POLICIES})
    store, start = Store(toy.profile.store_uri, pipeline.name), DATES[0]

    def leave(policy: str, version: int, months: int) -> None:
        challenger = Challenger(
            pipeline=pipeline.name,
            run_id=f"{policy} {version}",
            model_id="m",
            digest="d",
            as_of=start,
            training_key="k",
            features=FeaturesRef(version=1, digest="", rows=1),
            holdout=(start, start),
            metrics={},
        )
        parts = [HOLDOUT] + [AFTER] * months
        days = [start + timedelta(days=30 * number) for number in range(len(parts))]
        scored = pd.DataFrame({"part": parts, "start": days, "end": days, "rows": 1, "roc_auc": 0.5})
        measured = Measured(requests=1, largest_difference=0.0, seconds=0.0)
        result = results.Result(challenger, {}, measured, scored)
        results.write(store, policy, declaration_key(pipeline), result, version)

    leave("strict", 3, months=4)
    leave("declared", 5, months=2)
    (found,) = results.read(pipeline, store)
    assert found.challenger.run_id == "declared 5" and set(found.scored["run_id"]) == {"declared 5"}
    assert len(found.scored) == 3
    leave("strict", 5, months=2)
    (found,) = results.read(pipeline.under("strict"), store)
    assert set(found.scored["run_id"]) == {found.challenger.run_id} and len(found.scored) == 3


class Airflow:
    """Says what a scheduler would; the real one is in tests/integration."""

    def __init__(self, *types: str) -> None:
        self.types = types
        self.posted: list[Any] = []

    def wait_for_dags(self, *_: str) -> None: ...

    def get(self, _: str) -> dict[str, Any]:
        return {"is_paused": False}

    def backfilling(self, _: str) -> bool:
        return False

    def backfill_dates(self, *_: Any, **__: Any) -> list[datetime]:
        return DATES

    def backfill(self, *asked: Any, **_: Any) -> None:
        self.posted.append(asked)

    def runs(self, _: str, run_type: str | None = None, **__: str) -> list[dict[str, Any]]:
        made = zip(DATES, self.types, strict=False)
        known = [
            {"dag_run_id": f"{one} {date:%Y-%m-%d}", "run_type": one, "logical_date": f"{date:%Y-%m-%dT%H:%M:%SZ}"}
            for date, one in made
        ]
        return [run for run in known if run_type in (None, run["run_type"])]


def test_live_runs_of_the_same_dates_are_left_alone(toy: Toy) -> None:
    airflow = Airflow("backfill", "scheduled", "manual")
    driver = Driver(toy.pipeline(gates=GATES), airflow, toy.profile, print)
    told = "must have no live runs of these dates.*Got 'manual 2013-05-01, scheduled 2013-04-01'. Choose other dates"
    with pytest.raises(ConflictError, match=told):
        driver.run(["declared"], DATES[0], DATES[-1])
    assert not airflow.posted


def test_each_run_of_a_backfill_has_its_time(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    allowed = {}
    monkeypatch.setattr(drive, "wait_for", lambda what, _, timeout, **__: allowed.update({what: timeout}))
    pipeline, airflow = toy.pipeline(gates=GATES), Airflow("backfill")
    Driver(pipeline, airflow, toy.profile, print).run(["declared"], DATES[0], DATES[-1])
    assert airflow.posted == [(f"{pipeline.name}.train", DATES[0], DATES[-1])]
    assert allowed[f"backfill of {pipeline.name}.train"] == 3 * 3600


def test_a_policy_that_trains_for_another_metric_is_held_against_the_others_by_the_declared_one(world: World) -> None:
    other = world.toy.pipeline(
        gates=GATES, backtest={"policies": {**POLICIES, "sure": {"train": {"metric": "log_loss"}}}}
    )
    walked(world.toy, other, "sure")
    declared, sure = accounts(other, ["declared", "sure"], world.toy.profile)
    # Nothing is tuned, so the models are the same.
    assert sure.scores[BLIND].tolist() == pytest.approx(declared.scores[BLIND].tolist(), nan_ok=True)
    assert sure.pipeline.metric == "roc_auc"


def test_what_was_declared_otherwise_then_is_not_on_record(world: World) -> None:
    changed = {**POLICIES, "recent": {"train": {"window": "3 weeks"}}}
    other = world.toy.pipeline(gates=GATES, backtest={"policies": changed})
    with pytest.raises(ServiceError, match="must be on record for recent as declared now") as raised:
        accounts(other, ["declared", "recent"], world.toy.profile)
    parser = argparse.ArgumentParser()
    command.add(parser, print)
    asked = parser.parse_args(raised.value.hint.removeprefix("airworthy backtest ").split())
    assert asked.policy == ["recent"] and asked.first == other.start and asked.last


def test_a_report_without_policies_names_what_is_not_on_record(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    other = world.toy.pipeline(
        gates=GATES, backtest={"policies": {**POLICIES, "week": {"train": {"window": "3 weeks"}}}}
    )
    monkeypatch.setattr("airworthy.profile.load_profile", lambda _: world.toy.profile)
    parser = argparse.ArgumentParser()
    command.add(parser, print)

    def reported(*arguments: str) -> list[str]:
        printed: list[str] = []
        command.run(parser.parse_args(["report", other.name, *arguments]), other, {}, printed.append)
        return printed

    first, *rest = reported()
    assert first.startswith("Not on record as declared now: week. airworthy backtest run") and "--policy week" in first
    assert any(line.startswith("declared") for line in rest)
    machine = json.loads(reported("--json")[0])
    assert machine["not_on_record"] == ["week"] and set(machine["policies"]) == {"declared", "recent", "strict"}
    with pytest.raises(ServiceError, match="must be on record for week"):
        reported("--policy", "week", "--policy", "declared")


def test_the_gates_decide_in_order_of_time(world: World) -> None:
    declared, strict = world.accounts("declared", "strict")
    assert declared.decisions[0].promoted and declared.decisions[0].champion is None
    champion = None
    for decision in declared.decisions:
        assert decision.champion == champion
        champion = decision.challenger if decision.promoted else champion
    assert sum(decision.promoted for decision in declared.decisions) > 1
    assert [decision.promoted for decision in strict.decisions] == [False] * len(DATES)
    assert strict.scores.empty and contests([declared, strict])[0].gain is None
    assert "refused by metric_floor" in strict.decisions[0].result
    assert declared.means[CHAMPION] > declared.means[STATIC]


def test_the_lines_are_those_of_the_models_in_force(world: World) -> None:
    (account,) = world.accounts("recent")
    last = results.read(world.pipeline.under("recent"), world.store)[2]
    # From the 1st at six on, May's rows are the newest model's: blind retraining is nearly what that one scored.
    scored = last.scored[last.scored["part"] == AFTER]["roc_auc"].iloc[0]
    assert account.scores[BLIND].iloc[2] == pytest.approx(scored, abs=0.02)
    march = account.scores.iloc[0]
    assert march[CHAMPION] == march[BLIND] == march[STATIC]
    assert account.shortfall.iloc[0] == 0


def test_nothing_that_comes_later_changes_a_decision(world: World, tmp_path: Path) -> None:
    """Each date's decision is the same when every row from that date on is other data."""
    before = world.accounts("declared", "recent")
    rows, as_of = changing(), DATES[1]
    later = rows["time"] >= as_of
    corrupt = rows.assign(late=rows["late"].where(~later, ~rows["late"]))
    for column in ("distance", "wind"):
        corrupt[column] = corrupt[column].where(~later, 1e6)
    with pytest.MonkeyPatch.context() as patched:
        twin = toy_at(tmp_path, world.toy.mlflow_uri, patched)
        pipeline = twin.pipeline(gates=GATES, backtest={"policies": POLICIES})
        twin.fill(pipeline, corrupt)
        walked(twin, pipeline, "declared", "recent", dates=DATES[:2])
        found = accounts(pipeline, ["declared", "recent"], twin.profile)
    for account, known in zip(found, before, strict=True):
        assert list(map(told, account.decisions)) == list(map(told, known.decisions[:2]))
        april, as_it_was = (one.scores[CHAMPION].iloc[1] for one in (account, known))
        assert abs(april - as_it_was) > 0.01, "the later rows are no others, so nothing was tested"


def told(decision: Decision) -> tuple[Any, ...]:
    """Returns what a decision rests on and came to, without what followed."""
    verdicts = [(verdict.gate, verdict.status, verdict.reason) for verdict in decision.verdicts]
    champion = decision.champion and decision.champion.as_of
    challenger = decision.challenger
    scores = decision.challenger_score, decision.champion_score, challenger.metrics
    return challenger.as_of, decision.window, champion, scores, verdicts


def test_a_policy_is_checked_as_a_whole_pipeline(toy: Toy) -> None:
    broken = {
        "short": {"train": {"holdout": "1 hour"}},
        "typo": {"train": {"windw": "1 month"}},
        "gated": {"gates": [{"metric_floor": {"metric": "rmse", "floor": 1}}]},
    }
    with pytest.raises(Problems) as raised:
        toy.pipeline(backtest={"policies": broken})
    message = str(raised.value)
    assert "backtest.policies.short.train.holdout must be longer than label.matures_after" in message
    assert "backtest.policies.typo.train.windw is not a known key" in message
    assert "backtest.policies.gated.gates[0].metric_floor.metric must be one of roc_auc" in message


@pytest.mark.parametrize(
    ("policies", "said"),
    [
        ({"declared": {"train": {"window": "1 month"}}}, "must have another name than declared"),
        ({"empty": {}}, "backtest.policies.empty must do something otherwise"),
        ({"Upper": {"tune": {"trials": 2}}}, "must match"),
        ({"odd": {"label": {"column": "x"}}}, "backtest.policies.odd.label is not a known key"),
    ],
)
def test_what_is_no_policy_is_told(toy: Toy, policies: dict[str, Any], said: str) -> None:
    with pytest.raises(Problems, match=re.escape(said)):
        toy.pipeline(backtest={"policies": policies})


def test_a_policy_changes_what_it_names_only(toy: Toy) -> None:
    pipeline = toy.pipeline(backtest={"policies": POLICIES})
    recent = pipeline.under("recent")
    assert recent.train.window == pipeline.train.holdout and recent.train.holdout == pipeline.train.holdout
    assert recent.gates == pipeline.gates and recent.model == pipeline.model
    assert pipeline.under("declared") is pipeline
    assert Pipeline.model_validate(json.loads(pipeline.model_dump_json())) == pipeline
    with pytest.raises(
        ConfigError, match=r"must be one of declared, recent, strict\. Got 'strikt'\. Perhaps strict is meant"
    ):
        pipeline.under("strikt")
    assert experiment_name("x", backtest=True) == "x.backtest"


def test_months_with_hardly_any_rows_are_shown_and_not_counted() -> None:
    months = pd.date_range("2013-01-01", periods=3, freq="MS", tz="UTC")
    assert counted(pd.DataFrame({"month": months, "rows": [900, 1000, 80]}))["rows"].tolist() == [900, 1000]


def test_a_gain_is_told_with_its_size_and_interval(world: World) -> None:
    declared, recent = world.accounts("declared", "recent")
    (contest,) = contests([recent, declared])
    both = recent.scores.merge(declared.scores, on=["month", "rows"])
    assert contest.gain is not None and contest.gain.months == len(both) == 3
    assert contest.gain.mean == pytest.approx((both["champion_x"] - both["champion_y"]).mean())
    assert contest.gain.interval[0] <= contest.gain.mean <= contest.gain.interval[1]
    itself = contests([recent, recent])[0]
    assert itself.gain is not None and itself.gain.mean == 0 and itself.gain.interval == (0, 0)
    assert "came to the same" in itself.says


def test_a_lower_loss_is_a_gain(world: World) -> None:
    by_loss = {**GATES[1], "beats_champion": {"metric": "log_loss"}}
    pipeline = world.toy.pipeline(gates=[by_loss], train={"holdout": "1 month", "metric": "log_loss"})
    walked(world.toy, pipeline, "declared", dates=DATES[:2])
    (account,) = accounts(pipeline, ["declared"], world.toy.profile)
    found = account.gain(STATIC)
    assert found is not None
    assert found.mean == pytest.approx((account.scores[STATIC] - account.scores[CHAMPION]).mean())
    assert (account.shortfall >= account.scores[CHAMPION] - account.scores[BLIND] - 1e-12).all()


def test_the_page_and_the_machine_tell_the_same(world: World) -> None:
    found = world.accounts("declared", "recent", "strict")
    written = page.publish(found, world.toy.profile).read_text()
    assert written.count("data:image/svg") == 3 and contests(found)[0].says in written
    assert "refused by metric_floor" in written and "2013-04-01" in written
    machine = json.loads(json.dumps(page.machine(found)))
    assert machine["policies"]["declared"]["means"][CHAMPION] == found[0].means[CHAMPION]
    assert len(machine["policies"]["recent"]["decisions"]) == len(DATES)
    lines = list(page.text(found))
    assert any(line.startswith("2013-03") and line.endswith("promoted") for line in lines)
    assert list(page.text(world.accounts("declared", "recent", "strict"))) == lines


def test_a_search_begins_with_earlier_runs_of_its_own_policy_only(toy: Toy) -> None:
    space = {"trials": 1, "space": {"max_depth": {"int": [1, 3]}}, "warm_start": True}
    pipeline = toy.pipeline(tune=space, backtest={"policies": POLICIES})
    toy.fill(pipeline, toy.rows(days=150))
    profile = toy.profile
    live = train(pipeline, DATES[0], profile)
    later = runs.train(pipeline, "declared", DATES[1], profile)
    first = runs.train(pipeline, "declared", DATES[0], profile)
    other = runs.train(pipeline, "recent", DATES[2], profile)
    last = runs.train(pipeline, "declared", DATES[2], profile)
    live_after = train(pipeline, DATES[2], profile)
    found = {
        name: begun_with(Registry(profile).client.get_run(one.run_id).data.tags)
        for name, one in {"later": later, "first": first, "other": other, "last": last, "live": live_after}.items()
    }
    assert found["later"] is None, "a backtest began with a live run"
    assert found["first"] is None, "an earlier date began with a later one"
    assert found["other"] is None, "a policy began with another one"
    assert found["last"] is not None and found["last"].run_id == later.run_id
    assert found["live"] is not None and found["live"].run_id == live.run_id, "a live run began with a backtest"


def test_a_perfect_feature_from_the_future_is_caught(toy: Toy) -> None:
    """A column that equals the label is refused by name, although no score is better."""
    pipeline = toy.pipeline(gates=[*GATES, "leakage"])
    store = toy.fill(pipeline, toy.rows(days=130))
    for key in store.partitions("features"):
        planted = store.read("features", partitions=[key])
        store.write("features", parse_key("month", key), planted.assign(long=planted["late"]))
    walked(toy, pipeline, "declared", dates=DATES[:2])
    (account,) = accounts(pipeline, ["declared"], toy.profile)
    for decision in account.decisions:
        assert decision.challenger_score > 0.999
        assert decision.result == "refused by leakage" and "long tells the label alone" in decision.verdicts[-1].reason
    assert account.scores.empty
