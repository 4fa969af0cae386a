"""A source whose truth is known: the tests decide by date and by name what the data is like."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd

ROWS = 300
SHIFTED = datetime(2026, 2, 1, tzinfo=UTC), datetime(2026, 3, 1, tzinfo=UTC)


def extract(start: datetime, end: datetime) -> pd.DataFrame:
    """Rows whose label follows `load` and `line`; in February `load` lies much higher."""
    frame = _inputs(start, end)
    effect = frame["line"].map({"red": -1.0, "green": 0.0, "blue": 1.0})
    chance = 1 / (1 + np.exp(-(2 * frame["load"] + effect)))
    draw = np.random.default_rng(_seed(start) + 1).random(len(frame))
    return frame.assign(late=(draw < chance).astype("int64"))


def extract_noise(start: datetime, end: datetime) -> pd.DataFrame:
    """Rows whose label has nothing to do with anything: no honest model passes a floor on them."""
    frame = _inputs(start, end)
    return frame.assign(late=np.random.default_rng(_seed(start) + 2).integers(0, 2, len(frame)))


def extract_one_class(start: datetime, end: datetime) -> pd.DataFrame:
    return _inputs(start, end).assign(late=0)


def extract_without_label(start: datetime, end: datetime) -> pd.DataFrame:
    return _inputs(start, end)


def extract_in_milli(start: datetime, end: datetime) -> pd.DataFrame:
    """Some rows have `load` in the wrong unit and one has nonsense; from the 11th of a month on too many."""
    frame = extract(start, end)
    wrong = 30 if start.day > 10 else 3
    frame.loc[: wrong - 1, "load"] = 1500.0
    frame.loc[wrong, "load"] = 99.0
    return frame


def in_units(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(load=rows["load"].where(rows["load"] < 100, rows["load"] / 1000))


def features(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({"load": frame["load"], "line": frame["line"], "hour": frame["at"].dt.hour})


def raising_features(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[["no_such_column"]]


def _seed(start: datetime) -> int:
    return int(start.timestamp()) // 3600


def _inputs(start: datetime, end: datetime) -> pd.DataFrame:
    random = np.random.default_rng(_seed(start))
    shifted = SHIFTED[0] <= start < SHIFTED[1]
    seconds = np.sort(random.integers(0, int((end - start).total_seconds()), ROWS))
    return pd.DataFrame(
        {
            "id": [f"{start:%Y%m%d%H}-{number:04d}" for number in range(ROWS)],
            "at": pd.to_datetime([start + timedelta(seconds=int(second)) for second in seconds], utc=True),
            "load": random.normal(2.5 if shifted else 0.0, 1.0, ROWS),
            "line": random.choice(["red", "green", "blue"], ROWS),
        }
    )
