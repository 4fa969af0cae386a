"""The HTTP side of serving: MLflow's and SageMaker's scoring contract, plus what answers and how much."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version as installed
from multiprocessing import parent_process
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.concurrency import run_in_threadpool
from starlette.routing import Route

from airworthy import resources
from airworthy.profile import Profile, home, load_profile
from airworthy.serving.agreement import Agreement
from airworthy.serving.canaries import Canaries
from airworthy.serving.capturing import Capturing
from airworthy.serving.champion import Champion, Champions
from airworthy.serving.counters import CONTENT_TYPE, Counters, Gauge
from airworthy.serving.invocation import Invocations
from airworthy.serving.token import Guarded
from airworthy.serving.trouble import Watched

_SWITCH = 0.0005  # seconds that loading a model may keep a request from going on, a tenth of Python's own
_CHORES = 1.0  # seconds
RUN = "AIRWORTHY_SERVING_RUN"  # the folder that the workers of one run share


def worker() -> Guarded | FastAPI:
    """Returns the application of one worker, as its environment says."""
    logging.basicConfig(level="WARNING", format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("airworthy").setLevel("INFO")
    sys.setswitchinterval(_SWITCH)
    profile = load_profile()
    poll = float(os.environ.get("AIRWORTHY_SERVING_POLL", "0.5"))
    champions = Champions(profile, home() / "serving", Agreement(Path(os.environ[RUN])), poll)
    return build(champions, profile, poll)


def build(champions: Champions, profile: Profile, poll: float) -> Guarded | FastAPI:
    """Returns the application; it follows the ledger while it runs."""
    several = profile.serving.workers > 1
    counters = Counters(Path(os.environ[RUN]) if several else None)
    canaries = Canaries(champions, profile, counters, poll)
    capturing = Capturing(profile, home() / "captured", counters)

    @asynccontextmanager
    async def follow(_: FastAPI) -> AsyncIterator[None]:
        await run_in_threadpool(champions.start)
        await run_in_threadpool(canaries.start)
        capturing.start()
        gc.collect()
        gc.freeze()  # to look through all that was imported again and again would hold up requests for tens of ms
        chores = asyncio.create_task(_do_chores(counters)) if several else None
        yield
        if chores:
            chores.cancel()
        await run_in_threadpool(capturing.stop)
        counters.publish()
        await run_in_threadpool(canaries.stop)
        champions.stop()

    api = FastAPI(title="Airworthy serving", lifespan=follow)

    @api.get("/ping")
    def ping() -> JSONResponse:
        """200 once it has looked at the ledger or at the files of its last run."""
        content = {
            "status": "ok" if champions.ready else "starting",
            "ledger": champions.ledger.brief(),
            "registry": champions.registry.brief(),
            "pipelines": {name: _brief(champions, capturing, name) for name in champions.pipelines()},
        }
        return JSONResponse(content, 200 if champions.ready else 503)

    @api.get("/models")
    def models() -> dict[str, Any]:
        """What answers for each pipeline, what does beside it or will next, and what was refused and why."""
        return {name: _detail(champions, name) | _canary(canaries, name) for name in champions.pipelines()}

    @api.get("/metrics")
    def metrics() -> PlainTextResponse:
        return PlainTextResponse(counters.text(_gauges(champions, canaries)), media_type=CONTENT_TYPE)

    invocations = Invocations(champions, canaries, capturing, counters, profile.serving)
    api.router.routes.append(Route("/invocations", invocations, methods=["POST"]))
    counters.look = partial(_seen, invocations)
    token = profile.serving.token.get_secret_value()
    return Guarded(api, token) if token else api


async def _do_chores(counters: Counters) -> None:
    """Tells the other workers what was counted, and ends this one when the process that started it is gone."""
    starter, told = parent_process(), Watched("counts for the other workers")
    while starter and os.getppid() == starter.pid:  # it may have gone before this one could look
        try:
            await run_in_threadpool(counters.publish)
        except OSError as error:  # a full disk may pass, and an orphan must end all the same
            told.saw(str(error))
        else:
            told.saw()
        await asyncio.sleep(_CHORES)
    os.kill(os.getpid(), signal.SIGTERM)


def _seen(invocations: Invocations) -> dict[str, float]:
    requests, size = invocations.held()
    return {
        "airworthy_workers": 1,
        "airworthy_in_flight": requests,
        "airworthy_held_bytes": size,
        "airworthy_resident_bytes": resources.resident(),
        "airworthy_cpu_seconds": time.process_time(),
    }


def _gauges(champions: Champions, canaries: Canaries) -> list[Gauge]:
    found = [Gauge("airworthy_build", (("version", installed("airworthy")),), 1)]
    for watched in (champions.ledger, champions.registry):
        if watched.since is not None:
            service = (("service", watched.name),)
            down = (datetime.now(UTC) - watched.since).total_seconds() if watched.trouble else 0
            found.append(Gauge("airworthy_up", service, not watched.trouble))
            found.append(Gauge("airworthy_down_seconds", service, down))
    for name in champions.pipelines():
        of = (("pipeline", name),)
        found.append(Gauge("airworthy_refused", of, champions.refusal(name) is not None))
        if champion := champions.champion(name):
            found.append(Gauge("airworthy_champion_since_timestamp_seconds", of, champion.since.timestamp()))
            if champion.entry.as_of:
                as_of = champion.entry.as_of.timestamp()
                found.append(Gauge("airworthy_champion_as_of_timestamp_seconds", of, as_of))
            labels = (("pipeline", name), ("version", champion.entry.version))
            found.append(Gauge("airworthy_champion", labels, 1))
            if split := canaries.split(champion):
                labels = (("pipeline", name), ("version", split.entry.version))
                found.append(Gauge("airworthy_canary_share", labels, split.entry.step.share))
    return found


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


def _brief(champions: Champions, capturing: Capturing, name: str) -> dict[str, Any]:
    champion, refusal = champions.champion(name), champions.refusal(name)
    refused = {"version": refusal.entry.version, "reason": refusal.reason} if refusal else None
    version = champion.entry.version if champion else None
    return {"version": version, "refused": refused, "captured": capturing.brief(name)}


def _detail(champions: Champions, name: str) -> dict[str, Any]:
    champion, refusal = champions.champion(name), champions.refusal(name)
    detail: dict[str, Any] = {"version": None, "next": None, "refused": None}
    if champion:
        fields = champion.entry.model_dump(mode="json", include={"version", "sequence", "model_id", "digest", "as_of"})
        detail |= {**fields, "since": champion.since.isoformat(), "inputs": _inputs(champion)}
    if announced := champions.announced(name):
        detail["next"] = announced.entry.model_dump(mode="json", include={"version", "sequence", "digest"})
    if refusal:
        refused = refusal.entry.model_dump(mode="json", include={"version", "sequence"})
        detail["refused"] = {**refused, "reason": refusal.reason, "final": refusal.final, "attempts": refusal.attempts}
    return detail


def _canary(canaries: Canaries, name: str) -> dict[str, Any]:
    """Returns what answers beside the champion, and what became of its requests; nothing if no canary runs."""
    running, refusal = canaries.running(name), canaries.refusal(name)
    detail: dict[str, Any] = {}
    if running:
        entry, step = running.entry, running.entry.step
        counts, seconds = running.lane.told()
        detail = entry.model_dump(mode="json", include={"version", "sequence", "digest"})
        detail |= {"began": entry.began, "share": step.share, "shadow": step.shadow, "key": list(running.key)}
        detail |= {"counts": counts, "seconds": seconds, "alarm": running.lane.alarm}
    if refusal:
        refused = refusal.entry.model_dump(mode="json", include={"version", "sequence"})
        detail["refused"] = {**refused, "reason": refusal.reason, "final": refusal.final}
        detail["began"] = refusal.entry.began
    return {"canary": detail} if detail else {}
