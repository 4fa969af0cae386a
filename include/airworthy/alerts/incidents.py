"""Which incidents were told, and what was done about them: each once, whoever notices and however often.

Who is about to do something puts that on record first. What failed is done by the next one who notices; so is what
was begun long ago and never ended, because a process that dies says nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict
from sqlalchemy.exc import IntegrityError

from airworthy.alerts import Alert, Kind, Severity
from airworthy.config import Moment
from airworthy.database import OwnTable
from airworthy.profile import load_profile

_TABLE = sa.Table(
    "alerts",
    sa.MetaData(),
    sa.Column("pipeline", sa.String(50), primary_key=True),
    sa.Column("incident", sa.String(400), primary_key=True),
    sa.Column("channel", sa.String(32), primary_key=True),
    sa.Column("at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("severity", sa.String(16), nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("version", sa.String(32), nullable=False),
    sa.Column("status", sa.String(8), nullable=False),
    sa.Column("told", sa.Text, nullable=False),
)
_GIVEN_UP = timedelta(minutes=10)

Channel = Callable[[Alert], str]

log = logging.getLogger(__name__)


class Told(BaseModel):
    """A row of the record: an alert on one channel.

    Attributes:
        channel: `log`, `webhook`, `email` or `response`.
        status: `begun`, `done` or `failed`.
        told: What came of it.
    """

    model_config = ConfigDict(frozen=True)

    pipeline: str
    incident: str
    channel: str
    at: Moment
    kind: Kind
    severity: Severity
    subject: str
    text: str
    version: str
    status: Literal["begun", "done", "failed"]
    told: str


class Incidents:
    """The record in the ledger's database, in a table that its first use makes."""

    def __init__(self, url: str) -> None:
        self._table = OwnTable("record of alerts", url, _TABLE, append_only=False)

    def tell(self, alert: Alert, channels: Mapping[str, Channel]) -> Sequence[Told]:
        """Returns what this call did: every channel on which nobody has told of the incident.

        A channel that fails keeps no other from being used; it is tried again when the incident is noticed again.

        Raises:
            ServiceError: The database does not answer.
        """
        return [self._through(alert, name, tell) for name, tell in channels.items() if self._claim(alert, name)]

    def told(self, pipeline: str) -> list[Told]:
        """Returns everything on record of a pipeline, oldest first.

        Raises:
            ServiceError: The database does not answer.
        """
        query = sa.select(_TABLE).where(_TABLE.c.pipeline == pipeline).order_by(_TABLE.c.at, _TABLE.c.channel)
        with self._table.transaction() as connection:
            return [Told.model_validate(dict(row)) for row in connection.execute(query).mappings()]

    def _through(self, alert: Alert, channel: str, tell: Channel) -> Told:
        status: Literal["done", "failed"] = "done"
        try:
            told = tell(alert)
        except Exception as error:  # whatever a channel raises, the others must be used
            log.error("alert %s: %s: %s", alert.incident, channel, error)
            status, told = "failed", f"{type(error).__name__}: {error}"
        row = self._row(alert, channel, status, told)
        with self._table.transaction() as connection:
            connection.execute(sa.update(_TABLE).where(_is(alert, channel)).values(row.model_dump()))
        return row

    def _claim(self, alert: Alert, channel: str) -> bool:
        """Returns whether it is on the caller to tell."""
        row = self._row(alert, channel, "begun", "")
        try:
            with self._table.transaction() as connection:
                connection.execute(sa.insert(_TABLE).values(row.model_dump()))
            return True
        except IntegrityError:
            given_up = (_TABLE.c.status == "begun") & (_TABLE.c.at < row.at - _GIVEN_UP)
            undone = sa.update(_TABLE).where(_is(alert, channel) & ((_TABLE.c.status == "failed") | given_up))
            with self._table.transaction() as connection:
                return connection.execute(undone.values(row.model_dump())).rowcount == 1

    def _row(self, alert: Alert, channel: str, status: Literal["begun", "done", "failed"], told: str) -> Told:
        return Told(**alert.model_dump(), channel=channel, at=datetime.now(UTC), status=status, told=told)


def _is(alert: Alert, channel: str) -> sa.ColumnElement[bool]:
    return (_TABLE.c.pipeline == alert.pipeline) & (_TABLE.c.incident == alert.incident) & (_TABLE.c.channel == channel)


def run(pipeline: str, environment: Mapping[str, str], say: Callable[[str], object]) -> None:
    """Tells what is on record of a pipeline, oldest first.

    Raises:
        ServiceError: The database does not answer.
    """
    from airworthy.terminal import lines

    rows = [
        (f"{one.at:%Y-%m-%d %H:%M:%S}", one.severity, one.channel, one.status, one.incident, one.told)
        for one in Incidents(load_profile(environment).ledger_url).told(pipeline)
    ]
    for line in lines(("when", "severity", "channel", "status", "incident", "what came of it"), rows):
        say(line)
