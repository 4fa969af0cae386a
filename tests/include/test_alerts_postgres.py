"""The record of alerts on a real PostgreSQL, where several processes notice the same incident at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from airworthy.alerts.incidents import Incidents
from test_alerts import alert

AT_ONCE = 8


def test_those_who_notice_at_once_tell_once_and_take_over_once(postgres_url: str) -> None:
    """The first of them all makes the table, too."""
    heard: list[str] = []

    def notice(fails: bool) -> None:
        start = Barrier(AT_ONCE)

        def tell(number: int) -> None:
            def channel(_: object) -> str:
                heard.append(f"{'failed' if fails else 'told'}")
                if fails:
                    raise OSError("the chat is down")
                return "told"

            start.wait(timeout=30)
            Incidents(postgres_url).tell(alert(incident="race"), {"webhook": channel})

        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(tell, range(AT_ONCE)))

    notice(fails=True)
    assert set(heard) == {"failed"}
    heard.clear()
    notice(fails=False)
    assert heard == ["told"]
    (row,) = Incidents(postgres_url).told("toy")
    assert (row.status, row.told) == ("done", "told")
