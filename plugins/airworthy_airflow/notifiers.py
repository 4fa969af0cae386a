"""Notifiers: how an alert reaches people. Any DAG may use them as callbacks; `tell` uses them for the pipelines'."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from airflow.sdk import BaseHook, BaseNotifier
from airflow.sdk.exceptions import AirflowFailException

from airworthy.alerts import Alert, Alerts, Kind
from airworthy.config import Pipeline
from airworthy.errors import AirworthyError, ConfigError
from airworthy.profile import load_profile
from airworthy_airflow.moments import is_backfill, partitions_of

log = logging.getLogger(__name__)
_NAMED = 3  # partitions of an incident
_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "critical": logging.ERROR}


class LogNotifier(BaseNotifier):
    """Leaves an alert in the log of the task."""

    def __init__(self, alert: Alert) -> None:
        super().__init__()
        self.alert = alert

    def notify(self, context: Any) -> None:
        log.log(_LEVELS[self.alert.severity], "ALERT %s\n%s", self.alert.subject, self.alert.text)


class WebhookNotifier(BaseNotifier):
    """Posts an alert to a chat, in the form of Slack's incoming webhooks.

    Args:
        connection: Of type `slackwebhook`, with the whole address or its last part as the password; or of type http or
            https, with the address in host, port and schema. An Airflow without the Slack provider has them, too.
    """

    def __init__(self, alert: Alert, connection: str) -> None:
        super().__init__()
        self.alert = alert
        self.connection = connection

    def notify(self, context: Any) -> None:
        from airworthy.alerts.webhook import post

        log.info("The chat answers %s", post(address(BaseHook.get_connection(self.connection)), self.alert))


def address(connection: Any) -> str:
    """Returns the address that a connection stands for.

    Raises:
        ConfigError: It stands for none.
    """
    secret, host = connection.password or "", connection.host or ""
    if "://" in secret:
        return str(secret)
    protocol = connection.conn_type if connection.conn_type in ("http", "https") else "https"
    path = connection.schema or ""
    if path in ("http", "https"):  # where Airflow's form for HTTP asks for the protocol
        protocol, path = path, ""
    if not host:
        hint = "Put the webhook's address into its password, or into host and schema"
        raise ConfigError(f"connection {connection.conn_id}", "must hold an address", hint=hint)
    start = host if "://" in host else f"{protocol}://{host}"
    start += f":{connection.port}" if connection.port else ""
    return "/".join(part.strip("/") for part in (start, path, secret) if part)


def email(alert: Alert, declared: Any) -> BaseNotifier:
    """Returns the SMTP provider's notifier with an alert as its message."""
    from html import escape

    from airflow.providers.smtp.notifications.smtp import SmtpNotifier

    return SmtpNotifier(
        to=list(declared.to),
        from_email=declared.sender,
        subject=alert.subject,
        html_content=f"<pre>{escape(alert.text)}</pre><p>{escape(alert.incident)}</p>",
        smtp_conn_id=declared.connection,
    )


def tell(pipeline: Pipeline, alert: Alert, context: Any) -> None:
    """Leaves an alert told on every channel that is declared, and responded to, each once for its incident.

    What cannot be told is in the log, and fails nothing: monitoring and training go on.
    """
    declared = pipeline.alerts
    if declared is None or alert.kind not in declared.on or is_backfill(context):
        return
    from airworthy.stages import alarms

    channels = {name: _through(notifier, context) for name, notifier in _notifiers(declared).items()}
    try:
        for row in alarms.tell(pipeline, alert, load_profile(), channels):
            log.info("alert %s: %s %s. %s", alert.incident, row.channel, row.status, row.told)
    except AirworthyError as error:
        LogNotifier(alert).notify(context)
        log.error("%s", error)


def _notifiers(declared: Alerts) -> Mapping[str, Callable[[Alert], BaseNotifier]]:
    found: dict[str, Callable[[Alert], BaseNotifier]] = {"log": LogNotifier}
    if webhook := declared.webhook:
        found["webhook"] = lambda alert: WebhookNotifier(alert, webhook.connection)
    if mail := declared.email:
        found["email"] = lambda alert: email(alert, mail)
    return found


def _through(notifier: Callable[[Alert], BaseNotifier], context: Any) -> Callable[[Alert], str]:
    def told(alert: Alert) -> str:
        notifier(alert).notify(context)
        return "told"

    return told


def _named(partitions: Sequence[str]) -> str:
    """Returns what an incident is called by, which the record of alerts keeps in a limited width."""
    first, *others = partitions
    return ", ".join(partitions) if len(partitions) <= _NAMED else f"{first} to {others[-1]} ({len(partitions)})"


class FailureNotifier(BaseNotifier):
    """Tells that a task of a pipeline has failed for good; the callback of its tasks.

    Args:
        kind: `data`: the incident is the partition's. `train`, `deploy` and `approval`: the run's.
    """

    def __init__(self, pipeline: Pipeline, kind: Kind) -> None:
        super().__init__()
        self.pipeline = pipeline
        self.kind = kind

    def notify(self, context: Any) -> None:
        from airworthy.stages.alarms import of_failure

        about = str(context["run_id"])
        if self.kind == "data":
            try:
                about = _named([partition.key for partition in partitions_of(context, self.pipeline)])
            except AirworthyError as error:  # a run that names no partition fails for that
                log.warning("%s", error)
        error = context.get("exception")
        told = str(error) if isinstance(error, AirflowFailException) else error  # which is made of ours, or says it all
        tell(self.pipeline, of_failure(self.pipeline, self.kind, about, told), context)
