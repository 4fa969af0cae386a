"""The HTTP side of serving: MLflow's and SageMaker's scoring contract, plus what answers and how much."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.concurrency import run_in_threadpool

from airworthy.errors import AirworthyError, DataError, Problems, ServiceError
from airworthy.serving.champion import Champion, Champions
from airworthy.serving.counters import CONTENT_TYPE, Counters
from airworthy.serving.rows import read_rows

log = logging.getLogger(__name__)


class Refused(Exception):
    """A request that gets no prediction; carries the HTTP status."""

    def __init__(self, status: int, reason: str) -> None:
        self.status = status
        super().__init__(reason)


def build(champions: Champions) -> FastAPI:
    """Returns the application; it follows the ledger while it runs."""
    counters = Counters()

    @asynccontextmanager
    async def follow(_: FastAPI) -> AsyncIterator[None]:
        champions.start()
        yield
        champions.stop()

    api = FastAPI(title="Airworthy serving", lifespan=follow)

    @api.get("/ping")
    def ping() -> JSONResponse:
        """200 once it has looked at the ledger or at the files of its last run."""
        content = {
            "status": "ok" if champions.ready else "starting",
            "ledger": champions.ledger_trouble or "ok",
            "pipelines": {name: _brief(champions, name) for name in champions.pipelines()},
        }
        return JSONResponse(content, 200 if champions.ready else 503)

    @api.get("/models")
    def models() -> dict[str, Any]:
        """What answers for each pipeline, and what was refused and why."""
        return {name: _detail(champions, name) for name in champions.pipelines()}

    @api.get("/metrics")
    def metrics() -> PlainTextResponse:
        live = {
            name: champion.entry.version for name in champions.pipelines() if (champion := champions.champion(name))
        }
        return PlainTextResponse(counters.text(live), media_type=CONTENT_TYPE)

    @api.post("/invocations")
    async def invocations(request: Request, pipeline: str = "") -> Response:
        """Predictions for the rows of one request, all by one version."""
        body = await request.body()
        name = pipeline or request.headers.get("x-pipeline", "")
        content_type = request.headers.get("content-type", "")
        return await run_in_threadpool(_answer, champions, counters, name, body, content_type)

    return api


def _answer(champions: Champions, counters: Counters, name: str, body: bytes, content_type: str) -> Response:
    started = time.perf_counter()
    try:
        champion = _champion(champions, name)
        name = champion.entry.pipeline
        response = _predict(champion, body, content_type, counters)
    except Refused as refused:
        name = name if name in champions.pipelines() else ""  # a label per made-up name would grow without bound
        response = JSONResponse({"detail": str(refused)}, refused.status)
    except (DataError, Problems) as error:
        response = JSONResponse({"detail": str(error)}, 400)
    except ServiceError as error:  # a prediction without what should have been looked up would be a wrong one
        response = JSONResponse({"detail": str(error)}, 503)
    except AirworthyError as error:
        log.exception("%s", name)
        response = JSONResponse({"detail": str(error)}, 500)
    counters.add("airworthy_requests", pipeline=name, status=str(response.status_code))
    counters.add("airworthy_seconds", time.perf_counter() - started, pipeline=name)
    return response


def _champion(champions: Champions, name: str) -> Champion:
    """Returns the champion that answers this request from here to its end, whatever is swapped in meanwhile."""
    known = champions.pipelines()
    if not name:
        if len(known) != 1:
            given = ", ".join(known) or "none is declared"
            raise Refused(400, f"request: pipeline: must name one of the pipelines ({given}). Use ?pipeline=<name>")
        (name,) = known
    if name not in known:
        raise Refused(404, f"request: pipeline: must be one of {', '.join(known) or 'none yet'}. Got {name[:50]!r}")
    champion = champions.champion(name)
    if champion is None:
        refusal = champions.refusal(name)
        hint = f"version {refusal.entry.version} is not live: {refusal.reason}" if refusal else f"Run {name}.train"
        raise Refused(503, f"{name}: has no champion yet. {hint}")
    return champion


def _predict(champion: Champion, body: bytes, content_type: str, counters: Counters) -> JSONResponse:
    entry, model = champion.entry, champion.model
    booleans = [column.name for column in model.contract.inputs if column.type == "boolean"]
    rows = read_rows(body, content_type, booleans)
    rows = champion.lookups.fill(rows, counters)
    rows = rows.assign(**dict.fromkeys(champion.optional - set(rows.columns)))
    predictions = _as_json(model.predict_raw(rows), model.contract.classes)
    counters.add("airworthy_rows", len(rows), pipeline=entry.pipeline, version=entry.version)
    return JSONResponse(
        {"predictions": predictions, "pipeline": entry.pipeline, "model_version": entry.version},
        headers={"X-Model-Version": entry.version},
    )


def _as_json(prediction: np.ndarray, classes: tuple[str, ...]) -> list[Any]:
    rows: list[Any] = prediction.tolist()
    return rows if prediction.ndim == 1 else [dict(zip(classes, row, strict=True)) for row in rows]


def _inputs(champion: Champion) -> list[dict[str, Any]]:
    """Returns what a request has to have, may leave out, or may leave to be looked up."""
    contract = champion.model.contract
    looked_up = {name: lookup.view for lookup in contract.lookups for name in lookup.columns}
    needed = {name for lookup in contract.lookups for name in lookup.key}
    optional = (champion.optional - needed) | looked_up.keys()
    return [
        {**column.model_dump(), "required": column.name not in optional}
        | ({"view": looked_up[column.name]} if column.name in looked_up else {})
        for column in contract.inputs
    ]


def _brief(champions: Champions, name: str) -> dict[str, Any]:
    champion, refusal = champions.champion(name), champions.refusal(name)
    refused = {"version": refusal.entry.version, "reason": refusal.reason} if refusal else None
    return {"version": champion.entry.version if champion else None, "refused": refused}


def _detail(champions: Champions, name: str) -> dict[str, Any]:
    champion, refusal = champions.champion(name), champions.refusal(name)
    detail: dict[str, Any] = {"version": None, "refused": None}
    if champion:
        fields = champion.entry.model_dump(mode="json", include={"version", "sequence", "model_id", "digest", "as_of"})
        detail |= {**fields, "since": champion.since.isoformat(), "inputs": _inputs(champion)}
    if refusal:
        refused = refusal.entry.model_dump(mode="json", include={"version", "sequence"})
        detail["refused"] = {**refused, "reason": refusal.reason, "final": refusal.final, "attempts": refusal.attempts}
    return detail
