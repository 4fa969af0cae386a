"""What a policy is: the models behind `backtest:` of a pipeline file, loaded by every DAG parse.

A policy is another way to train and to judge the same data. A backtest follows it through the past, beside the
pipeline as it is declared; in production it never counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from airworthy.explain import below, problem

DECLARED = "declared"

_Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,49}$")]


class Policy(BaseModel):
    """What is otherwise than the pipeline declares it, under the pipeline's own keys.

    Attributes:
        train: Key by key; what is not named stays as declared.
        tune: The same.
        model: Instead of the declared one.
        gates: Instead of all declared ones.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    train: dict[str, Any] = {}
    tune: dict[str, Any] = {}
    model: dict[str, Any] | str | None = None
    gates: tuple[dict[str, Any] | str, ...] = ()

    def applied(self, declared: Mapping[str, Any]) -> dict[str, Any]:
        """Returns a pipeline's content with what this policy does otherwise."""
        changed: dict[str, Any] = {name: {**declared[name], **getattr(self, name)} for name in ("train", "tune")}
        changed |= {name: value for name in ("model", "gates") if (value := getattr(self, name))}
        return {**declared, **changed}

    @model_validator(mode="after")
    def _differs(self) -> Self:
        if not (self.train or self.tune or self.model or self.gates):
            raise problem("must do something otherwise: train, tune, model or gates", {})
        return self


class Backtest(BaseModel):
    """The policies that a backtest compares with the pipeline as it is declared."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    policies: dict[_Name, Policy] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Every policy there is; the first is the pipeline as it is declared."""
        return (DECLARED, *self.policies)

    @model_validator(mode="after")
    def _named(self) -> Self:
        if DECLARED in self.policies:
            rule = f"must have another name than {DECLARED}, which is the pipeline as it is"
            raise problem(rule, DECLARED, loc=("policies",))
        return self

    def check(self, under: Callable[[str], object]) -> None:
        """Returns if every policy makes a whole pipeline.

        Raises:
            ValidationError: Everything that is wrong with those that do not.
        """
        broken = []
        for name in self.policies:
            try:
                under(name)
            except ValidationError as error:
                broken.append(below(name, error))
        if broken:
            raise below("backtest", below("policies", *broken))
