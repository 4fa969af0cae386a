"""A message in the form of Slack's incoming webhooks, which Mattermost, Rocket.Chat and others take as well."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit

from airworthy.alerts import Alert
from airworthy.errors import ConfigError, ServiceError

TIMEOUT = 10  # seconds
_LONGEST = 2_900  # characters of a block's text; Slack refuses more than 3,000
_SIGNS = {"info": ":information_source:", "warning": ":warning:", "critical": ":rotating_light:"}


def message(alert: Alert) -> dict[str, Any]:
    """Returns what is posted: a text for notifications, and blocks for the chat itself."""
    text = alert.text if len(alert.text) <= _LONGEST else f"{alert.text[: _LONGEST - 1]}…"
    head = f"{_SIGNS[alert.severity]} *{_plain(alert.subject)}*"
    about = f"{alert.pipeline} · {alert.kind} · {alert.severity} · {alert.incident}"
    return {
        "text": _plain(alert.subject),
        "blocks": [
            {"type": "section", "text": {"type": "mrkdwn", "text": head}},
            {"type": "section", "text": {"type": "mrkdwn", "text": _plain(text)}},
            {"type": "context", "elements": [{"type": "mrkdwn", "text": _plain(about)}]},
        ],
    }


def post(url: str, alert: Alert) -> str:
    """Returns the answer of the chat once it has taken the message.

    Raises:
        ConfigError: The address is none of the web.
        ServiceError: It does not answer in time, or refuses. The address, which is a secret, is not in the error.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError("webhook", "must be an address like https://hooks.example.com/services/...", parts.scheme)
    where = f"webhook at {parts.hostname}"
    content = json.dumps(message(alert)).encode()
    request = urllib.request.Request(url, content, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            return f"{answer.status} {answer.read(200).decode(errors='replace')}"
    except urllib.error.HTTPError as error:
        raise ServiceError(where, "must take the message", f"{error.code} {error.reason}") from None
    except OSError as error:
        raise ServiceError(where, f"must answer within {TIMEOUT} s", str(getattr(error, "reason", error))) from None


def _plain(text: str) -> str:
    """Returns a text in which the chat sees no command; a name of a column may hold anything."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
