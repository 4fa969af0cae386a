"""Lineage as rows of text, which the terminal and the pages both show."""

from __future__ import annotations

from collections.abc import Sequence

from airworthy.lineage import Lineage, Period, Read, Use
from airworthy.store import Write

Table = tuple[Sequence[str], list[tuple[str, ...]]]

NAMED = 20  # stale partitions in one mark
_ORIGINS = 3  # of a partition
_KNOWN = ("raw", "digest", "run", "quarantine", "views")


def model(lineage: Lineage, address: str) -> Table:
    """Returns what made a model: run, code, features, intervals, and what became of it.

    Args:
        lineage: Of the run.
        address: Of the run's page.
    """
    tags = lineage.run.tags
    function = tags.get("features.function") or "none, all columns"
    digest = tags.get("features.function_digest", "")
    rows = [
        ("MLflow run", address),
        ("asked for by", " ".join(filter(None, (tags.get("airflow.dag_id"), tags.get("airflow.run_id"))))),
        ("as of", f"{lineage.run.as_of:%Y-%m-%d %H:%M} UTC"),
        ("model files", tags.get("digest", "")),
        ("code", tags.get("code", "")),
        ("features function", f"{function} {digest}".strip()),
        ("imported from", lineage.run.source and f"{lineage.run.source}, run {tags['source.run_id']}"),
        ("features", features(lineage, f", rows {tags.get('features.digest', '')}")),
        ("window", tags["window"]),
        ("holdout", tags["holdout"]),
        ("versions", ", ".join(lineage.run.versions) or "none"),
        ("champion", "; ".join(map(period, lineage.champion)) or "never"),
        ("data since", since(lineage)),
    ]
    return ("", ""), [row for row in rows if row[1]]


def models(found: Sequence[Lineage]) -> Table:
    """Returns a row per model."""
    columns = ("as of", "versions", "run", "features", "partitions", "champion", "since")
    return columns, [
        (
            f"{one.run.as_of:%Y-%m-%d}",
            ", ".join(one.run.versions) or "none",
            one.run.run_id,
            features(one),
            str(sum(read.features is not None for read in one.reads)),
            "; ".join(map(period, one.champion)) or "never",
            since(one),
        )
        for one in found
    ]


def partitions(lineage: Lineage) -> Table:
    """Returns what was read, a row per partition."""
    columns = ("partition", "part", "features version", "rows", "raw version", "left out, and with", "from", "since")
    return columns, [_partition(read) for read in lineage.reads]


def back(uses: Sequence[Use]) -> Table:
    """Returns what was made from writes of `raw`, a row per model."""
    columns = ("partition", "raw", "written", "from", "features", "model", "as of", "champion", "since")
    rows: list[tuple[str, ...]] = []
    for use in uses:
        raw = (use.raw.partition, f"version {use.raw.version}", f"{use.raw.at:%Y-%m-%d %H:%M}", origins(use.raw))
        features = ", ".join(f"version {write.version}" for write in use.features) or "none"
        models = [
            (name(one), f"{one.run.as_of:%Y-%m-%d}", "; ".join(map(period, one.champion)) or "never", since(one))
            for one in use.lineages
        ]
        rows += [(*raw, features, *found) for found in models or [("none", "", "", "")]]
    return columns, rows


def name(lineage: Lineage) -> str:
    """Returns how a person calls a training run: by its versions, if there are any."""
    versions = ", ".join(lineage.run.versions)
    return f"{f'version {versions}' if versions else 'a model without a version'} (run {lineage.run.run_id})"


def told_stale(stale: Sequence[Read]) -> str:
    """Returns which partitions hold other rows now, since when and by whom; at most `NAMED` one by one."""
    if not stale:
        return ""
    told = [_told(read) for read in stale[:NAMED]]
    return "; ".join(told + [f"and {len(stale) - NAMED} more"] * (len(stale) > NAMED))


def summary(stale: Sequence[Read]) -> str:
    """Returns how many partitions changed, and how many came later."""
    changed = sum(read.state == "changed" for read in stale)
    later = len(stale) - changed
    told = [f"{changed} changed"] * bool(changed) + [f"{later} added later"] * bool(later)
    return ", ".join(told)


def _told(read: Read) -> str:
    assert read.now is not None
    by = f" by {run}" if (run := read.now.facts.get("run")) else ""
    since = f"version {read.now.version}, {read.now.at:%Y-%m-%d %H:%M} UTC{by}"
    if read.features is None:
        return f"{read.partition} added later ({since})"
    return f"{read.partition} changed from version {read.features.version} ({since})"


def features(lineage: Lineage, rest: str = "") -> str:
    """Returns which features a model was trained on."""
    return "elsewhere" if lineage.run.source else f"version {lineage.run.features_version}{rest}"


def since(lineage: Lineage) -> str:
    """Returns whether a model is stale."""
    if lineage.run.source:
        return "imported"
    return f"stale: {summary(lineage.stale)}" if lineage.stale else "same"


def period(champion: Period) -> str:
    start, end = (None if at is None else f"{at:%Y-%m-%d %H:%M}" for at in (champion.start, champion.end))
    return f"{start} to {end or 'now'}, by {champion.actor}"


def origins(raw: Write | None) -> str:
    """Returns the names and versions of what rows came from, the first few."""
    found = raw.facts.get("origins", []) if raw else []
    told = [f"{one['name']} @ {str(one['version'])[:12]}" for one in found[:_ORIGINS]]
    return ", ".join(told + [f"and {len(found) - _ORIGINS} more"] * (len(found) > _ORIGINS))


def _partition(read: Read) -> tuple[str, ...]:
    features, raw = read.features, read.raw
    left_out = raw.rows - features.rows if raw and features else 0
    quarantine = features.facts.get("quarantine") if features else None
    views = features.facts.get("views", {}) if features else {}
    others = {name: value for name, value in (features.facts if features else {}).items() if name not in _KNOWN}
    told = [str(left_out)] if left_out else []
    told += [f"quarantine version {quarantine}"] if quarantine is not None else []
    told += [f"{name} version {version}" for name, version in views.items()]
    told += [f"{name} {value}" for name, value in others.items()]
    return (
        read.partition,
        read.part,
        str(features.version) if features else "",
        str(features.rows) if features else "",
        str(raw.version) if raw else "",
        ", ".join(told),
        origins(raw),
        read.state if read.now is None else f"{read.state}: version {read.now.version}, {read.now.at:%Y-%m-%d %H:%M}",
    )
