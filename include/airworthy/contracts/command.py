"""The command `airworthy contract`: shows, learns, compares and amends the schema contract of a pipeline."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from airworthy.config import Pipeline
from airworthy.connections import from_environment
from airworthy.content import chunks
from airworthy.contracts.changes import Change, compare, evolve, learn
from airworthy.contracts.enforce import Enforcement, can_accept, new_summary
from airworthy.contracts.file import SchemaContract, amend, contract_file, load, publish
from airworthy.contracts.report import table
from airworthy.contracts.summary import Summary, summarise
from airworthy.errors import ConfigError, DataError, Problems
from airworthy.partitions import parse_key
from airworthy.profile import load_profile
from airworthy.store import Store

RAW = "raw"

Say = Callable[[str], object]


def show(pipeline: Pipeline, say: Say) -> None:
    """Says what the contract's file holds, once it is read and found sound."""
    _required(pipeline)
    say(contract_file(pipeline.name).read_text(encoding="utf-8").rstrip())


def learn_from_raw(
    pipeline: Pipeline, keys: Sequence[str], environment: Mapping[str, str], say: Say, *, force: bool = False
) -> None:
    """Leaves a contract that partitions of the raw table fulfil.

    Args:
        pipeline: Whose contract it is.
        keys: The partitions to learn from; all if there are none.
        environment: Where the tables are.
        say: Says what was done.
        force: Whether to replace a contract, with its history.

    Raises:
        ConfigError: There is a contract, and it is not to be replaced.
        DataError: A partition is not in the raw table.
    """
    if load(pipeline) is not None and not force:
        hint = "See `airworthy contract show`; --force replaces it"
        raise ConfigError(f"config/contracts/{pipeline.name}.yaml", "must not exist yet", hint=hint)
    store = Store(load_profile(environment).store_uri, pipeline.name)
    there = store.partitions(RAW)
    if missing := [key for key in keys if key not in there] or ([] if there else ["no partition at all"]):
        hint = f"Run {pipeline.name}.ingest first, which also learns a contract by itself"
        raise DataError(RAW, "must hold the partitions to learn from", ", ".join(missing), hint)
    summaries = {}
    for key in keys or there:
        rows = chunks(store.scan(RAW, partitions=[key]))
        summaries[key] = summarise(f"{RAW}[{key}]", rows, new_summary(pipeline, None), pipeline.time)
    published = publish(pipeline, learn(pipeline, summaries), replace=True)
    say(f"Wrote config/contracts/{pipeline.name}.yaml: {len(published.columns)} columns, learnt {published.learnt}")


def newest(pipeline: Pipeline, environment: Mapping[str, str]) -> str:
    """Returns the key of the newest partition in the raw table."""
    found = Store(load_profile(environment).store_uri, pipeline.name).partitions(RAW)
    if not found:
        raise DataError(RAW, "must hold a partition", hint="Name the partition to compare")
    return found[-1]


def diff(pipeline: Pipeline, key: str, say: Say) -> bool:
    """Returns whether the source's rows of a partition differ from the contract, and says how."""
    contract = _required(pipeline)
    changes, summary = _compare(pipeline, key, contract)
    if not changes:
        say(f"{pipeline.name} {key}: as the contract says, {summary.rows} rows")
        return False
    say(table(changes, ["" if can_accept(pipeline, change, summary) else "cannot be accepted" for change in changes]))
    return True


def accept(pipeline: Pipeline, key: str, say: Say) -> None:
    """Leaves in the contract what the source's rows of a partition have changed, with a line in its history.

    Raises:
        Problems: They hold changes that no table can follow, or without which they are no partition.
    """
    changes, summary = _compare(pipeline, key, _required(pipeline))
    if refused := [change for change in changes if not can_accept(pipeline, change, summary)]:
        hint = "Correct it at the source, or move the tables of the pipeline away and learn the contract anew"
        raise Problems(f"{RAW}[{key}]", [change.error(f"{RAW}[{key}]", hint) for change in refused])

    def change(there: SchemaContract) -> SchemaContract:
        found = compare(there, summary, null_tolerance=pipeline.contract.null_tolerance)
        return evolve(there, found, summary, key)

    if not any(taken.kind != "reordered" for taken in changes):
        say(f"{pipeline.name} {key}: as the contract says, {summary.rows} rows")
        return
    amend(pipeline, change)
    for taken in changes:
        say(taken.text)
    say(f"Wrote config/contracts/{pipeline.name}.yaml; review and commit it, then run {pipeline.name}.ingest for {key}")


def _required(pipeline: Pipeline) -> SchemaContract:
    contract = load(pipeline)
    if contract is None:
        hint = (
            f"{pipeline.name}.ingest learns it from the first partition, or: airworthy contract learn {pipeline.name}"
        )
        raise ConfigError(f"config/contracts/{pipeline.name}.yaml", "must exist", hint=hint)
    return contract


def _compare(pipeline: Pipeline, key: str, contract: SchemaContract) -> tuple[list[Change], Summary]:
    partition = parse_key(pipeline.partition, key)
    rows = pipeline.source.extract(partition, from_environment).rows
    summary = Enforcement(pipeline, partition).survey(rows)
    if not summary.rows:
        raise DataError(f"{RAW}[{key}]", "must have rows to be compared", hint="The source gave none")
    return compare(contract, summary, null_tolerance=pipeline.contract.null_tolerance), summary
