"""Lineage as a picture: the way from source to champion, and every partition on it by what became of it."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from itertools import pairwise

from airworthy.lineage import Lineage, Read

_WIDTH, _HEIGHT = 1040, 292
_BOX, _TALL, _GAP = 172, 104, 45
_LABEL = 76  # the width of a partition's name
_INK, _SOFT, _LINE = "#1f2328", "#59636e", "#b7c0ca"
_COLOURS = {"window": "#1f6feb", "holdout": "#8250df", "changed": "#cf222e", "added later": "#d29922"}


def picture(lineage: Lineage) -> str:
    """Returns an SVG picture."""
    body = "\n".join((*_way(lineage), *_strip(lineage.reads), *_legend(lineage.reads)))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" '
        f'height="{_HEIGHT}" font-family="system-ui, -apple-system, Segoe UI, Roboto, sans-serif">\n{body}\n</svg>'
    )


def _way(lineage: Lineage) -> Iterator[str]:
    boxes = list(_boxes(lineage))
    for number, (heading, told) in enumerate(boxes):
        x, border = number * (_BOX + _GAP), _COLOURS["changed"] if number == 4 and lineage.stale else _LINE
        yield f'<rect x="{x + 1}" y="1" width="{_BOX - 2}" height="{_TALL}" rx="7" fill="#f6f8fa" stroke="{border}"/>'
        yield _text(x + 12, 26, heading, size=15, weight=600)
        for line, text in enumerate(told[:4]):
            yield _text(x + 12, 47 + 17 * line, text if len(text) < 27 else f"{text[:25]}…", size=12, colour=_SOFT)
        if number:
            y = _TALL / 2
            arrow = f"M{x - _GAP + 5} {y}H{x - 7}m-7 -5l7 5l-7 5"
            yield f'<path d="{arrow}" fill="none" stroke="{_SOFT}" stroke-width="1.6"/>'


def _boxes(lineage: Lineage) -> Iterator[tuple[str, list[str]]]:
    if lineage.run.source:
        tags = lineage.run.tags
        yield "Imported", [tags["source.registry"], f"version {tags['source.version']}", tags["source.run_id"][:12]]
    else:
        yield from _tables(lineage)
    yield "Training run", [f"as of {lineage.run.as_of:%Y-%m-%d}", lineage.run.run_id[:12]]
    champion = [f"champion {one.start:%Y-%m-%d}" for one in lineage.champion[-2:]]
    stale = [f"stale: {len(lineage.stale)} partition{'s' * (len(lineage.stale) != 1)}"] * bool(lineage.stale)
    versions = ", ".join(lineage.run.versions)
    yield f"Version {versions}" if versions else "No version", [*champion, *stale]


def _tables(lineage: Lineage) -> Iterator[tuple[str, list[str]]]:
    there = [read for read in lineage.reads if read.features]
    raw = [read.raw for read in there if read.raw]
    names = [str(one["name"]) for write in raw for one in write.facts.get("origins", ())]
    first = [name.rpartition("/")[2] or name for name in names[:1] + names[-1:] * (len(names) > 1)]
    yield "Source", [f"{len(names)} origin{'s' * (len(names) != 1)}", *first]
    yield (
        "raw",
        [f"{len(raw)} partitions", f"{sum(write.rows for write in raw):,} rows", _versions(w.version for w in raw)],
    )
    rows = sum(read.features.rows for read in there if read.features)
    yield "features", [f"{len(there)} partitions", f"{rows:,} rows", f"read at version {lineage.run.features_version}"]


def _strip(reads: tuple[Read, ...]) -> Iterator[str]:
    """Draws a bar for each partition, in order, and names the first of each part and the last."""
    if not reads:
        return
    top, tall, step = 166, 56, _WIDTH / len(reads)
    yield _text(0, top - 16, "Partitions", size=15, weight=600)
    for number, read in enumerate(reads):
        width = max(step - min(2.0, step * 0.2), 0.6)
        colour = _COLOURS[_kind(read)]
        title = escape(f"{read.partition}: {read.part}, {read.state}")
        yield (
            f'<rect x="{number * step:.1f}" y="{top}" width="{width:.1f}" height="{tall}" fill="{colour}">'
            f"<title>{title}</title></rect>"
        )
    last = len(reads) - 1
    turns = [number + 1 for number, (one, other) in enumerate(pairwise(reads)) if one.part != other.part]
    taken: list[float] = []
    for number in dict.fromkeys((0, last, *turns)):
        x = min(number * step, _WIDTH - _LABEL)
        if all(abs(x - other) > _LABEL + 6 for other in taken):
            yield _text(x, top + tall + 18, reads[number].partition, size=12, colour=_SOFT)
            taken.append(x)


def _legend(reads: tuple[Read, ...]) -> Iterator[str]:
    x = 0
    for kind, colour in _COLOURS.items():
        count = sum(_kind(read) == kind for read in reads)
        told = f"{kind}: {count}" if kind in ("window", "holdout") else f"{kind} since it was read: {count}"
        yield f'<rect x="{x}" y="264" width="12" height="12" rx="2" fill="{colour}"/>'
        yield _text(x + 18, 275, told.replace("later since it was read", "since it was read"), size=12.5)
        x += 130 if kind in ("window", "holdout") else 250


def _kind(read: Read) -> str:
    return read.part.partition(",")[0] if read.state == "same" else read.state


def _versions(found: Iterator[int]) -> str:
    versions = sorted(set(found))
    if len(versions) < 2:
        return f"version {versions[0]}" if versions else ""
    return f"versions {versions[0]} to {versions[-1]}"


def _text(x: float, y: float, text: str, *, size: float, weight: int = 400, colour: str = _INK) -> str:
    return f'<text x="{x:.1f}" y="{y}" font-size="{size}" font-weight="{weight}" fill="{colour}">{escape(text)}</text>'
