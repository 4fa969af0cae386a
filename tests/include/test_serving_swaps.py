"""Champions change under steady load: nothing is lost, nothing surprising answers, and death costs nothing but time."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from airworthy.ledger import Entry, Ledger
from airworthy.profile import ROOT
from airworthy.registry import Challenger
from serving_load import Client, load
from serving_process import DEEPER, Server, promote, recorded, serving, trained
from toy_pipeline import Toy

SWAPS = int(os.environ.get("AIRWORTHY_TEST_SWAPS", "10"))


@pytest.fixture
def two(toy: Toy) -> tuple[Challenger, Challenger]:
    pipeline = toy.pipeline(features=None)
    toy.fill(pipeline, toy.rows())
    return trained(toy, pipeline), trained(toy, toy.pipeline(features=None, model=DEEPER))


def with_workers(toy: Toy, count: int) -> None:
    folder = toy.folder / "config" / "profiles"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "base.yaml").write_text((ROOT / "config" / "profiles" / "base.yaml").read_text())
    (folder / "local.yaml").write_text(yaml.safe_dump({"serving": {"workers": count}}))


def split(found: dict[str, Any]) -> dict[str, Any]:
    return {"dataframe_split": {"columns": found["columns"], "data": found["data"][:1]}}


def swap(toy: Toy, server: Server, last: Entry, other: str) -> Entry:
    """Returns the entry that makes the other version champion, once it answers."""
    entry = Ledger(toy.profile.ledger_url).rollback(toy.name, last.version, "test", to=other)
    server.wait(lambda: server.model(toy.name)["sequence"] >= entry.sequence)
    return entry


def require_honest(clients: list[Client], expected: dict[str, float], versions: dict[int, str]) -> None:
    for client in clients:
        assert client.lost == [] and client.unannounced == set()
        assert {status for _, _, status, _, _ in client.answers} == {200}
        sequences = [sequence for _, _, _, sequence, _ in client.answers]
        assert sequences == sorted(sequences)  # never an older one after a newer one
        for _, _, _, sequence, said in client.answers:
            assert said["model_version"] == versions[sequence]
            assert said["predictions"] == pytest.approx([expected[said["model_version"]]])


@pytest.mark.parametrize("workers", [1, 2])
def test_swaps_under_load_lose_nothing_and_never_go_back(
    toy: Toy, two: tuple[Challenger, Challenger], workers: int
) -> None:
    with_workers(toy, workers)
    found = [recorded(toy, challenger) for challenger in two]
    expected = {"1": found[0]["expected"][0], "2": found[1]["expected"][0]}
    entry = promote(toy, two[0])
    with serving(toy) as server:
        server.wait_for_version(entry)
        with load(server, split(found[0]), toy.name, clients=3) as clients:
            entry = promote(toy, two[1], entry)
            server.wait_for_version(entry)
            for _ in range(SWAPS):
                entry = swap(toy, server, entry, "1" if entry.version == "2" else "2")
            server.wait(lambda: any(one.answers[-1][3] == entry.sequence for one in clients if one.answers))
        counted = [line for line in server.get("/metrics").body.splitlines() if 'status="200"' in line]
    entries = Ledger(toy.profile.ledger_url).entries(toy.name)
    require_honest(clients, expected, {one.sequence: one.version for one in entries})
    seen = {sequence for client in clients for _, _, _, sequence, _ in client.answers}
    assert len(seen) > SWAPS / 2 and max(seen) == len(entries) == SWAPS + 2
    if workers == 1:
        assert counted[0].endswith(f" {sum(len(client.answers) for client in clients)}")


def test_after_kill_9_amid_load_and_a_swap_the_ledgers_champion_answers(
    toy: Toy, two: tuple[Challenger, Challenger]
) -> None:
    found = [recorded(toy, challenger) for challenger in two]
    before = promote(toy, two[0])
    with serving(toy) as server, load(server, split(found[0]), toy.name, clients=2) as clients:
        server.wait_for_version(before)
        after = promote(toy, two[1], before)
        server.wait(lambda: any((toy.folder / "home" / "serving" / toy.name).glob(".incoming-*")))
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait()
    answers = [said for client in clients for _, _, status, _, said in client.answers if status == 200]
    assert {said["model_version"] for said in answers} == {before.version}
    with serving(toy) as server:
        server.wait_for_version(after)
        said = server.post(split(found[1]))
        assert (said.status, said.body["model_version"]) == (200, after.version)
        assert said.body["predictions"] == pytest.approx(found[1]["expected"][:1])
        kept = {path.name for path in (toy.folder / "home" / "serving" / toy.name).iterdir()}
        server.wait(lambda: not any((toy.folder / "home" / "serving" / toy.name).glob(".incoming-*")))
        assert {two[0].digest, two[1].digest, "champion.json"} <= kept


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_worker(pid: int) -> bool:
    try:
        return b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it ended since it was listed
        return False


@pytest.mark.parametrize("workers", [1, 2])
def test_a_service_that_is_told_to_stop_leaves_no_memory_behind(
    toy: Toy, two: tuple[Challenger, Challenger], workers: int
) -> None:
    with_workers(toy, workers)
    entry = promote(toy, two[0])
    with serving(toy) as server:
        server.wait_for_version(entry)
        parent = psutil.Process(server.process.pid)
        maps = [Path(f"/proc/{one.pid}/maps").read_text() for one in (parent, *parent.children(recursive=True))]
        (folder,) = {*re.findall(r"(/\S*/airworthy-serving-\w+)/", "".join(maps))}
        assert Path(folder).exists()
    assert server.process.returncode == (128 + signal.SIGTERM if workers == 1 else 0)
    assert not Path(folder).exists()


def test_a_killed_worker_is_replaced_and_one_without_parent_ends(toy: Toy, two: tuple[Challenger, Challenger]) -> None:
    with_workers(toy, 2)
    found = [recorded(toy, challenger) for challenger in two]
    entry = promote(toy, two[0])
    with serving(toy) as server:
        server.wait_for_version(entry)
        workers = [pid for pid in children(server.process.pid) if is_worker(pid)]
        os.kill(workers[0], signal.SIGKILL)
        entry = promote(toy, two[1], entry)
        server.wait(lambda: len({*filter(is_worker, children(server.process.pid))} - {workers[0]}) == 2)
        server.wait(lambda: {server.model(toy.name).get("sequence") for _ in range(8)} == {entry.sequence})
        assert server.post(split(found[1])).body["model_version"] == entry.version
        workers = [pid for pid in children(server.process.pid) if is_worker(pid)]
        os.kill(server.process.pid, signal.SIGKILL)
        deadline = time.monotonic() + 60
        while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
