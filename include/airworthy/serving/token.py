"""Lets in who carries the token, and refuses to start without one where others could ask."""

from __future__ import annotations

import hmac
import ipaddress
import json
import os

from starlette.types import ASGIApp, Receive, Scope, Send

from airworthy.errors import ConfigError
from airworthy.profile import Profile

_SHORTEST = 16
_DETAIL = {"detail": "request: Authorization: must be `Bearer <token>`, with the token of this service."}
_REFUSED = json.dumps(_DETAIL).encode()


def required_token(profile: Profile, host: str) -> str:
    """Returns the token that requests must carry; "" if none is asked for.

    Raises:
        ConfigError: There is none, and the address or the profile is not one of this machine's own; or it is too short.
    """
    token = profile.serving.token.get_secret_value()
    if token and len(token) < _SHORTEST:
        rule = f"must be at least {_SHORTEST} characters long"
        raise ConfigError("AIRWORTHY_SERVING_TOKEN", rule, f"{len(token)} characters", "Try `openssl rand -hex 32`")
    name = os.environ.get("AIRWORTHY_PROFILE", "local")
    if not token and not (name == "local" and _is_loopback(host)):
        rule = "must be set, because serving without a token is for loopback in the profile `local` only"
        raise ConfigError("AIRWORTHY_SERVING_TOKEN", rule, f"profile {name}, address {host}", "Set it, or --host")
    return token


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # a name may resolve to anything


class Guarded:
    """An application behind a token; no route is open, since each of them tells of data, models or load.

    Args:
        application: What answers the requests that carry the token.
        token: Which one.
    """

    def __init__(self, application: ASGIApp, token: str) -> None:
        self._application = application
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or self._is_carried(scope):
            await self._application(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            headers = [(b"content-type", b"application/json"), (b"www-authenticate", b"Bearer")]
            await send({"type": "http.response.start", "status": 401, "headers": headers})
            await send({"type": "http.response.body", "body": _REFUSED})

    def _is_carried(self, scope: Scope) -> bool:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(given) != 1:
            return False
        scheme, _, token = given[0].partition(b" ")
        # In constant time, so that how long it takes tells nothing about the token.
        return scheme.lower() == b"bearer" and hmac.compare_digest(token.strip(), self._token)
