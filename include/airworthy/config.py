"""What a pipeline is: the models behind `config/pipelines/<name>.yaml`.

Loaded by every DAG parse, so nothing here imports a heavy library.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
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
from airworthy.alerts import Alerts
from airworthy.canary import Canary
from airworthy.capture import Capture
from airworthy.contracts.policy import ContractPolicy
from airworthy.errors import ConfigError, Problems
from airworthy.evidence import METRICS, Metric, Task
from airworthy.explain import explain, meant, problem
from airworthy.gates import Gate
from airworthy.models import Model
from airworthy.partitions import Duration, Grain, parse_duration, utc, write_duration
from airworthy.policies import DECLARED, Backtest
from airworthy.quarantine import Quarantine
from airworthy.retrain import Retrain
from airworthy.sources import Source
from airworthy.strict_yaml import read_mapping
from airworthy.targets import Target
from airworthy.tune import Tune
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
    """When to train, on which window, judged on which out-of-time holdout.

    Attributes:
        threads: How many cores a training may use; trials in parallel share them.
        weight: The features column that says how much a row counts in learning; never learned from.
        imbalance: `balanced` lets every class count the same in sum.
        exclude: Features columns the model does not learn from; gates may judge by them.
    """

    schedule: str | None = "0 6 1 * *"
    window: Window = "expanding"
    holdout: Duration = Field(default="1 month", validate_default=True)
    metric: Metric | None = None
    seed: int = 20130101
    threads: int = Field(default=1, ge=1)
    weight: Column | None = None
    imbalance: Literal["none", "balanced"] = "none"
    exclude: tuple[Column, ...] = ()


class LabelPolicy(Strict):
    """When the labels of a partition tell how good its predictions were.

    Attributes:
        enough: The share of the predicted rows whose label must be known.
        deadline: How long after `label.matures_after` of the last row they may take; `null` is for ever.
    """

    enough: float = Field(default=0.8, gt=0, le=1)
    deadline: Duration | None = Field(default="3 days", validate_default=True)


class Monitor(Strict):
    """How far a scored partition may be from its champion's training, and what its labels must be to count.

    Distances are Evidently's: normed Wasserstein for numbers, Jensen-Shannon for categories.

    Attributes:
        concept_drift: How far outcomes may be from the holdout's where the model says the same.
        false_alarms: The share of partitions that may raise an alarm of drift while nothing changes.
        kpis: Key figures by name, each an aggregate of raw rows in DuckDB's SQL, e.g. `avg(fare)`.
    """

    column_drift: float = Field(default=0.1, gt=0)
    prediction_drift: float = Field(default=0.2, gt=0)
    label_drift: float = Field(default=0.1, gt=0)
    concept_drift: float = Field(default=0.05, gt=0)
    false_alarms: float = Field(default=0.01, gt=0, lt=1)
    kpis: dict[Annotated[str, Field(pattern=f"^{_NAME.pattern}$")], Annotated[str, Field(min_length=1)]] = {}
    labels: LabelPolicy = LabelPolicy()


# What a pipeline that declares no gates is judged by. Each of them fits every task; what is missing here needs a
# limit only its owner can know (metric_floor, latency, size, fairness), or costs further trainings (stability).
_GATES: tuple[str | dict[str, dict[str, str]], ...] = (
    "beats_champion",
    "slices",
    "calibration",
    "signature",
    "freshness",
    "leakage",
    {"explained": {"on_fail": "warn"}},  # one feature may rightly decide, and somebody should know
    "servable",
)


def _default_gates() -> tuple[Any, ...]:
    return tuple(kinds.parse("gates", declared) for declared in _GATES)


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
    canary: Canary | None = None
    capture: Capture = Capture()
    monitor: Monitor = Monitor()
    retrain: Retrain = Retrain()
    alerts: Alerts | None = None
    backtest: Backtest = Backtest()
    views: Views = {}

    @property
    def metric(self) -> Metric:
        """The metric that tuning optimises and reports lead with."""
        return self.train.metric or METRICS[self.label.task][0]

    @property
    def identity(self) -> list[str]:
        """The columns that tell a row apart in the whole table; the key is unique within its partition only."""
        return list(dict.fromkeys((*self.key, self.time)))

    @property
    def set_aside(self) -> frozenset[str]:
        """The raw columns that no model takes, so that no request must have them; one that has them is answered."""
        looked_up = {name for view in self.views.values() for name in view.columns}
        unlearned = {*self.train.exclude, self.train.weight or ""} - looked_up - {""} if self.features is None else ()
        return frozenset((*self.pii, *unlearned))

    def under(self, policy: str) -> Self:
        """Returns the pipeline as one of its policies has it.

        Raises:
            ConfigError: There is no such policy.
        """
        if policy == DECLARED:
            return self
        if policy not in self.backtest.policies:
            hint = meant(policy, self.backtest.names)
            raise ConfigError(f"{self.name}: policy", f"must be one of {', '.join(self.backtest.names)}", policy, hint)
        declared = self.model_dump(mode="json", exclude={"backtest"})
        return type(self).model_validate(self.backtest.policies[policy].applied(declared))

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
        asking = [number for number, gate in enumerate(self.gates) if gate.kind() == "approval"]
        if len(asking) > 1:
            raise problem("must be declared once", None, loc=("gates", asking[1], "approval"))
        for loc, column in (("time", self.time), ("label", self.label.column), *(("key", name) for name in self.key)):
            if column in RESERVED:
                rule = f"must be none of {', '.join(sorted(RESERVED))}, which the tables use themselves"
                raise problem(rule, column, loc=(loc,), hint="Give the column another name in extract()")
        for column, role in ((self.time, "time"), (self.label.column, "label")):
            if column in self.pii:
                rule = f"must not name the {role}, which is in every table and every page"
                raise problem(rule, column, loc=("pii", self.pii.index(column)))
        if self.alerts and self.alerts.respond.get("decay") == "retrain" and self.retrain.decay is None:
            raise problem("must be declared, because alerts.respond names decay", None, loc=("retrain", "decay"))
        self._check_holdout()
        roles = {
            **dict.fromkeys(self.pii, "personal"),
            **dict.fromkeys(self.key, "key"),
            self.time: "time",
            self.label.column: "label",
        }
        self._check_learning(roles)
        self._check_canary()
        if self.end is not None and self.end <= self.start:
            raise problem("must be after start", f"{self.end:%Y-%m-%d}", loc=("end",))
        check_views(self.views, {name: role for name, role in roles.items() if role != "personal"}, self.pii)
        self.backtest.check(self.under)
        return self

    def _check_holdout(self) -> None:
        """Raises a problem if no challenger could ever pass for want of labels or of days."""
        shortest = datetime(2001, 2, 1)  # noqa: DTZ001  # a month may have 28 days
        judged = (shortest + self.train.holdout) - (shortest + self.label.matures_after)
        written, loc = write_duration(self.train.holdout), ("train", "holdout")
        if judged <= timedelta():
            raise problem("must be longer than label.matures_after, or no label of it is known", written, loc=loc)
        over_days = [gate.kind() for gate in self.gates if gate.over_days]
        if over_days and judged <= timedelta(days=1):
            rule = f"must be over a day longer than label.matures_after, for {', '.join(over_days)} to compare days"
            raise problem(rule, written, loc=loc)

    def _check_canary(self) -> None:
        """Raises a problem if a canary is declared that its target or what is captured cannot try."""
        if self.canary and not self.target.splits:
            rule = "must be declared with a target that can let two versions answer (serving)"
            raise problem(rule, self.target.kind(), loc=("canary",))
        if self.canary and not self.capture.share:
            raise problem("must be more than 0, because canary is judged on it", 0, loc=("capture", "share"))

    def _check_learning(self, roles: Mapping[str, str]) -> None:
        """Raises a problem if what train and tune say of rows, columns and threads cannot be followed."""
        train, parallel = self.train, self.tune.parallel
        named: list[tuple[tuple[int | str, ...], str | None]] = [(("weight",), train.weight)]
        named += [(("exclude", number), name) for number, name in enumerate(train.exclude)]
        for loc, name in named:
            if name is not None and name in roles:
                rule = f"must be a column of features; the model never learns from a {roles[name]} column"
                raise problem(rule, name, loc=("train", *loc))
        if self.label.task == "regression" and train.imbalance != "none":
            raise problem(
                "must be none for a regression label, which has no classes", train.imbalance, loc=("train", "imbalance")
            )
        if parallel is not None and parallel > train.threads:
            rule = f"must be at most train.threads, {train.threads}, because parallel trials share them"
            raise problem(rule, parallel, loc=("tune", "parallel"))


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
