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

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
    model_validator,
)

from airworthy import kinds
from airworthy.errors import ConfigError, Problems
from airworthy.evidence import METRICS, Metric, Task
from airworthy.gates import Gate
from airworthy.models import Model
from airworthy.partitions import Duration, Grain, utc
from airworthy.sources import Source
from airworthy.targets import Target

_NAME = re.compile(r"[a-z][a-z0-9_]{0,49}")


def _function(value: str) -> str:
    module, _, name = value.partition(":")
    if not (module and name.isidentifier()):
        raise ValueError("must be written as `module:function`")
    try:
        found = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise ValueError(f"names the module {module!r}, which cannot be imported; put it in include/pipelines")
    return value


Moment = Annotated[datetime, AfterValidator(utc)]
Function = Annotated[str, BeforeValidator(_function)]
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
        if isinstance(value, dict) and len(value) == 1:
            ((name, kwargs),) = value.items()
            if name not in known_expectations():
                raise ValueError(f"{name!r} is not an expectation of the installed Great Expectations")
            return {"type": name, "kwargs": kwargs or {}}
        return value


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


class Tune(Strict):
    """The declared search: Optuna draws from `space` until `trials` or `timeout` seconds are used up."""

    trials: int = Field(default=10, ge=1)
    timeout: float = Field(default=600, gt=0)
    space: dict[str, IntRange | FloatRange | Choice] = {}


class Train(Strict):
    """When to train, on which window, judged on which out-of-time holdout."""

    schedule: str | None = "0 6 1 * *"
    window: Literal["expanding"] | Duration = "expanding"
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


def _kind(family: kinds.Family) -> BeforeValidator:
    return BeforeValidator(lambda value: kinds.parse(family, value))


def _default_gates() -> tuple[Any, ...]:
    return tuple(kinds.parse("gates", name) for name in ("beats_champion", "servable"))


def _default_target() -> Any:
    return kinds.parse("targets", "serving")


class Pipeline(Strict):
    """One pipeline: everything `config/pipelines/<name>.yaml` says."""

    name: str = Field(pattern=f"^{_NAME.pattern}$")
    description: str = Field(min_length=1)
    owner: str = "airworthy"
    tags: tuple[str, ...] = ()
    start: Moment
    end: Moment | None = None
    partition: Grain = "day"
    catchup: bool = False
    source: Annotated[SerializeAsAny[Source], _kind("sources")]
    time: Column
    key: tuple[Column, ...] = Field(min_length=1)
    label: Label
    checks: Checks = Checks()
    features: Function | None = None
    model: Annotated[SerializeAsAny[Model], _kind("models")]
    tune: Tune = Tune(trials=1)
    train: Train = Train()
    gates: tuple[Annotated[SerializeAsAny[Gate], _kind("gates")], ...] = Field(default_factory=_default_gates)
    target: Annotated[SerializeAsAny[Target], _kind("targets")] = Field(default_factory=_default_target)
    monitor: Monitor = Monitor()

    @property
    def metric(self) -> Metric:
        """The metric that tuning optimises and reports lead with."""
        return self.train.metric or METRICS[self.label.task][0]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        task = self.label.task
        if self.metric not in METRICS[task]:
            raise ValueError(f"train.metric must be one of {', '.join(METRICS[task])} for a {task} label")
        for number, gate in enumerate(self.gates):
            judged = getattr(gate, "metric", None)
            if judged is not None and judged not in METRICS[task]:
                raise ValueError(f"gates[{number}].metric must be one of {', '.join(METRICS[task])} for a {task} label")
        if self.end is not None and self.end <= self.start:
            raise ValueError("end must be after start")
        if not self.gates:
            raise ValueError("gates must name at least one gate; leave the key out for the default set")
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
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Problems(where, [ConfigError(where, "must be YAML", hint=" ".join(str(error).split()))]) from None
    if not isinstance(content, dict):
        raise Problems(where, [ConfigError(where, "must be a mapping of keys", content)])
    if not _NAME.fullmatch(file.stem):
        rule = "must be named in lower case letters, digits and underscores, starting with a letter"
        raise Problems(where, [ConfigError(where, rule, file.stem)])
    try:
        return Pipeline.model_validate({**content, "name": file.stem})
    except ValidationError as error:
        raise Problems(where, list(_explain(where, error))) from None


def load_all(folder: Path) -> tuple[dict[str, Pipeline], dict[str, Problems]]:
    """Returns the healthy pipelines by name, and what is wrong with the others by file stem."""
    healthy: dict[str, Pipeline] = {}
    broken: dict[str, Problems] = {}
    for file in sorted(folder.glob("*.yaml")):
        try:
            healthy[file.stem] = load_pipeline(file)
        except Problems as problems:
            broken[file.stem] = problems
    return healthy, broken


def _explain(where: str, error: ValidationError) -> list[ConfigError]:
    problems = []
    for detail in error.errors(include_url=False):
        place = ""
        for part in detail["loc"]:
            if isinstance(part, int):
                place += f"[{part}]"
            elif part.startswith("function-") or part in _UNION_BRANCHES:
                continue  # pydantic's names for branches of a union; no key of the file
            else:
                place += f".{part}" if place else str(part)
        rule = detail["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
        if detail["type"] == "missing":
            problems.append(ConfigError(f"{where}: {place}", "is required"))
        elif detail["type"] == "extra_forbidden":
            problems.append(ConfigError(f"{where}: {place}", "is not a known key", hint="Check the spelling"))
        else:
            problems.append(ConfigError(f"{where}: {place}".rstrip(": "), rule, detail["input"]))
    return problems


_UNION_BRANCHES = frozenset({"IntRange", "FloatRange", "Choice"})
