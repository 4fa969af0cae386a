"""What a pipeline is: the models behind `config/pipelines/<name>.yaml`.

Loaded by every DAG parse, so nothing here imports a heavy library.
"""

from __future__ import annotations

import importlib.util
import re
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from airworthy import kinds
from airworthy.contracts.policy import ContractPolicy
from airworthy.errors import ConfigError, Problems
from airworthy.evidence import METRICS, Metric, Task
from airworthy.explain import explain, meant, problem
from airworthy.gates import Gate
from airworthy.models import Model
from airworthy.partitions import Duration, Grain, parse_duration, utc, write_duration
from airworthy.quarantine import Quarantine
from airworthy.sources import Source
from airworthy.strict_yaml import read_mapping
from airworthy.targets import Target
from airworthy.user_code import Function as Function
from airworthy.views import Views, check_views
from airworthy.wait import Wait

_NAME = re.compile(r"[a-z][a-z0-9_]{0,49}")
# Columns that the tables of a pipeline have of their own.
RESERVED = frozenset({"partition", "prediction", "version"})


Moment = Annotated[
    datetime,
    AfterValidator(utc),
    WithJsonSchema({"type": "string", "examples": ["2013-01-31", "2013-01-31T06:00:00Z"]}),
]
Column = Annotated[str, Field(min_length=1)]


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Label(Strict):
    """The column to predict, and how long after the event it is known."""

    column: Column
    task: Task = "binary"
    matures_after: Duration = Field(default="1 day", validate_default=True)


class Expectation(Strict):
    """One Great Expectations expectation, under its own name."""

    type: str
    kwargs: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _from_yaml(cls, value: Any) -> Any:
        if not isinstance(value, dict) or (len(value) != 1 and value.keys() != {"type", "kwargs"}):
            raise problem("must be one expectation, written as `expect_...: {...}`", value)
        if len(value) != 1:
            return value
        ((name, kwargs),) = value.items()
        if name not in known_expectations():
            rule = "must be an expectation of the installed Great Expectations"
            raise problem(rule, name, hint=meant(str(name), known_expectations()))
        if not isinstance(kwargs, dict):
            raise problem("must be a mapping of keys", kwargs, loc=(name,))
        return {"type": name, "kwargs": kwargs}


class Checks(Strict):
    """What a raw partition must satisfy.

    Table- and column-level expectations block the partition. Rows that fail a row-level one go to
    quarantine; more than `allowed_bad_share` of them block it.
    """

    allowed_bad_share: float = Field(default=0.01, ge=0, le=1)
    expectations: tuple[Expectation, ...] = ()


class IntRange(Strict):
    int: tuple[int, int]
    log: bool = False


class FloatRange(Strict):
    float: tuple[float, float]
    log: bool = False


class Choice(Strict):
    choice: tuple[bool | int | float | str, ...] = Field(min_length=1)


def _range(value: Any) -> Any:
    known: dict[str, type[Strict]] = {"int": IntRange, "float": FloatRange, "choice": Choice}
    if isinstance(value, Strict):
        return value
    chosen = [name for name in known if isinstance(value, dict) and name in value]
    if len(chosen) != 1:
        raise problem("must be written as `int: [1, 9]`, `float: [0.1, 1]` or `choice: [a, b]`", value)
    found = known[chosen[0]].model_validate(value)
    if isinstance(found, Choice):
        return found
    assert isinstance(found, IntRange | FloatRange)
    low, high = found.int if isinstance(found, IntRange) else found.float
    if low >= high:
        raise problem("must be the lower bound, then the higher one", [low, high], loc=(chosen[0],))
    if found.log and low <= 0:
        raise problem("must be above 0 with `log: true`", low, loc=(chosen[0], 0))
    return found


Range = Annotated[IntRange | FloatRange | Choice, BeforeValidator(_range)]


class Tune(Strict):
    """The declared search: Optuna draws from `space` until `trials` or `timeout` seconds are used up."""

    trials: int = Field(default=10, ge=1)
    timeout: float = Field(default=600, gt=0)
    space: dict[str, Range] = {}


def _window(value: Any) -> Any:
    if value == "expanding":
        return value
    try:
        return parse_duration(value)
    except ValueError:
        raise ValueError(
            "must be `expanding`, or a whole number of seconds, minutes, hours, days, weeks or months"
        ) from None


Window = Annotated[Literal["expanding"] | Duration, BeforeValidator(_window)]


class Train(Strict):
    """When to train, on which window, judged on which out-of-time holdout."""

    schedule: str | None = "0 6 1 * *"
    window: Window = "expanding"
    holdout: Duration = Field(default="1 month", validate_default=True)
    metric: Metric | None = None
    seed: int = 20130101
    threads: int = Field(default=1, ge=1)


class Monitor(Strict):
    """When a scored partition is worth a `retrain_request`.

    Distances are Evidently's: normed Wasserstein for numbers, Jensen-Shannon for categories.
    """

    column_drift: float = Field(default=0.1, gt=0)
    prediction_drift: float = Field(default=0.2, gt=0)
    floor: float | None = None
    retrain_on: tuple[Literal["column_drift", "prediction_drift", "performance"], ...] = ("prediction_drift",)


def _default_gates() -> tuple[Any, ...]:
    return tuple(kinds.parse("gates", name) for name in ("beats_champion", "servable"))


def _default_target() -> Any:
    return kinds.parse("targets", "serving")


class Pipeline(Strict):
    """One pipeline: everything `config/pipelines/<name>.yaml` says.

    Attributes:
        pii: Personal columns. No model, page, log or message ever holds a value of them; tables do,
            of those in the key all tables, of the others `raw` and `quarantine` only.
        batch: How many partitions one ingest run brings in where several are due, as in a backfill.
    """

    name: str = Field(pattern=f"^{_NAME.pattern}$")
    description: str = Field(min_length=1)
    owner: str = "airworthy"
    tags: tuple[str, ...] = ()
    start: Moment
    end: Moment | None = None
    partition: Grain = "day"
    batch: int = Field(default=1, ge=1)
    catchup: bool = False
    source: Annotated[Source, kinds.declared("sources"), kinds.as_written]
    wait: Wait | None = None
    time: Column
    key: tuple[Column, ...] = Field(min_length=1)
    label: Label
    pii: tuple[Column, ...] = ()
    contract: ContractPolicy = ContractPolicy()
    checks: Checks = Checks()
    quarantine: Quarantine = Quarantine()
    features: Function | None = None
    engine: Literal["local", "spark"] = "local"
    model: Annotated[Model, kinds.declared("models"), kinds.as_written]
    tune: Tune = Tune(trials=1)
    train: Train = Train()
    gates: tuple[Annotated[Gate, kinds.declared("gates"), kinds.as_written], ...] = Field(
        default_factory=_default_gates, min_length=1
    )
    target: Annotated[Target, kinds.declared("targets"), kinds.as_written] = Field(default_factory=_default_target)
    monitor: Monitor = Monitor()
    views: Views = {}

    @property
    def metric(self) -> Metric:
        """The metric that tuning optimises and reports lead with."""
        return self.train.metric or METRICS[self.label.task][0]

    @property
    def identity(self) -> list[str]:
        """The columns that tell a row apart in the whole table; the key is unique within its partition only."""
        return list(dict.fromkeys((*self.key, self.time)))

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        known = METRICS[self.label.task]
        rule = f"must be one of {', '.join(known)} for a {self.label.task} label"
        if self.metric not in known:
            raise problem(rule, self.metric, loc=("train", "metric"))
        for number, gate in enumerate(self.gates):
            judged = getattr(gate, "metric", None)
            if judged is not None and judged not in known:
                raise problem(rule, judged, loc=("gates", number, gate.kind(), "metric"))
        for loc, column in (("time", self.time), ("label", self.label.column), *(("key", name) for name in self.key)):
            if column in RESERVED:
                rule = f"must be none of {', '.join(sorted(RESERVED))}, which the tables use themselves"
                raise problem(rule, column, loc=(loc,), hint="Give the column another name in extract()")
        for column, role in ((self.time, "time"), (self.label.column, "label")):
            if column in self.pii:
                rule = f"must not name the {role}, which is in every table and every page"
                raise problem(rule, column, loc=("pii", self.pii.index(column)))
        shortest = datetime(2001, 2, 1)  # noqa: DTZ001  # a month may have 28 days
        if shortest + self.train.holdout <= shortest + self.label.matures_after:
            rule = "must be longer than label.matures_after, or no label of it is known"
            raise problem(rule, write_duration(self.train.holdout), loc=("train", "holdout"))
        if "performance" in self.monitor.retrain_on and self.monitor.floor is None:
            raise problem("must be a number, because retrain_on names performance", None, loc=("monitor", "floor"))
        if self.end is not None and self.end <= self.start:
            raise problem("must be after start", f"{self.end:%Y-%m-%d}", loc=("end",))
        roles = {self.time: "time", self.label.column: "label", **dict.fromkeys(self.key, "key")}
        check_views(self.views, roles, self.pii)
        return self


@cache
def known_expectations() -> frozenset[str]:
    """Returns the names of the installed core expectations, read off the package's files without importing it."""
    spec = importlib.util.find_spec("great_expectations")
    assert spec is not None and spec.submodule_search_locations
    folder = Path(spec.submodule_search_locations[0]) / "expectations" / "core"
    return frozenset(file.stem for file in folder.glob("expect_*.py"))


def load_pipeline(file: Path) -> Pipeline:
    """Returns the pipeline a YAML file declares; its name is the file's stem.

    Raises:
        Problems: The file breaks rules; every one of them is listed.
    """
    where = f"{file.parent.parent.name}/{file.parent.name}/{file.name}"
    if not _NAME.fullmatch(file.stem) or file.suffix != ".yaml":
        rule = "must be named in lower case letters, digits and underscores, starting with a letter, and end in .yaml"
        raise Problems(where, [ConfigError(where, rule, file.name)])
    try:
        content = read_mapping(where, file)
    except FileNotFoundError:
        known = ", ".join(sorted(other.stem for other in file.parent.glob("*.yaml"))) or "none"
        raise Problems(where, [ConfigError(where, "must exist", hint=f"There are: {known}")]) from None
    written = {key: value for key, value in content.items() if value is not None}
    try:
        return Pipeline.model_validate({**written, "name": file.stem})
    except ValidationError as error:
        raise Problems(where, explain(where, error)) from None


def load_all(folder: Path) -> tuple[dict[str, Pipeline], dict[str, Problems]]:
    """Returns the healthy pipelines by name, and what is wrong with the others by file stem."""
    healthy: dict[str, Pipeline] = {}
    broken: dict[str, Problems] = {}
    for file in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")]):
        try:
            healthy[file.stem] = load_pipeline(file)
        except Problems as problems:
            broken[file.stem] = problems
    return healthy, broken
