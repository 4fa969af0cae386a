"""The serving process of this stack as a deploy target."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

from airworthy.errors import ServiceError
from airworthy.targets import Target

if TYPE_CHECKING:
    from airworthy.ledger import Entry
    from airworthy.profile import Profile

POLL = 0.1


class Serving(Target):
    """`python -m airworthy.serving`, which follows the ledger's champion by itself."""

    def wait_until_live(self, entry: Entry, profile: Profile) -> str:
        url = profile.serving_url.rstrip("/")
        deadline = time.monotonic() + self.timeout
        while True:
            state, trouble = _state(url, entry.pipeline)
            refused = state.get("refused") or {}
            if refused.get("sequence") == entry.sequence:
                trouble = refused["reason"]
            elif state.get("version") == entry.version and state.get("sequence", 0) >= entry.sequence:
                return f"{url}/invocations?pipeline={entry.pipeline}"
            if (trouble and refused.get("final")) or time.monotonic() > deadline:
                break
            time.sleep(POLL)
        got = state.get("version") or "no model"
        hint = trouble or f"It has not followed the ledger within {self.timeout:.0f} s; see its log"
        raise ServiceError(f"serving at {url}", f"must answer for {entry.pipeline} with {entry.version}", got, hint)


def _state(url: str, pipeline: str) -> tuple[dict[str, Any], str]:
    """Returns what `/models` says of one pipeline, and why that is nothing."""
    try:
        with urllib.request.urlopen(f"{url}/models", timeout=5) as response:
            return json.load(response).get(pipeline, {}), ""
    except (urllib.error.URLError, OSError, ValueError) as error:
        return {}, f"It does not answer ({error}); start it with `make up`"
