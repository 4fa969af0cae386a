"""What `/metrics` says under load, and that the dashboard asks for nothing else."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from airworthy.profile import ROOT
from airworthy.serving.counters import Counters, Gauge
from openmetrics import Family, parse
from serving_load import load
from serving_process import Server, promote, recorded, serving, trained
from test_serving_swaps import with_workers
from toy_pipeline import Toy

DASHBOARD = ROOT / "docker" / "grafana" / "airworthy-serving.json"
ONLY_WITH_VIEWS = {"airworthy_lookups_total"}  # tests/include/test_view_serving.py sees it


@pytest.fixture
def loaded(toy: Toy) -> Iterator[tuple[Server, list[int]]]:
    """Two workers that have answered for a while, with the status of each answer."""
    pipeline = toy.pipeline()
    toy.fill(pipeline, toy.rows())
    challenger = trained(toy, pipeline)
    entry, found = promote(toy, challenger), recorded(toy, challenger)
    body = {"dataframe_split": {"columns": found["columns"], "data": found["data"]}}
    with_workers(toy, 2)
    with serving(toy) as server:
        server.wait_for_version(entry)
        with load(server, body, toy.name, clients=4) as clients:
            server.wait(lambda: all(len(client.answers) >= 25 for client in clients))
        assert not any(client.lost for client in clients)
        statuses = [answer[2] for client in clients for answer in client.answers]
        statuses += [server.post(b"{", toy.name).status, server.post(body, "no_such").status]
        yield server, statuses


def counted(server: Server, requests: int) -> dict[str, Family]:
    """Returns the metrics once all workers have told each other of so many requests."""

    def told() -> dict[str, Family] | None:
        families = parse(server.get("/metrics").body)
        totals = (sum(families["airworthy_requests"].values()), families["airworthy_request_seconds"].values("_count"))
        at_rest = families["airworthy_in_flight"].values() == [0] and families["airworthy_workers"].values() == [2]
        return families if at_rest and totals[0] == sum(totals[1]) == requests else None

    return server.wait(told)


def test_under_load_everything_is_counted_and_the_dashboard_finds_it(loaded: tuple[Server, list[int]]) -> None:
    server, statuses = loaded
    families = counted(server, len(statuses))
    assert sorted(set(statuses)) == [200, 400, 404]
    for status in set(statuses):
        expected = statuses.count(status)
        assert sum(families["airworthy_requests"].values("_total", status=str(status))) == expected
        assert sum(families["airworthy_request_seconds"].values("_count", status=str(status))) == expected
    seconds = families["airworthy_request_seconds"]
    assert sum(seconds.values("_sum", status="200")) > 0
    assert families["airworthy_in_flight"].values() == families["airworthy_held_bytes"].values() == [0]
    assert families["airworthy_workers"].values() == [2]
    assert families["airworthy_resident_bytes"].values()[0] > 100e6
    assert families["airworthy_cpu_seconds"].values("_total")[0] > 0.5
    assert families["airworthy_refused"].values() == [0]
    as_of, since = (families[f"airworthy_champion_{name}_timestamp_seconds"].values()[0] for name in ("as_of", "since"))
    assert as_of < since <= time.time()
    samples = {name for family in families.values() for name, _ in family.samples}
    assert asked_by(json.loads(DASHBOARD.read_text())) - samples == ONLY_WITH_VIEWS
    assert {name.removesuffix("_total") for name in ONLY_WITH_VIEWS} <= families.keys()


def asked_by(content: Any) -> set[str]:
    """Returns the metrics that anything in a dashboard asks for."""
    if isinstance(content, dict):
        names = {name for key in ("expr", "query") for name in re.findall(r"airworthy_\w+", str(content.get(key, "")))}
        return names.union(*map(asked_by, content.values()))
    return set().union(*map(asked_by, content)) if isinstance(content, list) else set()


def test_the_dashboard_is_one_that_grafana_can_load() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    assert dashboard["uid"] and dashboard["title"] and dashboard["schemaVersion"] >= 36
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 10
    assert len({panel["title"] for panel in panels}) == len(panels)
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    assert (variables["datasource"]["type"], variables["datasource"]["query"]) == ("datasource", "prometheus")
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["targets"] and len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
        for target in panel["targets"]:
            assert target["datasource"] == panel["datasource"] and asked_by(target)
            assert target["expr"].count("(") == target["expr"].count(")")
            used = set(re.findall(r"\$(\w+)", target["expr"])) - {"__rate_interval"}
            assert used <= variables.keys()
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken and at["x"] + at["w"] <= 24
        taken |= cells


def test_prometheus_is_told_where_and_with_which_token() -> None:
    (job,) = yaml.safe_load((ROOT / "docker" / "prometheus.yml").read_text())["scrape_configs"]
    assert job["metrics_path"] == "/metrics" and job["static_configs"] == [{"targets": ["127.0.0.1:8081"]}]
    assert job["authorization"]["type"] == "Bearer" and "credentials" not in job["authorization"]
    assert job["authorization"]["credentials_file"].startswith("/")


def test_what_is_counted_is_told_to_the_last_digit() -> None:
    counters = Counters()
    counters.add("airworthy_rows", 123_456_789, pipeline="a", version="1")
    for seconds in (0.0005, 0.0006, 40):
        counters.observe("airworthy_request_seconds", seconds, pipeline="a", status="200")
    families = parse(counters.text([Gauge("airworthy_down_seconds", (("service", 'a "\n\\'),), 0.25)]))
    assert families["airworthy_rows"].values("_total") == [123_456_789]
    buckets = families["airworthy_request_seconds"]
    assert [buckets.values("_bucket", le=edge) for edge in ("0.0005", "0.001", "30.0", "+Inf")] == [[1], [2], [2], [3]]
    assert families["airworthy_down_seconds"].values(service='a "\n\\') == [0.25]


def test_a_worker_that_has_ended_leaves_its_counts_but_not_its_memory(tmp_path: Any) -> None:
    ended = [
        ["airworthy_rows", [["pipeline", "a"]], 5],
        ["airworthy_cpu_seconds", [], 2.5],
        ["airworthy_workers", [], 1],
    ]
    (tmp_path / "999999999.counters").write_text(json.dumps(ended))
    counters = Counters(tmp_path)
    counters.look = lambda: {"airworthy_workers": 1, "airworthy_cpu_seconds": 1.5}
    families = parse(counters.text())
    assert families["airworthy_rows"].values("_total") == [5]
    assert families["airworthy_cpu_seconds"].values("_total") == [4]
    assert families["airworthy_workers"].values() == [1]
