"""A challenger beside the champion: whose each row is, what it may cost, what labels make of it, and the record."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
import yaml

from airworthy import sequential
from airworthy.canary import Canary, Step, part_of
from airworthy.cli import main
from airworthy.config import Pipeline
from airworthy.errors import ConflictError, Problems
from airworthy.ledger import Entry, Ledger
from airworthy.partitions import parse_key, partition_at
from airworthy.profile import ROOT, Profile
from airworthy.registry import Challenger, Registry
from airworthy.stages.canary import Trial, following, look, stop
from airworthy.stages.canary_days import compared_days
from airworthy.stages.deploy import deploy
from airworthy.stages.evaluate import Evaluation
from airworthy.stages.monitor import score
from airworthy.stages.reconcile import reconcile, verify
from airworthy.stages.rollback import rollback
from airworthy.store import Store
from airworthy.verdict import Verdict
from serving_process import DEEPER, Server, promote, serving, trained
from test_deploy import judged
from toy_pipeline import Toy, toy_at

WEAK = {"xgboost": {"params": {"max_depth": 1, "n_estimators": 1}}}
FRAGILE = {"python": {"class": "pipelines.fragile:Fragile"}}
CODE = """
import time


class Fragile:
    def fit(self, features, label):
        self.mean = float(label.mean())

    def predict(self, features):
        if (features["wind"] > 100).any():
            raise RuntimeError("too windy")
        if (features["wind"] < -100).any():
            time.sleep(30)
        return features["distance"].fillna(0).to_numpy() * 0 + self.mean
"""
COLUMNS = ["flight", "day", "time", "distance", "wind"]
TABLES = ("captured", "captured_loss", "canary_days", "predictions", "challenger_predictions")
PATIENT = {"timeout": 60, "slower": 10_000}  # whatever else this machine does meanwhile


@dataclass
class World:
    """A toy whose versions 1 (weak), 2 (good) and 3 (fails and hangs on winds) are trained; nobody is champion."""

    toy: Toy
    challengers: tuple[Challenger, Challenger, Challenger]
    rows: pd.DataFrame
    profile: Profile

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.profile.ledger_url)

    @property
    def record(self) -> list[tuple[str, str]]:
        return [(entry.action, entry.version) for entry in self.ledger.entries(self.toy.name)]

    def declare(self, **canary: Any) -> Pipeline:
        settings = {"features": None, "train": {"exclude": ["carrier_name"]}, "capture": {"flush": "1 second"}}
        return self.toy.pipeline(**settings, canary=canary, monitor={"labels": {"enough": 0.5}})

    def begin(self, champion: int, challenger: int, share: float = 0.5, shadow: bool = False) -> Entry:
        """Returns the ledger's entry of a canary of one version beside another."""
        promote(self.toy, self.challengers[champion - 1])
        chosen = self.challengers[challenger - 1]
        entry = self.ledger.promote(
            pipeline=self.toy.name,
            version=str(challenger),
            model_id=chosen.model_id,
            run_id=chosen.run_id,
            digest=chosen.digest,
            as_of=chosen.as_of,
            expected=str(champion),
            actor="test",
            evidence="",
            canary=Step(share=share, shadow=shadow),
        )
        reconcile(self.toy.name, self.profile)
        return entry

    def judged(self, number: int, champion: str) -> tuple[Evaluation, list[Verdict]]:
        return judged(self.toy, self.challengers[number], champion, judged_at=1)

    def at(self, server: Server) -> Profile:
        return self.profile.model_copy(update={"serving_url": server.url})


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory, mlflow_uri: str) -> Iterator[World]:
    with pytest.MonkeyPatch.context() as patched:
        toy = replace(toy_at(tmp_path_factory.mktemp("canary"), mlflow_uri, patched), name="toy_canary")  # salts by it
        for name, value in toy.environment({"AIRWORTHY_STORE_URI": toy.profile.store_uri}).items():
            patched.setenv(name, value)
        folder = toy.folder / "code" / "pipelines"
        folder.mkdir()
        (folder / "__init__.py").write_text("")
        (folder / "fragile.py").write_text(CODE)
        for name in [name for name in sys.modules if name.partition(".")[0] == "pipelines"]:
            patched.delitem(sys.modules, name)  # this process finds the toy's, as those that it starts do
        rows, found = toy.rows(), []
        for model in (WEAK, DEEPER, FRAGILE):
            pipeline = toy.pipeline(features=None, model=model, train={"exclude": ["carrier_name"]})
            if not found:
                toy.fill(pipeline, rows)
            found.append(trained(toy, pipeline))
            Registry(toy.profile).register(found[-1])
        for name in [name for name in sys.modules if name.partition(".")[0] == "pipelines"]:
            del sys.modules[name]
        yield World(toy, (found[0], found[1], found[2]), rows, toy.profile)


@pytest.fixture
def world(taught: World) -> World:
    """The same models, a ledger without entries, and nothing captured."""
    toy = taught.toy
    store = Path(toy.profile.store_uri, toy.name)
    for folder in (toy.folder / "home", *(store / name for name in TABLES)):
        shutil.rmtree(folder, ignore_errors=True)
    (toy.folder / "ledger.db").unlink(missing_ok=True)
    with_workers(toy, 1)
    registry = Registry(toy.profile)
    with registry.answering():
        registry.client.delete_registered_model_tag(toy.name, "airworthy.ledger")
    return taught


def body(rows: pd.DataFrame, **changes: Any) -> dict[str, Any]:
    sent = rows.assign(time=rows["time"].map(lambda moment: moment.isoformat()), **changes)[COLUMNS].astype(object)
    return {"dataframe_split": {"columns": COLUMNS, "data": sent.where(sent.notna(), None).to_numpy().tolist()}}


def ask(server: Server, rows: pd.DataFrame, **changes: Any) -> list[str]:
    """Returns the version that answered each row, all in one request."""
    answer = server.post(body(rows, **changes))
    assert answer.status == 200, answer.body
    assert answer.headers["x-model-version"] == answer.body["model_version"]
    versions = answer.body.get("model_versions") or [answer.body["model_version"]] * len(rows)
    assert len(answer.body["predictions"]) == len(versions) == len(rows)
    return list(versions)


def wait_for(server: Server, world: World, entry: Entry) -> None:
    server.wait(lambda: server.model(world.toy.name).get("canary", {}).get("sequence") == entry.sequence)


def wait_for_rows(server: Server, world: World, count: int) -> None:
    server.wait(lambda: server.get("/ping").body["pipelines"][world.toy.name]["captured"]["written"] >= count)


def with_workers(toy: Toy, count: int) -> None:
    folder = toy.folder / "config" / "profiles"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "base.yaml").write_text((ROOT / "config" / "profiles" / "base.yaml").read_text())
    (folder / "local.yaml").write_text(yaml.safe_dump({"serving": {"workers": count}}))


def months(world: World, *numbers: int) -> pd.DataFrame:
    return world.rows[world.rows["time"].dt.month.isin(numbers)]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_key_is_one_versions_in_any_request_at_any_share_and_after_kill_9(world: World, workers: int) -> None:
    with_workers(world.toy, workers)
    world.declare(shares=[0.1, 0.5], **PATIENT)
    entry, rows = world.begin(1, 2, share=0.1), world.rows.head(1000)
    with serving(world.toy) as server:
        wait_for(server, world, entry)
        narrow = ask(server, rows)
        assert ask(server, rows.sample(frac=1, random_state=1)).count("2") == narrow.count("2")
        assert [ask(server, rows.iloc[[number]])[0] for number in range(30)] == narrow[:30]
        assert ask(server, rows.head(3), flight=None) == ["1", "1", "1"]  # no key, no canary
        step = Step(began=entry.began, share=0.5, shadow=False)
        wider = world.ledger.advance(entry, "widen", "test", "so far so good", step)
        wait_for(server, world, wider)
        wide = ask(server, rows)
        wait_for_rows(server, world, 3033)  # with and without rows of the challenger
        announced = server.model(world.toy.name)
        metrics = server.get("/metrics").body
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait()
    assert 60 <= narrow.count("2") <= 140 and 430 <= wide.count("2") <= 570  # four standard deviations
    assert all(after == "2" for before, after in zip(narrow, wide, strict=True) if before == "2")
    assert (announced["version"], announced["canary"]["version"], announced["canary"]["share"]) == ("1", "2", 0.5)
    for version in ("1", "2") if workers == 1 else ():  # several tell each other once a second
        assert f'airworthy_rows_total{{pipeline="{world.toy.name}",version="{version}"}}' in metrics
        of = f'{{pipeline="{world.toy.name}",version="{version}",began="2"}}'
        assert f"airworthy_scoring_seconds_count{of}" in metrics
    nowhere = {"AIRWORTHY_LEDGER_URL": f"sqlite:///{world.toy.folder}/missing/ledger.db"}
    with serving(world.toy, **nowhere) as server:  # from its own files
        assert ask(server, rows) == wide


@pytest.mark.parametrize("shadow", [False, True])
def test_one_that_fails_or_hangs_costs_no_answer_and_is_taken_back(world: World, shadow: bool) -> None:
    pipeline = world.declare(timeout=0.5, slower=10_000, **({"shadow": True} if shadow else {"shares": [0.5]}))
    promote(world.toy, world.challengers[1])
    with serving(world.toy) as server:
        server.wait(lambda: server.model(world.toy.name).get("version") == "2")
        profile = world.at(server)
        release = deploy(pipeline, world.challengers[2], *world.judged(2, "2"), profile, "run")
        assert (release.action, release.version) == ("canary", "2")
        rows = world.rows.head(60)
        server.wait(lambda: set(ask(server, rows)) == ({"2"} if shadow else {"2", "3"}))
        for number in range(10):
            assert ask(server, rows.iloc[[number]], wind=1000.0) == ["2"]
        assert ask(server, rows.head(40), wind=-1000.0) == ["2"] * 40  # hangs for 30 s, in a thread of its own

        def alarm() -> str:
            assert ask(server, rows, wind=1000.0) == ["2"] * 60  # of which some are the challenger's, whatever the salt
            return str(server.model(world.toy.name)["canary"]["alarm"])

        assert "failed or were late in the challenger" in server.wait(alarm)
        assert set(ask(server, rows)) == {"2"}

        def taken_back() -> Trial | None:
            found = look(pipeline, profile, "monitor")
            return None if found is None or found.action == "wait" else found  # it waits while serving is slow to say

        found = server.wait(taken_back)
        assert found.action == "take_back" and "failed or were late" in found.reason
        server.wait(lambda: "canary" not in server.model(world.toy.name))
        assert set(ask(server, rows)) == {"2"}
    assert world.record == [("promote", "2"), ("canary", "3"), ("take_back", "3")]
    verify(world.profile, world.toy.name)
    with pytest.raises(ConflictError, match="took its canary back"):
        deploy(
            pipeline,
            world.challengers[2],
            *world.judged(2, "2"),
            world.profile,
            "run",
        )


def test_a_better_one_is_widened_and_promoted_on_labels(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    pipeline = world.declare(shares=[0.3, 0.6], **PATIENT)
    promote(world.toy, world.challengers[0])
    with serving(world.toy) as server:
        server.wait(lambda: server.model(world.toy.name).get("version") == "1")
        profile = world.at(server)
        release = deploy(pipeline, world.challengers[1], *world.judged(1, "1"), profile, "run")
        assert (
            deploy(
                pipeline,
                world.challengers[1],
                *world.judged(1, "1"),
                profile,
                "retry",
            )
            == release
        )
        kept = deploy(pipeline, world.challengers[2], *world.judged(2, "1"), profile, "other")
        assert (release.action, kept.action) == ("canary", "kept")
        waits = look(pipeline, profile, "monitor 0")
        assert waits is not None and (waits.action, waits.step.days) == ("wait", 0)
        first = ask(server, months(world, 1, 2))
        wait_for_rows(server, world, len(first))
        widened = look(pipeline, profile, "monitor 1")
        assert widened is not None and widened.action == "widen" and widened.step.share == 0.6
        again = look(pipeline, profile, "monitor 2")  # nothing new is known
        assert again is not None and (again.action, again.step.better) == ("wait", widened.step.better)
        wait_for(server, world, world.ledger.entries(world.toy.name)[-1])
        ask(server, months(world, 3, 4))
        wait_for_rows(server, world, len(world.rows))
        assert main(["canary", world.toy.name]) == 0
        promoted = look(pipeline, profile, "monitor 3")
        assert promoted is not None and promoted.action == "promote" and promoted.step.better >= 20
        assert set(ask(server, world.rows.head(50))) == {"2"}
        server.wait(lambda: "canary" not in server.model(world.toy.name))
    assert world.record == [("promote", "1"), ("canary", "2"), ("widen", "2"), ("promote", "2")]
    assert look(pipeline, world.profile, "monitor 4") is None
    champion = world.ledger.champion(world.toy.name)
    assert champion is not None and champion.step == promoted.step and champion.expected == "1"
    assert Registry(world.profile).alias(world.toy.name, "champion") == "2"
    verify(world.profile, world.toy.name)
    told = capsys.readouterr().out
    assert "widen" in told and "by now: promote" in told and "30%" in told
    kept_rows = Store(world.profile.store_uri, world.toy.name).read("captured")
    both = kept_rows[kept_rows["captured_other"].notna()]
    assert set(both["version"]) == {"2"} and set(both["captured_other_version"]) == {"1"}
    assert (both["prediction"] != both["captured_other"]).any() and first.count("2") == promoted_rows(both)


def promoted_rows(both: pd.DataFrame) -> int:
    return int((both["captured_sequence"] == 2).sum())


def test_a_worse_one_in_the_shadow_is_taken_back_on_labels(world: World) -> None:
    pipeline = world.declare(shadow=True, **PATIENT)
    promote(world.toy, world.challengers[1])
    with serving(world.toy) as server:
        server.wait(lambda: server.model(world.toy.name).get("version") == "2")
        profile = world.at(server)
        release = deploy(pipeline, world.challengers[0], *world.judged(0, "2"), profile, "run")
        assert "is compared with all answers" in release.reason
        assert set(ask(server, months(world, 1, 2))) == {"2"}
        wait_for_rows(server, world, len(months(world, 1, 2)))
        counted = 'began="2",outcome="scored"} 1'
        server.wait(lambda: counted in server.get("/metrics").body)
        found = look(pipeline, profile, "monitor")
    assert found is not None and found.action == "take_back" and found.step.worse >= 20 and found.step.gain < 0
    assert world.record == [("promote", "2"), ("canary", "1"), ("take_back", "1")]
    kept = Store(world.profile.store_uri, world.toy.name).read("captured")
    assert set(kept["version"]) == {"2"} and set(kept["captured_other_version"]) == {"1"}
    assert kept["captured_other"].notna().all()
    verify(world.profile, world.toy.name)


@pytest.mark.parametrize("shadow", [False, True])
def test_in_batch_both_score_a_partition_and_labels_are_joined(world: World, shadow: bool) -> None:
    pipeline = world.declare(**({"shadow": True} if shadow else {"shares": [0.5]}))
    entry = world.begin(1, 2, share=0.5, shadow=shadow)
    april = parse_key("month", "2013-04-01")
    score(pipeline, april, world.profile)
    found = look(pipeline, world.profile, "monitor", partition=april)
    again = look(pipeline, world.profile, "monitor", partition=april)
    store = Store(world.profile.store_uri, world.toy.name)
    champion, challenger = store.read("predictions"), store.read("challenger_predictions")
    assert set(champion["version"]) == {"1"} and set(challenger["version"]) == {"2"}
    assert found is not None and again is not None and again.step.rows == found.step.rows == len(challenger)
    assert found.step.days == 10 and found.step.gain > 0 and found.step.better > 1 > found.step.worse
    assert set(challenger["answers"]) == {not shadow}
    keys = challenger[["flight", "day"]].to_numpy().tolist()
    if shadow:
        assert len(challenger) == len(champion) == 200
    else:
        assert 0.3 < len(challenger) / len(champion) < 0.7
        assert all((part_of(entry.salt, key) or 0) < 0.5 for key in keys)  # as serving splits them


def test_of_keys_that_come_again_each_hour_every_hour_counts(world: World, tmp_path: Path) -> None:
    world.declare()
    pipeline = world.toy.pipeline(partition="hour", key=["flight"], canary={}, monitor={"labels": {"enough": 0.5}})
    profile = world.profile.model_copy(update={"store_uri": str(tmp_path)})
    running, store = world.begin(1, 2), Store(str(tmp_path), world.toy.name)
    hours = pd.date_range("2013-04-01", periods=30, freq="h", tz="UTC")  # a day and six hours of the next
    rows = pd.DataFrame({"flight": [*range(10)] * 30, "time": hours.repeat(10)})
    rows["late"] = [(flight + hour) % 2 == 0 for hour in range(30) for flight in range(10)]  # another one each hour
    for hour, found in rows.groupby("time"):
        store.write("features", partition_at("hour", hour), found)
    names = {"prediction": 0.5, "version": "1", "captured_other": rows["late"] * 1.0, "captured_other_version": "2"}
    answers = rows.drop(columns="late").assign(
        **names, captured_at=datetime.now(UTC), captured_request="one", captured_row=range(300)
    )
    answers = answers.astype({"time": "datetime64[us, UTC]", "captured_at": "datetime64[us, UTC]"})
    store.append("captured", "2013-04-01T00", pa.Table.from_pandas(answers, preserve_index=False))
    entries = world.ledger.entries(world.toy.name)
    (day,) = compared_days(pipeline, entries, running, profile, hours[24] + timedelta(days=1)).to_dict("records")
    assert (day["rows"], day["champion_loss"], day["challenger_loss"]) == (240, 0.25, 0)  # one that is over


def test_one_that_fails_in_batch_is_taken_back(world: World) -> None:
    pipeline = world.declare(shadow=True)
    world.begin(2, 3, share=0, shadow=True)
    april, store = parse_key("month", "2013-04-01"), Store(world.profile.store_uri, world.toy.name)
    kept = store.read("features", partitions=[april.key])
    try:
        store.write("features", april, kept.assign(wind=1000.0))
        score(pipeline, april, world.profile)
        found = look(pipeline, world.profile, "monitor", partition=april)
    finally:
        store.write("features", april, kept)
    assert found is not None and found.action == "take_back" and "too windy" in found.reason
    assert set(store.read("predictions")["version"]) == {"2"} and not store.partitions("challenger_predictions")
    assert world.record[-1] == ("take_back", "3")
    verify(world.profile, world.toy.name)


def test_people_and_rollbacks_end_a_canary(world: World) -> None:
    pipeline = world.declare(shares=[0.5])
    entry = world.begin(1, 2)
    assert world.ledger.champion(world.toy.name) == world.ledger.entries(world.toy.name)[0]
    assert world.ledger.canary(world.toy.name) == entry
    verify(world.profile, world.toy.name)
    assert main(["canary", world.toy.name, "--stop", "--reason", "complaints"]) == 0
    assert world.ledger.canary(world.toy.name) is None and stop(pipeline, world.profile, "test") is None
    assert world.record[-1] == ("take_back", "2")
    with pytest.raises(ConflictError, match="must be the last step"):
        world.ledger.advance(entry, "widen", "test", "", entry.step)
    other = world.challengers[2]
    fields = other.model_dump(include={"model_id", "run_id", "digest", "as_of"})
    word = {"pipeline": world.toy.name, "version": "3", "expected": "1", "actor": "test", "evidence": ""}
    running = world.ledger.promote(**fields, **word, canary=Step(share=0.5, shadow=False))
    assert world.ledger.canary(world.toy.name) == running
    down = pipeline.model_copy(update={"target": pipeline.target.model_copy(update={"timeout": 0.1})})
    with pytest.raises(Exception, match="must also answer"):  # nobody serves here
        rollback(down, world.profile, "test", to="1")
    assert world.ledger.canary(world.toy.name) is None
    assert [entry.version for entry in world.ledger.standing(world.toy.name)] == ["1"]
    verify(world.profile, world.toy.name)


def test_of_equals_no_more_are_promoted_or_taken_back_than_declared() -> None:
    policy, rng, runs = Canary(error_rate=0.1, within="1 month"), random.Random(7), 400
    began = datetime(2026, 1, 1, tzinfo=UTC)
    ends = {"promote": 0, "take_back": 0, "wait": 0}
    for _ in range(runs):
        gains: list[float] = []
        step, sequence = policy.first_step, 2
        for day in range(40):
            gains.append(rng.gauss(0, 0.01) * rng.choice([1, 1, 1, 6]))  # some days are wild
            now = Step(
                share=step.share,
                shadow=False,
                days=len(gains),
                better=sequential.wealth(gains),
                worse=sequential.wealth([-gain for gain in gains]),
            )
            found = following(policy, entry_with(step, sequence), now, began, began + timedelta(hours=day))
            step = found.step if found.action == "widen" else step
            if found.action in ("promote", "take_back"):
                break
        ends[found.action if found.action in ends else "wait"] += 1
    assert ends["promote"] / runs <= 0.1 and ends["take_back"] / runs <= 0.1, ends
    assert sum(ends.values()) == runs


def entry_with(step: Step, sequence: int) -> Entry:
    fields = dict.fromkeys(("model_id", "run_id", "digest", "actor", "evidence", "previous_hash"), "")
    return Entry(
        pipeline="toy",
        sequence=sequence,
        at=datetime(2026, 1, 1, tzinfo=UTC),
        action="canary",
        version="2",
        as_of=None,
        expected="1",
        canary=step.model_dump_json(),
        **fields,
    )


@pytest.mark.parametrize(("mean", "days"), [(0.01, 45), (0.02, 25)])
def test_what_is_better_is_found(mean: float, days: int) -> None:
    rng = random.Random(3)
    won = [sequential.wealth([rng.gauss(mean, 0.01) for _ in range(days)]) >= 20 for _ in range(100)]
    assert sum(won) >= 90


@pytest.mark.parametrize(
    ("counts", "seconds", "told"),
    [
        ({"failed": 19}, (0.001, 0.001), ""),
        ({"failed": 15, "late": 5, "scored": 80}, (0.001, 0.001), "20 of 100 requests failed or were late"),
        ({"failed": 20, "scored": 1980}, (0.001, 0.001), ""),
        ({"scored": 99}, (0.002, 0.1), ""),
        ({"scored": 100}, (0.002, 0.011), "takes 11.0 ms against the champion's 2.0 ms"),
        ({"scored": 100}, (0.0001, 0.004), ""),
        ({"scored": 100, "dropped": 5000}, (0.002, 0.009), ""),
    ],
)
def test_what_raises_an_alarm_in_serving(counts: dict[str, float], seconds: tuple[float, float], told: str) -> None:
    alarm = Canary().alarm(counts, seconds)
    assert told in alarm and bool(told) == bool(alarm)


def test_an_undecided_one_is_taken_back_in_the_end() -> None:
    policy, began = Canary(within="60 days"), datetime(2026, 1, 1, tzinfo=UTC)
    entry = entry_with(policy.first_step, 2)
    assert following(policy, entry, entry.step, began, began + timedelta(days=59)).action == "wait"
    found = following(policy, entry, entry.step, began, began + timedelta(days=60))
    assert found.action == "take_back" and "nothing was shown in time" in found.reason


def test_keys_are_spread_evenly_and_do_not_depend_on_how_a_number_is_written() -> None:
    parts = [part_of("toy/2", (number, "a")) for number in range(10_000)]
    shares = pd.Series(parts).lt(0.1).mean(), pd.Series(parts).lt(0.5).mean()
    assert shares == pytest.approx((0.1, 0.5), abs=0.02)
    assert part_of("toy/2", (7.0,)) == part_of("toy/2", (7,)) != part_of("toy/3", (7,))
    assert part_of("toy/2", (None,)) is part_of("toy/2", (float("nan"),)) is None


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"canary": {"shares": [0.5, 0.1]}}, "canary.shares must grow from step to step"),
        ({"canary": {"shares": [1.0]}}, "must be less than 1"),
        ({"canary": {"shadow": True, "key": "flight"}}, "must be false where key or shares are declared"),
        ({"canary": {}, "capture": {"share": 0}}, "capture.share must be more than 0"),
    ],
)
def test_what_cannot_be_tried_is_told(toy: Toy, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(Problems, match=told):
        toy.pipeline(**changes)
