"""`alerts:` of a pipeline file: what is told to whom, and what is done about it."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from airworthy.explain import problem

Kind = Literal["train", "gates", "drift", "decay", "data", "labels", "deploy", "approval", "anomaly"]
KINDS: tuple[Kind, ...] = ("train", "gates", "drift", "decay", "data", "labels", "deploy", "approval", "anomaly")
Severity = Literal["info", "warning", "critical"]

# Where the champion did not change, there is nothing to take back; and no training brings data, labels or consent.
_RETRAINED = frozenset({"drift", "decay"})
_ROLLED_BACK = frozenset({"drift", "decay", "anomaly", "data", "labels"})


class Alert(BaseModel):
    """Something that people should know.

    Attributes:
        incident: What happened, by a key; however often it is noticed, people are told once.
        version: The version that it is about; "" if it is about none.
    """

    model_config = ConfigDict(frozen=True)

    pipeline: str
    kind: Kind
    severity: Severity
    subject: str
    text: str
    incident: str
    version: str = ""


class Webhook(BaseModel):
    """A chat's incoming webhook; its address is a secret, and hence in the connection."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    connection: str = Field(min_length=1)


class Email(BaseModel):
    """Mail through Airflow's SMTP provider; who sends is `sender`, or what the connection says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    connection: str = Field(default="smtp_default", min_length=1)
    to: tuple[Annotated[str, Field(pattern=r"^[^@\s]+@[^@\s]+$")], ...] = Field(min_length=1)
    sender: str | None = None


class FallBack(BaseModel):
    """Back to a stated version."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fall_back: Annotated[str, BeforeValidator(lambda value: str(value) if isinstance(value, int) else value)] = Field(
        pattern=r"^[1-9]\d*$"
    )


def _response(value: Any) -> Any:
    if value in ("retrain", "roll_back", "stop_serving") or isinstance(value, FallBack):
        return value
    if isinstance(value, dict) and value.keys() == {"fall_back"}:
        return value
    raise problem("must be retrain, roll_back, stop_serving or `fall_back: <version>`", value)


Response = Annotated[Literal["retrain", "roll_back", "stop_serving"] | FallBack, BeforeValidator(_response)]


class Alerts(BaseModel):
    """Whom to tell of what, and what to do about it. Every alert is in the log of its task as well.

    Attributes:
        on: The kinds of alerts.
        respond: By kind of alert, what is done at once, without asking anybody.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    on: tuple[Kind, ...] = KINDS
    webhook: Webhook | None = None
    email: Email | None = None
    respond: dict[Kind, Response] = {}

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        for kind, response in self.respond.items():
            if kind not in self.on:
                raise problem(
                    f"must be about one of {', '.join(self.on)}, which `on` names", kind, loc=("respond", kind)
                )
            possible = {"retrain": _RETRAINED, "roll_back": _ROLLED_BACK}.get(str(response), frozenset(KINDS))
            if kind not in possible:
                fits = ", ".join(one for one in KINDS if one in possible)
                raise problem(f"must not be {response}, which mends {fits}", response, loc=("respond", kind))
        return self
