"""The error budget on a real PostgreSQL, where judgements of several processes meet."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import sqlalchemy as sa

from airworthy.budget import Draw, KeptBudget
from postgres_process import postgres_server
from test_budget import YEAR, look

AT_ONCE = 8


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with postgres_server() as found:
        yield found


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
