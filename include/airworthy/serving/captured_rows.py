"""What is captured of an answer, and how many of them become rows of a table."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from airworthy.capture import (
    AT,
    FEATURES_TIME,
    FEATURES_VERSION,
    OTHER,
    OTHER_PROBABILITY,
    OTHER_VERSION,
    PREFIX,
    PROBABILITY,
    REQUEST,
    ROW,
    SECONDS,
    SEQUENCE,
)
from airworthy.columns import TIMESTAMP
from airworthy.ledger import Entry
from airworthy.masking import MASK
from airworthy.partitions import partition_at
from airworthy.serving.champion import Champion
from airworthy.serving.headers import Said

_TYPES = {
    "integer": pa.int64(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
    "timestamp": TIMESTAMP,
    "string": pa.string(),
}


@dataclass
class Second:
    """A challenger's part in one request, beside the champion's, which has all rows.

    Attributes:
        entry: The step of the canary.
        chosen: The rows it scores.
        prediction: Of these, shape (chosen,) or (chosen, classes); None as long as there is none, and for ever if it
            fails.
        until: How long what is captured waits for a prediction in the shadow, on the monotonic clock.
    """

    challenger: Champion
    entry: Entry
    chosen: Sequence[int]
    prediction: np.ndarray | None = None
    until: float = 0.0

    @property
    def answers(self) -> bool:
        """Whether its predictions are the answer, and the champion's only compared."""
        return not self.entry.step.shadow

    @property
    def gave(self) -> bool:
        """Whether some of the answer is its own."""
        return self.answers and self.prediction is not None

    def take(self, prediction: np.ndarray | None) -> None:
        """Has the predictions from here on, or will have none."""
        self.prediction, self.until = prediction, 0.0

    def merged(self, champion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns what was answered, and what the version that did not answer a row says of it, NaN where nothing.

        Args:
            champion: Its predictions for all rows.
        """
        found = self.prediction
        answer, other = champion, np.full(champion.shape, np.nan)
        if found is None:
            return answer, other
        chosen = list(self.chosen)
        if not self.answers:
            other[chosen] = found
            return answer, other
        answer = champion.astype("float64", copy=True)
        other[chosen], answer[chosen] = champion[chosen], found
        return answer, other

    def versions(self, champion: Champion, rows: int) -> list[str]:
        """Returns the version that answered each row."""
        own = set(self.chosen) if self.gave else set()
        return [(self.challenger if row in own else champion).entry.version for row in range(rows)]


class Answered(NamedTuple):
    """One answer.

    Attributes:
        champion: Who gave it, but for what `second` has.
        said: What the request said of itself.
        at: When the request arrived, in seconds since 1970.
        seconds: How long its answer took to make.
        columns: What the model was given, by input.
        prediction: The champion's, shape (rows,) or (rows, classes).
        size: The bytes of the request's body.
        second: The challenger's part in it.
    """

    champion: Champion
    said: Said
    at: float
    seconds: float
    columns: dict[str, list[Any]]
    prediction: np.ndarray
    size: int
    second: Second | None = None

    @property
    def pending(self) -> bool:
        """Whether it is soon known what a challenger in the shadow says."""
        return self.second is not None and time.monotonic() < self.second.until

    @property
    def sequence(self) -> int:
        """Of the ledger entry that it was given by."""
        second = self.second
        return second.entry.sequence if second and second.gave else self.champion.entry.sequence

    @property
    def rows(self) -> int:
        return len(self.prediction)


def table_of(answers: Sequence[Answered]) -> tuple[list[str], pa.Table]:
    """Returns the partition of each row, which is the hour in which its request arrived, and the rows.

    Personal text is masked, and other personal values are missing.

    Args:
        answers: At least one, all of one champion.
    """
    champion = answers[0].champion
    counts = [answer.rows for answer in answers]
    moments = [datetime.fromtimestamp(answer.at, UTC) for answer in answers]

    def each(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
        return pa.array([value for value, count in zip(values, counts, strict=True) for _ in range(count)], kind)

    found = {
        REQUEST: each([_clean(answer.said.request) for answer in answers], pa.string()),
        ROW: pa.array([number for count in counts for number in range(count)], pa.int64()),
        AT: each(moments, TIMESTAMP),
        SECONDS: each([answer.seconds for answer in answers], pa.float64()),
        SEQUENCE: each([answer.sequence for answer in answers], pa.int64()),
        FEATURES_VERSION: each([answer.said.features_version for answer in answers], pa.string()),
        FEATURES_TIME: each([answer.said.features_time for answer in answers], TIMESTAMP),
        **_answered(answers, champion),
    }
    for column in champion.model.contract.inputs:
        if not column.name.startswith(PREFIX) and column.name not in found:
            values = [value for answer in answers for value in answer.columns[column.name]]
            if column.name in champion.pipeline.pii:
                values = [None if value is None or column.type != "string" else MASK for value in values]
            found[column.name] = _array(values, _TYPES[column.type])
    keys = [partition_at("hour", moment).key for moment in moments]
    return [key for key, count in zip(keys, counts, strict=True) for _ in range(count)], pa.table(found)


def _answered(answers: Sequence[Answered], champion: Champion) -> dict[str, pa.Array]:
    """Returns what was answered and by which version; where a challenger scored some, what the other version says."""
    classes = champion.model.contract.classes
    if not any(answer.second for answer in answers):
        version = pa.array([champion.entry.version] * sum(one.rows for one in answers), pa.string())
        return {"version": version, **_predictions(np.concatenate([one.prediction for one in answers]), classes)}
    parts = []
    versions: list[str] = []
    others: list[str | None] = []
    own = champion.entry.version
    for one in answers:
        if one.second is None:
            parts.append((one.prediction, np.full(one.prediction.shape, np.nan)))
            versions += [own] * one.rows
            others += [None] * one.rows
            continue
        second = replace(one.second)  # what a shadow says may come at any moment
        parts.append(second.merged(one.prediction))
        scored = {*second.chosen} if second.prediction is not None else set()
        challenger = second.challenger.entry.version
        given = second.versions(champion, one.rows)
        versions += given
        pairs = enumerate(given)
        others += [(own if by == challenger else challenger) if row in scored else None for row, by in pairs]
    answer, other = (np.concatenate(part) for part in zip(*parts, strict=True))
    beside = _predictions(other, classes)
    missing = pa.array([version is None for version in others])
    names = {"prediction": OTHER} | {f"{PROBABILITY}{name}": f"{OTHER_PROBABILITY}{name}" for name in classes}
    absent = {names[name]: pc.if_else(missing, None, values) for name, values in beside.items()}
    return {
        "version": pa.array(versions, pa.string()),
        OTHER_VERSION: pa.array(others, pa.string()),
        **_predictions(answer, classes),
        **absent,
    }


def _predictions(prediction: np.ndarray, classes: tuple[str, ...]) -> dict[str, pa.Array]:
    if prediction.ndim == 1:
        return {"prediction": pa.array(prediction, pa.float64())}
    likeliest = np.array(classes, dtype=object)[prediction.argmax(axis=1)]
    each = {
        f"{PROBABILITY}{name}": pa.array(prediction[:, number], pa.float64()) for number, name in enumerate(classes)
    }
    return {"prediction": pa.array(likeliest, pa.string()), **each}


def _array(values: list[Any], kind: pa.DataType) -> pa.Array:
    """Returns the values; what JSON can say and the type cannot becomes the nearest that it can."""
    try:
        return pa.array(values, kind)
    except (pa.ArrowException, UnicodeEncodeError, OverflowError):
        nearest: Callable[[Any], Any] = _clean if kind == pa.string() else float
        return pa.array([value if value is None else nearest(value) for value in values], kind)


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
