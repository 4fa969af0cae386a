"""Answers one request for predictions: reads it within the limits, holds it to the contract, and scores it."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple
from urllib.parse import parse_qs

import numpy as np
from starlette.types import Receive, Scope, Send

from airworthy.errors import AirworthyError, DataError, ModelError, Problems, ServiceError
from airworthy.profile import Serving
from airworthy.serving.admission import Admission, Disconnected, Held, Refused
from airworthy.serving.canaries import Canaries, Split
from airworthy.serving.captured_rows import Answered, Second
from airworthy.serving.capturing import Capturing
from airworthy.serving.champion import Champion, Champions
from airworthy.serving.counters import Counters
from airworthy.serving.headers import request_id, said_in
from airworthy.serving.lane import Asked
from airworthy.serving.rows import read_rows
from airworthy.serving.scoring import as_json, columns_of

_AT_ONCE = 20_000  # bytes whose scoring takes less than going to a thread and back would cost the others

_FINITE = json.JSONEncoder(allow_nan=False).encode

log = logging.getLogger(__name__)


class Scored(NamedTuple):
    """What the champion says to a request, what it was made from, and how long that took in seconds."""

    content: bytes
    columns: dict[str, list[Any]]
    prediction: np.ndarray
    seconds: float


class By(NamedTuple):
    """Whose an answer is: `version` names both where a request has rows of a champion and of a challenger."""

    pipeline: str
    version: str
    sequence: int

    @property
    def said(self) -> dict[str, str]:
        return {"pipeline": self.pipeline, "model_version": self.version}


class Invocations:
    """The ASGI application that answers requests for predictions, as many at once as the limits allow.

    It is none of FastAPI's functions: what FastAPI does before and after it calls one takes as long as the rest.
    """

    def __init__(
        self, champions: Champions, canaries: Canaries, capturing: Capturing, counters: Counters, limits: Serving
    ) -> None:
        self._champions = champions
        self._canaries = canaries
        self._capturing = capturing
        self._counters = counters
        self._admission = Admission(limits)
        self._seconds = limits.seconds
        self._threads = ThreadPoolExecutor(min(4, os.cpu_count() or 1), thread_name_prefix="score")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the predictions for the rows of one request, or why there are none.

        All are by one version, but for rows that are a challenger's while a canary runs.
        """
        started = time.perf_counter()
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        name = _query(scope, "pipeline") or headers.get(b"x-pipeline", "")
        request, champion, by = request_id(headers), None, None
        try:
            with self._admission.entered() as held:
                body = await self._admission.read(receive, headers.get(b"content-length", "0"), held)
                champion = self._champion(name)
                content, by = await self._answer(champion, body, headers, request, started, held)
                status = 200
        except Disconnected:
            content, status = b"", 499  # nobody reads this, but it is counted
        except Exception as error:
            champion = champion or self._champions.champion(self._meant(name))
            content, status = _refusal(error, champion)
        by = by or (_by(champion) if champion else None)
        known = champion.entry.pipeline if champion else name if name in self._champions.pipelines() else ""
        self._counters.add("airworthy_requests", pipeline=known, status=str(status))  # a made-up name is no label
        took = time.perf_counter() - started
        self._counters.observe("airworthy_request_seconds", took, pipeline=known, status=str(status))
        told = _headers(status, content, request, by)
        await send({"type": "http.response.start", "status": status, "headers": told})
        await send({"type": "http.response.body", "body": content})

    def held(self) -> tuple[int, int]:
        """Returns how many requests are read or scored at the moment, and how many bytes they have."""
        return self._admission.held

    def _champion(self, name: str) -> Champion:
        """Returns the champion that answers this request from here to its end, whatever is swapped in meanwhile."""
        if name and (champion := self._champions.champion(name)):
            return champion
        known = self._champions.pipelines()
        name = self._meant(name)
        if not name:
            given = ", ".join(known) or "none is declared"
            raise Refused(400, f"request: pipeline: must name one of the pipelines ({given}). Use ?pipeline=<name>")
        if name not in known:
            raise Refused(404, f"request: pipeline: must be one of {', '.join(known) or 'none yet'}. Got {name[:50]!r}")
        if champion := self._champions.champion(name):
            return champion
        refusal = self._champions.refusal(name)
        hint = f"version {refusal.entry.version} is not live: {refusal.reason}" if refusal else f"Run {name}.train"
        raise Refused(503, f"{name}: has no champion yet. {hint}")

    def _meant(self, name: str) -> str:
        """Returns the pipeline that a request is for: the one that it names, or the only one there is."""
        known = self._champions.pipelines()
        return name or (known[0] if len(known) == 1 else "")

    async def _answer(
        self, champion: Champion, body: bytes, headers: Mapping[bytes, str], request: str, started: float, held: Held
    ) -> tuple[bytes, By]:
        """Returns the answer, which is counted among the captured ones, or is none of them, and whose it is."""
        said = said_in(headers, request)
        buffer = self._capturing.buffer(champion, request)
        if buffer:
            buffer.require_room()
        content_type = headers.get(b"content-type", "")
        scored = await self._scored(champion, body, content_type, held)
        second, content, by = None, scored.content, _by(champion)
        if split := self._canaries.split(champion):
            second = await self._second(split, scored, body, content_type)
            if second and second.gave:
                content, by = _by_both(champion, second, scored.prediction)
        self._count_rows(champion, second, len(scored.prediction))
        if buffer:
            seconds = time.perf_counter() - started
            at = time.time() - seconds
            buffer.take(Answered(champion, said, at, seconds, scored.columns, scored.prediction, len(body), second))
        return content, by

    async def _second(self, split: Split, scored: Scored, body: bytes, content_type: str) -> Second | None:
        """Returns the challenger's part; waits for it where it is to answer, but no longer than its canary allows."""
        chosen = split.chosen(scored.columns, len(scored.prediction))
        if not chosen:
            return None
        second = Second(split.challenger, split.entry, chosen)
        if split.entry.step.shadow:
            second.until = time.monotonic() + split.policy.timeout
            found = split.lane.ask(Asked(body, content_type, chosen, scored.seconds, second.take))
            return second if found else None
        loop = asyncio.get_running_loop()
        future: asyncio.Future[np.ndarray | None] = loop.create_future()

        def done(prediction: np.ndarray | None) -> None:
            loop.call_soon_threadsafe(lambda: None if future.done() else future.set_result(prediction))

        asked = Asked(body, content_type, chosen, scored.seconds, done)
        if not split.lane.ask(asked):
            return None
        try:
            second.take(await asyncio.wait_for(future, split.policy.timeout))
        except TimeoutError:
            split.lane.give_up(asked)
        return second

    def _count_rows(self, champion: Champion, second: Second | None, rows: int) -> None:
        others = len(second.chosen) if second and second.gave else 0
        of = {"pipeline": champion.entry.pipeline}
        if second and others:
            self._counters.add("airworthy_rows", others, **of, version=second.challenger.entry.version)
        if rows > others:
            self._counters.add("airworthy_rows", rows - others, **of, version=champion.entry.version)

    async def _scored(self, champion: Champion, body: bytes, content_type: str, held: Held) -> Scored:
        """Returns the answer; what takes longer than a moment is made in a thread, so that others are answered."""
        if champion.model.direct and not champion.model.contract.lookups and len(body) <= _AT_ONCE:
            return self._score(champion, body, content_type)
        held.keep()  # until the thread is done with it, whether or not somebody still waits for that
        future = self._threads.submit(self._score, champion, body, content_type)
        future.add_done_callback(lambda _: held.give_back())
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), self._seconds)
        except TimeoutError:
            reason = f"serving: seconds: must have answered within {self._seconds:g}. Retry later, or with fewer rows."
            raise Refused(503, reason) from None

    def _score(self, champion: Champion, body: bytes, content_type: str) -> Scored:
        entry, model, started = champion.entry, champion.model, time.perf_counter()
        rows = read_rows(body, content_type)
        self._admission.require_few(rows.count)
        columns = columns_of(champion, rows, self._counters)
        prediction = model.predict_columns(columns, rows.count)
        predictions = as_json(prediction, model.contract.classes)
        try:
            content = _FINITE({"predictions": predictions, **_by(champion).said}).encode()
        except ValueError:
            raise ModelError(f"{entry.pipeline}: version {entry.version}", "must predict finite numbers") from None
        return Scored(content, columns, prediction, time.perf_counter() - started)


def _query(scope: Scope, key: str) -> str:
    text = scope["query_string"].decode("latin-1")
    return parse_qs(text).get(key, [""])[-1] if text else ""


def _headers(status: int, content: bytes, request: str, by: By | None) -> list[tuple[bytes, bytes]]:
    found = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    found.append((b"x-request-id", request.encode()))
    if by:
        found.append((b"x-model-version", by.version.encode()))
        found.append((b"x-ledger-sequence", str(by.sequence).encode()))
    if status == 503:
        found.append((b"retry-after", b"1"))
    return found


def _by(champion: Champion) -> By:
    return By(champion.entry.pipeline, champion.entry.version, champion.entry.sequence)


def _by_both(champion: Champion, second: Second, prediction: np.ndarray) -> tuple[bytes, By]:
    """Returns the answer with the challenger's rows in it, and whose it is."""
    merged, _ = second.merged(prediction)
    versions = second.versions(champion, len(prediction))
    by = By(champion.entry.pipeline, ",".join(dict.fromkeys(sorted(versions))), second.entry.sequence)
    each = {"model_versions": versions} if len(set(versions)) > 1 else {}
    said = {"predictions": as_json(merged, champion.model.contract.classes), **by.said, **each}
    return _FINITE(said).encode(), by


def _refusal(error: Exception, champion: Champion | None) -> tuple[bytes, int]:
    """Returns what is said instead of predictions, by which version, and the HTTP status."""
    detail = str(error)
    if isinstance(error, Refused):
        status = error.status
    elif isinstance(error, DataError | Problems):
        status = 400
    elif isinstance(error, ServiceError):  # a prediction without what should have been looked up would be a wrong one
        status = 503
    else:
        log.error("A request failed", exc_info=error)
        status = 500
        detail = detail if isinstance(error, AirworthyError) else "serving: failed; its log says why."
    said = {"detail": detail, **(_by(champion).said if champion else {})}
    return json.dumps(said).encode(), status
