"""What a partition of `raw` looks like: distributions, missing values, and what tells the label.

Counts, extremes and quantiles are of all rows, by DuckDB in bounded memory; what needs more than that is
measured on a sample of at most `SAMPLE` rows, evenly spread over the partition.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds

from airworthy.config import Pipeline
from airworthy.content import PARTITION, chunks
from airworthy.store import Store

SAMPLE = 20_000
EXACT = 200_000  # up to so many rows, distinct values and quantiles are counted and not estimated
COMMON = 20

Kind = Literal["number", "time", "category"]


@dataclass(frozen=True)
class Association:
    """How much a column, or the fact that it is missing, tells about the label.

    Attributes:
        measure: Its name, e.g. `AUC`.
        value: As the measure has it.
        strength: From 0, nothing, to 1, everything.
    """

    measure: str
    value: float
    strength: float


@dataclass
class ColumnProfile:
    """One column.

    Attributes:
        distinct: How many values there are beside missing ones.
        low, quartiles, high: Of a number or a time; None if there is no value.
        infinite: How many numbers are infinite.
        common: The most common values of the sample with their shares of its rows, of a category.
        is_personal: Then nothing but counts is known.
        label: What its values tell about the label.
        missing_label: What its being missing tells about the label.
    """

    name: str
    kind: Kind
    type: str
    missing: float
    distinct: int
    low: Any = None
    high: Any = None
    quartiles: tuple[Any, ...] = ()
    infinite: int = 0
    common: list[tuple[str, float]] = field(default_factory=list)
    is_personal: bool = False
    label: Association | None = None
    missing_label: Association | None = None


@dataclass(frozen=True)
class DataProfile:
    """A partition.

    Attributes:
        partitions: How many the table has.
        duplicates: Rows whose key another row has before them.
        is_exact: Whether distinct values and quantiles are counted.
        sample: Rows evenly spread over the partition, without personal columns.
        groups: The sample's rows by what they have for a label: classes, or below and above the median.
    """

    partition: str
    version: int
    rows: int
    partitions: int
    duplicates: int
    span: tuple[Any, Any]
    is_exact: bool
    columns: list[ColumnProfile]
    sample: pd.DataFrame
    groups: pd.Series[Any]


def profile(pipeline: Pipeline, partition_key: str, store: Store, version: int) -> DataProfile:
    """Returns the profile of a partition as it is in a version of `raw`.

    Raises:
        DataError: There is no such table or version.
    """
    rows = store.scan("raw", partitions=[partition_key], version=version)
    count = rows.count_rows()
    fields = [one for one in rows.schema if one.name != PARTITION]
    facts, duplicates = _facts(pipeline, rows, fields, exact=count <= EXACT)
    sample = _sample(rows, count, [one.name for one in fields if one.name not in pipeline.pii])
    columns = [_column(pipeline, one, count, facts) for one in fields]
    label = sample[pipeline.label.column]
    for column in columns:
        if not column.is_personal:
            _measure(pipeline, column, sample[column.name], label)
    return DataProfile(
        partition=partition_key,
        version=version,
        rows=count,
        partitions=len(store.partitions("raw", version)),
        duplicates=duplicates,
        span=(facts.get(f"{pipeline.time}.low"), facts.get(f"{pipeline.time}.high")),
        is_exact=count <= EXACT,
        columns=columns,
        sample=sample,
        groups=_groups(pipeline, label),
    )


def _kind(type_: pa.DataType) -> Kind:
    if pa.types.is_integer(type_) or pa.types.is_floating(type_):
        return "number"
    return "time" if pa.types.is_timestamp(type_) else "category"


def _facts(pipeline: Pipeline, rows: ds.Dataset, fields: list[pa.Field], *, exact: bool) -> tuple[dict[str, Any], int]:
    """Returns `<column>.<fact>` by name, and how many keys are there twice."""
    import duckdb

    asked: dict[str, str] = {}
    for one in fields:
        name, column = one.name, _quoted(one.name)
        asked[f"{name}.there"] = f"count({column})"
        asked[f"{name}.distinct"] = f"count(DISTINCT {column})" if exact else f"approx_count_distinct({column})"
        if _kind(one.type) == "category" or name in pipeline.pii:
            continue
        floating = pa.types.is_floating(one.type)
        values = f"CASE WHEN isfinite({column}) THEN {column} END" if floating else column
        quantile = "quantile_disc" if exact else "approx_quantile"
        asked[f"{name}.low"], asked[f"{name}.high"] = f"min({values})", f"max({values})"
        asked[f"{name}.quartiles"] = f"{quantile}({values}, [0.25, 0.5, 0.75])"
        if floating:
            asked[f"{name}.infinite"] = f"count(*) FILTER (isinf({column}))"
    with tempfile.TemporaryDirectory() as folder, duckdb.connect() as database:
        database.execute(f"SET memory_limit = '512MB'; SET temp_directory = '{folder}'; SET TimeZone = 'UTC'")
        database.execute("SET enable_progress_bar = false")
        database.register("rows", rows)
        found = database.execute(f"SELECT {', '.join(asked.values())} FROM rows").fetchone()
        key = ", ".join(map(_quoted, pipeline.key))
        keys = database.execute(f"SELECT count(*), sum(n) FROM (SELECT count(*) n FROM rows GROUP BY {key})").fetchone()
    assert found is not None and keys is not None
    return dict(zip(asked, found, strict=True)), int((keys[1] or 0) - keys[0])


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _sample(rows: ds.Dataset, count: int, names: list[str]) -> pd.DataFrame:
    step = max(1, -(-count // SAMPLE))
    parts = list(_every(step, chunks(rows, names)))
    whole = pa.concat_tables(parts) if parts else rows.schema.empty_table().select(names)
    frame: pd.DataFrame = whole.to_pandas()
    return frame


def _every(step: int, tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    seen = 0
    for table in tables:
        first = -seen % step
        yield table.take(pa.array(range(first, table.num_rows, step), pa.int64())) if step > 1 else table
        seen += table.num_rows


def _column(pipeline: Pipeline, one: pa.Field, count: int, facts: dict[str, Any]) -> ColumnProfile:
    def fact(name: str, default: Any = None) -> Any:
        return facts.get(f"{one.name}.{name}", default)

    return ColumnProfile(
        name=one.name,
        kind=_kind(one.type),
        type=str(one.type).removesuffix("[us, tz=UTC]"),
        missing=1 - fact("there") / count if count else 0.0,
        distinct=fact("distinct"),
        low=fact("low"),
        high=fact("high"),
        quartiles=tuple(fact("quartiles") or ()),
        infinite=fact("infinite", 0),
        is_personal=one.name in pipeline.pii,
    )


def _measure(pipeline: Pipeline, column: ColumnProfile, values: pd.Series[Any], label: pd.Series[Any]) -> None:
    if column.kind == "category" or (column.name == pipeline.label.column and pipeline.label.task != "regression"):
        shares = values.value_counts().head(COMMON) / max(len(values), 1)
        column.common = [(str(value), float(share)) for value, share in shares.items()]
    if column.name in (pipeline.label.column, pipeline.time):
        return
    known = label.notna()
    values, label = values[known], label[known]
    there = values.notna()
    if column.name not in pipeline.key:
        column.label = _association(pipeline, column.kind, values[there], label[there])
    if 0 < there.sum() < len(there):
        column.missing_label = _association(pipeline, "category", there.map({True: "there", False: "missing"}), label)


def _association(pipeline: Pipeline, kind: Kind, values: pd.Series[Any], label: pd.Series[Any]) -> Association | None:
    """Returns the measure that fits the kinds of column and label; None if one of them does not vary."""
    if kind != "category":
        values = values.astype("int64" if kind == "time" else "float64")
        values = values[np.isfinite(values.to_numpy())]
        label = label[values.index]
    else:
        counts = values.value_counts().head(COMMON)
        values = values.where(values.isin(counts[counts >= 5].index), "\0rare").astype(str)
    if values.nunique() < 2 or label.nunique() < 2:
        return None
    if pipeline.label.task == "regression":
        return _spearman(values, label) if kind != "category" else _correlation_ratio(label, values)
    if kind == "category":
        from scipy.stats.contingency import association

        value = float(association(pd.crosstab(values, label).to_numpy(), method="cramer"))
        return Association("Cramér's V", value, value)
    return _auc(values, label) if label.nunique() == 2 else _correlation_ratio(values, label)


def _auc(values: pd.Series[Any], label: pd.Series[Any]) -> Association:
    """Returns the chance that a row of the higher class has the higher value (Mann and Whitney, 1947)."""
    positive = (label == max(label.unique())).to_numpy()
    ranks, count = values.rank().to_numpy(), int(positive.sum())
    value = float((ranks[positive].mean() - (count + 1) / 2) / (len(ranks) - count))
    return Association("AUC", value, abs(2 * value - 1))


def _spearman(values: pd.Series[Any], label: pd.Series[Any]) -> Association:
    from scipy.stats import spearmanr

    value = float(spearmanr(values, label.astype("float64")).statistic)
    return Association("Spearman's rho", value, abs(value))


def _correlation_ratio(numbers: pd.Series[Any], groups: pd.Series[Any]) -> Association:
    """Returns η: the share of the numbers' variance that lies between the groups, as a root (Pearson, 1905)."""
    ranks = numbers.astype("float64").rank()
    between = ((ranks.groupby(groups).transform("mean") - ranks.mean()) ** 2).sum()
    value = float(np.sqrt(between / ((ranks - ranks.mean()) ** 2).sum()))
    return Association("correlation ratio η of ranks", value, value)


def _groups(pipeline: Pipeline, label: pd.Series[Any]) -> pd.Series[Any]:
    if pipeline.label.task != "regression":
        classes = label.value_counts().index[:3]
        return label.where(label.isin(classes)).map(
            lambda value: f"{pipeline.label.column} = {value}", na_action="ignore"
        )
    middle = label.astype("float64").median()
    named = np.where(
        label > middle, f"{pipeline.label.column} > {middle:.4g}", f"{pipeline.label.column} ≤ {middle:.4g}"
    )
    return pd.Series(named, index=label.index).where(label.notna())
