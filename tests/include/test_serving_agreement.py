"""Workers never answer by an entry that one of them could not answer by, nor by an older one after a newer one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from airworthy.serving.agreement import Agreement


@pytest.fixture
def two(tmp_path: Path) -> tuple[Agreement, Agreement]:
    found = Agreement(tmp_path), Agreement(tmp_path)
    for worker in found:
        worker.join()
    return found


def nothing() -> None:
    """Records nothing."""


def test_an_entry_is_agreed_once_all_workers_offer_it(two: tuple[Agreement, Agreement]) -> None:
    first, second = two
    recorded: list[str] = []
    first.offer("p", 1)
    assert not first.settle("p", lambda: recorded.append("early"))
    assert (first.agreed("p"), second.agreed("p")) == (0, 0)
    second.offer("p", 1)
    assert second.settle("p", lambda: recorded.append("once"))
    assert (first.agreed("p"), second.agreed("p")) == (1, 1)
    assert first.settle("p", lambda: recorded.append("again")) and recorded == ["once"]
    second.offer("p", 2)
    assert not second.settle("p", nothing) and first.agreed("p") == 1
    assert first.settle("p", nothing)  # what it offers itself still holds
    first.offer("p", 2)
    assert first.settle("p", nothing) and second.agreed("p") == 2


def test_pipelines_are_agreed_on_one_by_one_and_can_be_withdrawn(two: tuple[Agreement, Agreement]) -> None:
    for worker in two:
        worker.offer("p", 3)
        worker.offer("q", 1)
    assert two[0].settle("p", nothing)
    assert (two[1].agreed("p"), two[1].agreed("q")) == (3, 0)
    for worker in two:
        worker.offer("p", 0)
    assert two[1].settle("p", nothing) and two[0].agreed("p") == 0


def test_nothing_is_agreed_that_could_not_be_recorded(two: tuple[Agreement, Agreement]) -> None:
    def full() -> None:
        raise OSError("no space left")

    for worker in two:
        worker.offer("p", 1)
    with pytest.raises(OSError, match="no space left"):
        two[0].settle("p", full)
    assert two[1].agreed("p") == 0


def test_who_joins_has_a_say_before_it_can_answer(two: tuple[Agreement, Agreement], tmp_path: Path) -> None:
    for worker in two:
        worker.offer("p", 1)
    assert two[0].settle("p", nothing)
    third = Agreement(tmp_path)
    third.join()
    for worker in two:
        worker.offer("p", 2)
    assert not two[0].settle("p", nothing)
    third.offer("p", 2)
    assert third.agreed("p") == 1 and third.settle("p", nothing) and two[0].agreed("p") == 2


def test_a_dead_worker_has_no_say(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path; from airworthy.serving.agreement import Agreement;"
        "worker = Agreement(Path(sys.argv[1])); worker.join(); worker.offer('p', 1);"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False, timeout=60)
    assert done.returncode == -9 and len(list(tmp_path.glob("*.worker"))) == 1
    left = Agreement(tmp_path)
    left.join()
    left.offer("p", 2)
    assert left.settle("p", nothing) and left.agreed("p") == 2
    assert len(list(tmp_path.glob("*.worker"))) == 1
