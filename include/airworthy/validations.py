"""The table `validations`: what became of every expectation in every partition, to be asked over time."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import pandas as pd

from airworthy.config import load_pipeline
from airworthy.expectations import Outcome
from airworthy.partitions import Partition
from airworthy.profile import load_profile, pipelines_dir
from airworthy.store import Store, TableRef
from airworthy.terminal import lines

VALIDATIONS = "validations"
_WIDTH = 90


def record(
    store: Store, partition: Partition, raw: TableRef, outcomes: Sequence[Outcome], *, blocked: bool
) -> TableRef:
    """Leaves one row per expectation in the partition; a rerun that finds the same changes nothing.

    Columns: `raw_digest` (of the rows that were checked; `Store.history` knows the versions of `raw` by it),
    `blocked` (the whole partition), `expectation`, `columns`, `kwargs` (JSON), `status`, `severity`, `unexpected`
    (failing rows of a row-level one), `rows`, `unexpected_share`, `observed` (if a number) and `reason`.

    Args:
        outcomes: Masked, as the table is for everybody to read.
    """
    frame = pd.DataFrame([_row(raw, outcome) for outcome in outcomes]).assign(blocked=blocked)
    kinds = {"unexpected": "Int64", "unexpected_share": "float64", "observed": "float64"}
    return store.write(VALIDATIONS, partition, frame.astype(kinds), facts={"raw": raw.version, "digest": raw.digest})


def _row(raw: TableRef, outcome: Outcome) -> dict[str, object]:
    kwargs = dict(outcome.expectation.kwargs)
    severity = kwargs.pop("severity", "critical")
    observed = (outcome.result.get("result") or {}).get("observed_value")
    counted = outcome.is_row_level and outcome.status != "error"
    return {
        "raw_digest": raw.digest,
        "expectation": outcome.expectation.type,
        "columns": outcome.title.partition("(")[2].removesuffix(")"),
        "kwargs": json.dumps(kwargs, sort_keys=True, default=str),
        "status": outcome.status,
        "severity": severity,
        "unexpected": outcome.unexpected if counted else None,
        "rows": raw.rows,
        "unexpected_share": outcome.unexpected / max(raw.rows, 1) if counted else None,
        "observed": observed if isinstance(observed, int | float) and not isinstance(observed, bool) else None,
        "reason": outcome.reason,
    }


def over_time(store: Store, expectation: str = "", *, failed: bool = False) -> pd.DataFrame:
    """Returns the rows of `validations` with `partition`, oldest first.

    Args:
        expectation: Only those whose name and columns, e.g. `expect_column_values_to_be_unique(id)`, hold this text.
        failed: Only those that do not hold or could not be judged.

    Raises:
        DataError: No partition was validated yet.
    """
    names = store.scan(VALIDATIONS).schema.names
    rows = store.read(VALIDATIONS, columns=names)
    rows["title"] = rows["expectation"].where(rows["columns"] == "", rows["expectation"] + "(" + rows["columns"] + ")")
    chosen = rows["title"].str.contains(expectation, regex=False)
    return rows[chosen & (rows["status"] != "passed")] if failed else rows[chosen]


def run(pipeline: str, environment: Mapping[str, str], expectation: str = "", *, failed: bool = False) -> None:
    """Prints the rows of `over_time` as a table.

    Args:
        environment: Where the tables are.
    """
    profile = load_profile(environment)
    name = load_pipeline(pipelines_dir() / f"{pipeline}.yaml").name
    rows = over_time(Store(profile.store_uri, name), expectation, failed=failed)
    if rows.empty:
        print("Nothing was found")
        return
    columns = {
        "partition": rows["partition"],
        "expectation": rows["title"],
        "result": rows["status"].where(~rows["blocked"] | (rows["status"] == "passed"), rows["status"] + ", blocked"),
        "share": rows["unexpected_share"].map("{:.2%}".format).where(rows["unexpected_share"].notna(), ""),
        "observed": rows["observed"].map("{:.6g}".format).where(rows["observed"].notna(), ""),
        "": rows["reason"].where(rows["status"] != "passed", "").str.slice(0, _WIDTH),
    }
    print("\n".join(lines(list(columns), zip(*(values.astype(str) for values in columns.values()), strict=True))))
