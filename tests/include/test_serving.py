from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from airworthy.config import Pipeline
from airworthy.encoding import Input
from airworthy.errors import DataError, ModelError
from airworthy.ledger import Ledger
from airworthy.registry import Challenger, Registry
from airworthy.serving.check import check_in_fresh_process
from airworthy.serving.counters import Counters
from airworthy.serving.feature_code import with_own_feature_code
from airworthy.serving.inputs import typed
from airworthy.serving.rows import read_rows
from airworthy.stages.evaluate import evaluate, judge
from airworthy.user_code import call
from serving_process import APRIL, DEEPER, NOWHERE, Server, corrupt, promote, recorded, serving, trained
from toy_pipeline import TOY_FEATURES, Toy


@pytest.fixture
def pipeline(toy: Toy) -> Pipeline:
    pipeline = toy.pipeline()
    toy.fill(pipeline, toy.rows())
    return pipeline


@pytest.fixture
def challenger(toy: Toy, pipeline: Pipeline) -> Challenger:
    return trained(toy, pipeline)


def split(found: dict[str, Any]) -> dict[str, Any]:
    return {"dataframe_split": {"columns": found["columns"], "data": found["data"]}}


def records(found: dict[str, Any]) -> list[dict[str, Any]]:
    return [dict(zip(found["columns"], row, strict=True)) for row in found["data"]]


def comma_separated(found: dict[str, Any]) -> bytes:
    return pd.DataFrame(found["data"], columns=found["columns"]).to_csv(index=False).encode()


def test_the_champion_answers_every_format_as_in_training(toy: Toy, challenger: Challenger) -> None:
    entry, found = promote(toy, challenger), recorded(toy, challenger)
    with serving(toy) as server:
        server.wait_for_version(entry)
        bodies = [split(found), {"dataframe_records": records(found)}, {"instances": records(found)}]
        answers = [server.post(body) for body in bodies]
        answers += [server.post(comma_separated(found), toy.name, "text/csv; charset=utf-8")]
        for answer in answers:
            assert answer.status == 200
            assert answer.body["predictions"] == pytest.approx(found["expected"])
            assert (answer.body["pipeline"], answer.body["model_version"]) == (toy.name, entry.version)
            assert answer.headers["x-model-version"] == entry.version
        state = server.model(toy.name)
        assert (state["version"], state["digest"], state["refused"]) == (entry.version, challenger.digest, None)
        live = server.get("/ping").body["pipelines"][toy.name]
        assert (live["version"], live["refused"]) == (entry.version, None)
        metrics = server.get("/metrics").body
        assert f'airworthy_requests_total{{pipeline="{toy.name}",status="200"}} 4\n' in metrics
        assert (
            f'airworthy_rows_total{{pipeline="{toy.name}",version="{entry.version}"}} {4 * len(found["data"])}'
            in metrics
        )
        assert f'airworthy_champion_info{{pipeline="{toy.name}",version="{entry.version}"}} 1\n' in metrics
        assert metrics.endswith("\n# EOF\n")


def test_requests_that_cannot_be_answered_say_why(toy: Toy, challenger: Challenger) -> None:
    entry, found = promote(toy, challenger), recorded(toy, challenger)
    row = records(found)[0]
    unnamed = {name: value for name, value in row.items() if name not in ("wind", "carrier_name")}
    nameless = {name: value for name, value in row.items() if name not in ("flight", "day")}
    with serving(toy) as server:
        server.wait_for_version(entry)

        def refusal(content: Any, pipeline: str = toy.name, kind: str = "application/json") -> tuple[int, str]:
            answer = server.post(content, pipeline, kind)
            return answer.status, answer.body["detail"]

        status, detail = refusal({"instances": [unnamed]})
        assert (status, "must have the column(s) carrier_name, wind" in detail) == (400, True)
        status, detail = refusal({"instances": [{**row, "wind": "strong"}]})
        assert (status, detail.startswith("request: row 0: wind: must be a finite number, or null. Got 'strong'.")) == (
            400,
            True,
        )
        status, detail = refusal({"instances": [{**row, "time": "noon"}]})
        assert (
            status,
            detail.startswith("request: row 0: time: must be text with a timestamp in ISO 8601, or null. Got 'noon'."),
        ) == (400, True)
        assert refusal(b'{"instances": [')[0] == 400
        assert refusal(b"\xff\xfe", kind="text/csv")[0] == 400
        status, detail = refusal(b"", kind="image/png")
        assert (status, "must be application/json or text/csv. Got 'image/png'" in detail) == (400, True)
        status, detail = refusal({"instances": [row]}, "no_such")
        assert (status, detail) == (404, f"request: pipeline: must be one of {toy.name}. Got 'no_such'")
        answer = server.post({"instances": [nameless, {**nameless, "carrier_name": "ZZ", "wind": None}]})
        assert answer.body["predictions"][0] == pytest.approx(found["expected"][0])  # nothing depends on the key
        required = {column["name"]: column["required"] for column in server.model(toy.name)["inputs"]}
        assert required["wind"] and required["time"] and not required["flight"]


def test_a_column_that_is_set_aside_may_still_be_sent(toy: Toy) -> None:
    plain = toy.pipeline(features=None, model=DEEPER)
    toy.fill(plain, toy.rows())
    first = trained(toy, plain)
    less = toy.pipeline(features=None, model=DEEPER, train={"exclude": ["wind"]}, gates=["signature", "servable"])
    second = trained(toy, less)
    before = promote(toy, first)
    evaluation = evaluate(less, second, before, toy.profile)
    assert all(found.passed for found in judge(less, second, evaluation, toy.profile))
    row = records(recorded(toy, first))[0]
    with serving(toy) as server:
        server.wait_for_version(promote(toy, second, before))
        (expected,) = server.post({"instances": [{**row, "wind": None}]}).body["predictions"]
        assert server.post({"instances": [row]}).body["predictions"] == [expected]
        refused = server.post({"instances": [{**row, "wnid": 1.0}]})
        assert (refused.status, "Got ['wnid']" in refused.body["detail"]) == (400, True)


def test_a_model_that_is_slow_to_load_holds_up_no_other_pipeline(toy: Toy, challenger: Challenger) -> None:
    gate = toy.folder / "gate"
    gate.touch()
    waiting = f"import pathlib, time\nwhile not pathlib.Path({str(gate)!r}).exists():\n    time.sleep(0.05)\n"
    (toy.folder / "code" / "waiting_features.py").write_text(waiting + TOY_FEATURES)
    slow = replace(toy, name=f"a_{toy.name}")  # is looked at first
    pipeline = slow.pipeline(features="waiting_features:features")
    slow.fill(pipeline, toy.rows())
    late = trained(slow, pipeline)
    gate.unlink()
    with serving(toy) as server:
        first = promote(slow, late)
        server.wait_for_version(promote(toy, challenger))
        assert server.model(slow.name).get("version") is None
        gate.touch()
        server.wait_for_version(first)


def test_a_pipeline_file_that_is_broken_for_a_while_is_read_again(toy: Toy, challenger: Challenger) -> None:
    file = toy.folder / "config" / "pipelines" / f"{toy.name}.yaml"
    whole = file.read_text()
    file.write_text(whole.replace("partition: month", "partition: moon"))
    entry = promote(toy, challenger)
    with serving(toy) as server:
        refused = server.wait_for_refusal(toy.name)
        assert "partition" in refused["reason"] and not refused["final"]
        file.write_text(whole)
        server.wait_for_version(entry)


def test_before_the_first_champion_requests_are_told_so(toy: Toy, pipeline: Pipeline) -> None:
    Ledger(toy.profile.ledger_url).create()
    with serving(toy) as server:
        answer = server.post({"instances": [{}]})
    assert (answer.status, answer.body["detail"]) == (503, f"{toy.name}: has no champion yet. Run {toy.name}.train")


def test_a_swap_loses_no_request_and_every_answer_is_by_the_version_it_names(toy: Toy, challenger: Challenger) -> None:
    first, second = challenger, trained(toy, toy.pipeline(model=DEEPER))
    before = promote(toy, first)
    expected = {before.version: recorded(toy, first), "2": recorded(toy, second)}
    asked = split(expected[before.version])
    done = threading.Event()

    def ask_until_done(server: Server) -> list[tuple[int, dict[str, Any]]]:
        answers = []
        while not done.is_set():
            answer = server.post(asked)
            answers.append((answer.status, answer.body))
        return answers

    with serving(toy) as server, ThreadPoolExecutor(3) as pool:
        server.wait_for_version(before)
        clients = [pool.submit(ask_until_done, server) for _ in range(3)]
        try:
            after = promote(toy, second, before)
            server.wait_for_version(after)
            server.post(asked)
        finally:
            done.set()
        answers = [answer for client in clients for answer in client.result()]
        assert server.post(asked).body["model_version"] == after.version == "2"
    assert {status for status, _ in answers} == {200}
    assert {body["model_version"] for _, body in answers} <= {before.version, after.version}
    for _, body in answers:
        assert body["predictions"] == pytest.approx(expected[body["model_version"]]["expected"])


def test_damaged_files_are_refused_and_the_old_version_goes_on(toy: Toy, challenger: Challenger) -> None:
    second = trained(toy, toy.pipeline(model=DEEPER))
    before, found = promote(toy, challenger), recorded(toy, challenger)
    with serving(toy) as server:
        server.wait_for_version(before)
        corrupt(toy, second)
        after = promote(toy, second, before)
        refused = server.wait_for_refusal(toy.name)
        assert (refused["version"], refused["sequence"], refused["final"]) == (after.version, after.sequence, True)
        assert "must have the recorded SHA-256" in refused["reason"]
        answer = server.post(split(found))
        assert (answer.status, answer.body["model_version"]) == (200, before.version)
        back = Ledger(toy.profile.ledger_url).rollback(toy.name, after.version, "test")
        server.wait_for_version(back)
        assert server.model(toy.name)["refused"] is None
        assert server.model(toy.name)["version"] == before.version


def test_a_restart_without_ledger_and_mlflow_serves_the_last_good_version(toy: Toy, challenger: Challenger) -> None:
    entry, found = promote(toy, challenger), recorded(toy, challenger)
    with serving(toy) as server:
        server.wait_for_version(entry)
    unreachable = f"sqlite:///{toy.folder}/no/such/folder/ledger.db"
    with serving(toy, MLFLOW_TRACKING_URI=NOWHERE, AIRWORTHY_LEDGER_URL=unreachable) as server:
        answer = server.post(split(found))
        assert (answer.status, answer.body["model_version"]) == (200, entry.version)
        assert answer.body["predictions"] == pytest.approx(found["expected"])
        detail = server.wait(lambda: (found := server.get("/ping").body)["registry"].get("reason") and found)
        assert (detail["ledger"]["status"], "must answer" in detail["ledger"]["reason"]) == ("down", True)
        assert (detail["registry"]["status"], NOWHERE in detail["registry"]["reason"]) == ("down", True)
        assert all(datetime.fromisoformat(detail[name]["since"]) for name in ("ledger", "registry"))
        metrics = server.get("/metrics").body
        assert 'airworthy_up{service="ledger"} 0\n' in metrics and 'airworthy_up{service="registry"} 0\n' in metrics


def test_an_mlflow_that_is_down_is_asked_again(toy: Toy, challenger: Challenger) -> None:
    promote(toy, challenger)
    with serving(toy, MLFLOW_TRACKING_URI=NOWHERE) as server:
        refused = server.wait_for_refusal(toy.name)
        assert (refused["final"], NOWHERE in refused["reason"]) == (False, True)
        server.wait(lambda: server.model(toy.name)["refused"]["attempts"] > 1)
        assert server.post({"instances": [{}]}).status == 503


def test_files_damaged_on_this_machine_are_fetched_anew(toy: Toy, challenger: Challenger) -> None:
    entry = promote(toy, challenger)
    with serving(toy) as server:
        server.wait_for_version(entry)
    (file,) = (toy.folder / "home" / "serving").rglob("model.ubj")
    whole = file.read_bytes()
    file.write_bytes(b"damaged")
    with serving(toy) as server:
        server.wait_for_version(entry)
    assert file.read_bytes() == whole


def test_only_the_last_two_versions_are_kept(toy: Toy, challenger: Challenger) -> None:
    second, third = (trained(toy, toy.pipeline(model=DEEPER), as_of) for as_of in (challenger.as_of, APRIL))
    with serving(toy) as server:
        entry = None
        for one in (challenger, second, third):
            entry = promote(toy, one, entry)
            server.wait_for_version(entry)
        folder = toy.folder / "home" / "serving" / toy.name
        kept = {second.digest, third.digest, "champion.json"}
        server.wait(lambda: {path.name for path in folder.iterdir()} == kept)


def test_a_ledger_without_champion_withdraws_the_model(toy: Toy, challenger: Challenger) -> None:
    entry = promote(toy, challenger)
    with serving(toy) as server:
        server.wait_for_version(entry)
        Ledger(toy.profile.ledger_url).rollback(toy.name, entry.version, "test")
        server.wait(lambda: server.model(toy.name)["version"] is None)
        assert server.post({"instances": [{}]}).status == 503


def test_edited_feature_code_reaches_the_next_champion_and_not_the_present_one(
    toy: Toy, challenger: Challenger
) -> None:
    before, found = promote(toy, challenger), recorded(toy, challenger)
    with serving(toy) as server:
        server.wait_for_version(before)
        edited = TOY_FEATURES.replace(".assign(", ".assign(distance=-frame.distance, ")
        (toy.folder / "code" / "toy_features.py").write_text(edited)
        sys.modules.pop("toy_features")
        pipeline = toy.pipeline()
        shutil.rmtree(toy.folder / "store")
        toy.fill(pipeline, toy.rows())
        second = trained(toy, pipeline)
        assert second.digest != challenger.digest
        assert server.post(split(found)).body["predictions"] == pytest.approx(found["expected"])
        server.wait_for_version(promote(toy, second, before))


def test_a_fresh_process_answers_the_recorded_requests(toy: Toy, challenger: Challenger, tmp_path: Path) -> None:
    folder = Registry(toy.profile).download(challenger.model_id, tmp_path / "files")
    servable = check_in_fresh_process(folder, challenger.digest, toy.name)
    assert (servable.requests, servable.largest_difference, servable.error) == (50, 0.0, "")
    with pytest.raises(ModelError, match=r"must load and answer in a fresh process.*must have the recorded SHA-256"):
        check_in_fresh_process(folder, "0" * 64, toy.name)


def test_the_check_imports_no_more_than_it_needs(toy: Toy, challenger: Challenger, tmp_path: Path) -> None:
    folder = Registry(toy.profile).download(challenger.model_id, tmp_path / "files")
    program = (
        "import sys; from airworthy.serving.check import main;"
        f"code = main([{str(folder)!r}, {challenger.digest!r}, '--pipeline', {toy.name!r}]);"
        "print(sorted({'sklearn', 'mlflow', 'fastapi', 'evidently', 'scipy.stats'} & set(sys.modules)), code)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[0])["requests"] == 50
    assert done.stdout.splitlines()[1] == "[] 0"


def test_feature_code_is_a_copy_of_its_own(toy: Toy) -> None:
    pipeline = toy.pipeline(features="toy_features:features")
    own = with_own_feature_code(pipeline)
    assert own.features != pipeline.features
    (toy.folder / "code" / "toy_features.py").write_text("def features(frame):\n    return 'edited'\n")
    frame = toy.rows(days=1)
    assert list(call(own.features, frame)) == ["distance", "carrier_name", "wind", "hour", "long"]
    assert call(with_own_feature_code(pipeline).features, frame) == "edited"
    without = toy.pipeline(features=None)
    assert with_own_feature_code(without) is without


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"[1]", "request: must be an object with one of dataframe_split, dataframe_records, instances. Got [1]."),
        (b'{"inputs": []}', "must be an object with one of"),
        (b'{"instances": [], "dataframe_records": []}', "must be an object with one of"),
        (b'{"instances": []}', "request: must hold at least one row."),
        (b'{"instances": [[1]]}', "request: instances: must be a list of objects, one per row. Got [[1]]."),
        (b'{"dataframe_split": {"columns": ["a"]}}', "request: dataframe_split: must be an object with `columns`"),
        (
            b'{"dataframe_split": {"columns": ["a"], "data": [[1, 2]]}}',
            "data[0]: must be a list of 1 values. Got [1, 2].",
        ),
        (b'{"dataframe_split": {"columns": ["a", "a"], "data": [[1, 2]]}}', "must not name a column twice. Got ['a']."),
        (b'{"instances": [{"a": 1}, {"b": 1}]}', "request: row 1: a: must be given, as in row 0."),
        (b'{"instances": [{"a": 1}, {"a": 1, "b": 1}]}', "request: row 1: b: must be given in row 0 too."),
        (b"[" * 100_000, "request: must be JSON."),
        (b"{", "request: must be JSON."),
    ],
)
def test_malformed_json_is_refused(body: bytes, message: str) -> None:
    with pytest.raises(DataError) as refused:
        read_rows(body, "application/json")
    assert message in str(refused.value)


def test_csv_keeps_text_as_it_is_and_empty_cells_as_missing() -> None:
    rows = read_rows(b'code,note\r\n007,"a, b"\r\n,x\r\n', "text/csv")
    assert rows.columns == {"code": ["007", None], "note": ["a, b", "x"]}
    with pytest.raises(DataError, match=r"request: row 0: must have 2 fields, as the header. Got 1."):
        read_rows(b"a,b\n1\n", "text/csv")
    with pytest.raises(DataError, match="must be CSV in UTF-8 with a header"):
        read_rows(b"", "text/csv")


def test_csv_booleans_are_read_where_the_model_takes_booleans() -> None:
    rows = read_rows(b"flag,text\nTrue,True\nfalse,0\n,x\n", "text/csv")
    inputs = [Input(name="flag", type="boolean"), Input(name="text", type="string")]
    assert typed(inputs, rows) == {"flag": [True, False, None], "text": ["True", "0", "x"]}


def test_labels_of_metrics_are_escaped() -> None:
    counters = Counters()
    counters.add("airworthy_requests", pipeline='a"b\\', status="200")
    assert 'airworthy_requests_total{pipeline="a\\"b\\\\",status="200"} 1\n' in counters.text({})
