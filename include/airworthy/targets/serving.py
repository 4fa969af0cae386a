"""The serving process of this stack as a deploy target."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from airworthy.errors import ServiceError
from airworthy.targets import Target

if TYPE_CHECKING:
    from airworthy.ledger import Entry
    from airworthy.profile import Profile

POLL = 0.1


class Serving(Target):
    """`python -m airworthy.serving`, which follows the ledger's champion and canary by itself."""

    splits: ClassVar[bool] = True

    def wait_until_live(self, entry: Entry, profile: Profile) -> str:
        return self._wait(entry, profile, lambda said: said)

    def wait_until_split(self, entry: Entry, profile: Profile) -> str:
        return self._wait(entry, profile, lambda said: said.get("canary") or {})

    def canary(self, pipeline: str, profile: Profile) -> dict[str, Any]:
        url = profile.serving_url.rstrip("/")
        state, trouble = _state(url, pipeline, profile.serving.headers())
        if trouble:
            raise ServiceError(f"serving at {url}", f"must tell of the canary of {pipeline}", hint=trouble)
        return dict(state.get("canary") or {})

    def _wait(self, entry: Entry, profile: Profile, look: Callable[[dict[str, Any]], dict[str, Any]]) -> str:
        """Returns the endpoint once the part of `/models` that `look` finds has the version of a ledger entry."""
        url = profile.serving_url.rstrip("/")
        deadline = time.monotonic() + self.timeout
        while True:
            said, trouble = _state(url, entry.pipeline, profile.serving.headers())
            state = look(said)
            refused = state.get("refused") or {}
            if refused.get("sequence") == entry.sequence:
                trouble = refused["reason"]
            elif state.get("version") == entry.version and state.get("sequence", 0) >= entry.sequence:
                return f"{url}/invocations?pipeline={entry.pipeline}"
            if (trouble and refused.get("final")) or time.monotonic() > deadline:
                break
            if state.get("sequence", 0) > entry.sequence:
                trouble = f"The ledger has gone on to entry {state['sequence']} meanwhile"
                break
            time.sleep(POLL)
        got = state.get("version") or "no model"
        hint = trouble or f"It has not followed the ledger within {self.timeout:.0f} s; see its log"
        raise ServiceError(f"serving at {url}", f"must answer for {entry.pipeline} with {entry.version}", got, hint)


def _state(url: str, pipeline: str, headers: dict[str, str]) -> tuple[dict[str, Any], str]:
    """Returns what `/models` says of one pipeline, and why that is nothing."""
    try:
        asked = urllib.request.Request(f"{url}/models", headers=headers)
        with urllib.request.urlopen(asked, timeout=5) as response:
            return json.load(response).get(pipeline, {}), ""
    except (urllib.error.URLError, OSError, ValueError) as error:
        return {}, f"It does not answer ({error}); start it with `make up`"
