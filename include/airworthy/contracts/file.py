"""The file of a schema contract, `config/contracts/<pipeline>.yaml`: written by a run, kept by people."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, StrictStr, ValidationError, model_validator

from airworthy.config import Column, Moment, Pipeline, Strict
from airworthy.errors import ConfigError, Problems
from airworthy.explain import explain, problem
from airworthy.locks import locked
from airworthy.pages import write_whole
from airworthy.profile import config_dir
from airworthy.strict_yaml import read_mapping

Type = Literal["int64", "float64", "string", "bool", "timestamp"]
Share = Annotated[float, Field(ge=0, le=1)]

# Columns that the tables of raw data and of quarantine have of their own.
RESERVED = frozenset({"partition", "row", "failed", "decision"})

_HEAD = """\
# The schema contract of {pipeline}: what its raw partitions look like.
# Its ingest holds every partition to it; `contract:` in config/pipelines/{pipeline}.yaml says what happens
# to one that differs (block, warn or evolve).
#
# Learnt from the data, then kept by people: review it, change it by hand where you know better, and commit it.
#   type         int64, float64, string, bool or timestamp; the order of the columns is theirs in the table
#   nulls        the least and the largest share of missing values; `contract.null_tolerance` is allowed on top
#   categories   every value the column may hold; without it, any
#   usual        where the middle 90 % of the numbers lay; only tells a renamed column from a new one
#   optional     true for a column that need not come any more; it is then missing in every row
# To accept what a partition brought:  airworthy contract accept {pipeline} PARTITION
# To learn anew from the raw table:    airworthy contract learn {pipeline} --force
"""


class ContractColumn(Strict):
    """What one column of raw data holds.

    Attributes:
        nulls: The least and the largest share of missing values in a partition.
        categories: Every value a string column may hold; None if any.
        usual: The 5th and the 95th percentile of a number's values; nothing is held to it.
        optional: Whether the column may be gone; it is missing then.
    """

    type: Type
    nulls: tuple[Share, Share] = (0, 0)
    categories: tuple[StrictStr, ...] | None = None
    usual: tuple[float, float] | None = None
    optional: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.nulls[0] > self.nulls[1]:
            raise problem("must be the least share, then the largest", list(self.nulls), loc=("nulls",))
        if self.categories is not None and self.type != "string":
            raise problem("must be left out, unless type is string", self.type, loc=("categories",))
        return self


class Revision(Strict):
    """A change that the contract took from a partition."""

    partition: str
    at: Moment
    changes: tuple[str, ...]


class SchemaContract(Strict):
    """What a pipeline's raw partitions look like: its columns, in order.

    Attributes:
        learnt: From what, for people.
        history: What it has taken from partitions since, oldest first.
    """

    pipeline: str
    learnt: str = ""
    columns: dict[Column, ContractColumn] = Field(min_length=1)
    history: tuple[Revision, ...] = ()


def contract_file(pipeline: str) -> Path:
    """Returns where a pipeline's contract is, or will be."""
    return config_dir() / "contracts" / f"{pipeline}.yaml"


def load(pipeline: Pipeline) -> SchemaContract | None:
    """Returns a pipeline's contract, or None if it has none yet.

    Raises:
        Problems: The file breaks rules; every one of them is listed.
    """
    file = contract_file(pipeline.name)
    where = f"config/contracts/{file.name}"
    try:
        content = read_mapping(where, file)
    except FileNotFoundError:
        return None
    try:
        contract = SchemaContract.model_validate(content)
    except ValidationError as error:
        raise Problems(where, explain(where, error)) from None
    _require_sound(pipeline, contract)
    return contract


def publish(pipeline: Pipeline, contract: SchemaContract, *, replace: bool = False) -> SchemaContract:
    """Returns the contract that is in force from now on: this one, or the one that others published before.

    Args:
        pipeline: Whose contract it is.
        contract: What was learnt.
        replace: Whether it takes the place of one that is there.

    Raises:
        ConfigError: The file cannot be written.
    """
    with _alone(pipeline.name) as file:
        there = None if replace else load(pipeline)
        if there is None:
            _require_sound(pipeline, contract)
            write_whole(file, write(contract))
        return there or contract


def amend(pipeline: Pipeline, change: Callable[[SchemaContract], SchemaContract]) -> SchemaContract:
    """Returns the contract after a change to what is in force, which nobody else changes meanwhile.

    Raises:
        ConfigError: There is no contract, or the file cannot be written.
        Problems: The file breaks rules.
    """
    with _alone(pipeline.name) as file:
        there = load(pipeline)
        if there is None:
            hint = f"Learn one first: airworthy contract learn {pipeline.name}"
            raise ConfigError(f"config/contracts/{file.name}", "must exist to be changed", hint=hint)
        changed = change(there)
        if changed != there:
            _require_sound(pipeline, changed)
            write_whole(file, write(changed))
        return changed


def write(contract: SchemaContract) -> str:
    """Returns the text of a contract's file, comments included, one line a column where that is short."""
    content = contract.model_dump(mode="json", exclude_defaults=True)
    body = yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
    return _HEAD.format(pipeline=contract.pipeline) + body


class _Dumper(yaml.SafeDumper):
    """Writes what has no deeper level in one line, as `{type: int64}`."""

    def represent_mapping(self, tag: str, mapping: Any, flow_style: bool | None = None) -> yaml.MappingNode:
        inner = [value for value in mapping.values() if isinstance(value, dict) or _is_long(value)]
        return super().represent_mapping(tag, mapping, flow_style=not inner and "type" in mapping)

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> yaml.SequenceNode:
        return super().represent_sequence(tag, sequence, flow_style=not _is_long(sequence) or len(sequence) > 9)


_Dumper.add_representer(dict, lambda dumper, value: dumper.represent_mapping("tag:yaml.org,2002:map", value))
_Dumper.add_representer(list, lambda dumper, value: dumper.represent_sequence("tag:yaml.org,2002:seq", value))


def _is_long(value: Any) -> bool:
    return isinstance(value, list) and sum(len(str(item)) + 2 for item in value) > 70


def _require_sound(pipeline: Pipeline, contract: SchemaContract) -> None:
    where = f"config/contracts/{pipeline.name}.yaml"
    if problems := list(_misfits(where, pipeline, contract)):
        raise Problems(where, problems)


def _misfits(where: str, pipeline: Pipeline, contract: SchemaContract) -> Iterator[ConfigError]:
    if contract.pipeline != pipeline.name:
        yield ConfigError(where, f"pipeline must be {pipeline.name}, as the file's name says", contract.pipeline)
    for role, name in needed(pipeline):
        column = contract.columns.get(name)
        if column is None or column.optional:
            rule = f"columns.{name} must be there, and not optional, because it is the {role} of {pipeline.name}"
            yield ConfigError(where, rule)
        elif role == "time" and column.type != "timestamp":
            yield ConfigError(where, f"columns.{name}.type must be timestamp, because it is the time", column.type)
    for name in sorted(RESERVED & contract.columns.keys()):
        yield ConfigError(where, f"columns.{name} must have another name; the tables use it themselves")
    for name in pipeline.pii:
        column = contract.columns.get(name)
        if column is not None and not (column.categories is None and column.usual is None):
            rule = f"columns.{name} must not list values, because the column is personal (pii)"
            yield ConfigError(where, rule, hint="Remove `categories` and `usual`")


def needed(pipeline: Pipeline) -> list[tuple[str, str]]:
    """Returns role and name of the columns without which a partition is none: time, key and label."""
    return [("time", pipeline.time), *(("key", name) for name in pipeline.key), ("label", pipeline.label.column)]


@contextmanager
def _alone(pipeline: str) -> Iterator[Path]:
    """Keeps others of this machine out of the contract."""
    file = contract_file(pipeline)
    try:
        with locked(file.parent):
            yield file
    except OSError as error:
        hint = "Learn and commit the contract where the project can be written, and deploy it with the pipeline"
        raise ConfigError(f"config/contracts/{file.name}", "must be written", str(error), hint) from error
