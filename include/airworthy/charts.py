"""Draws small pictures as SVG in the colours of `pages`, so that they fit light and dark."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from airworthy.pages import Chart

_COLOURS = ("var(--first)", "var(--second)", "var(--soft)")


def histogram(counts: Sequence[float], label: str, width: int = 120, height: int = 28) -> Chart:
    """Returns bars of these heights side by side; `label` is read out and shown on hovering."""
    return Chart(
        label, _svg(width, height, label, _path(counts, max(counts, default=0), width, height, "var(--first)"))
    )


def compared(groups: Mapping[str, Sequence[float]], title: str, low: str, high: str) -> Chart:
    """Returns the groups' histograms over each other, each scaled to its own number of rows.

    Args:
        groups: At most three, by name, over the same bins.
        low: What to write below the first bin.
        high: Below the last one.
    """
    width, height = 300, 110
    shares = {name: [count / max(sum(counts), 1e-12) for count in counts] for name, counts in groups.items()}
    most = max((max(found, default=0) for found in shares.values()), default=0)
    parts = [
        _path(found, most, width, height, colour, opacity=0.55)
        for found, colour in zip(shares.values(), _COLOURS, strict=False)
    ]
    parts += [_text(0, height + 13, low), _text(width, height + 13, high, anchor="end"), *_legend(groups, height + 30)]
    return Chart(title, _svg(width, height + 36, title, *parts))


def bars(groups: Mapping[str, Sequence[float]], names: Sequence[str], title: str) -> Chart:
    """Returns, for each name, one horizontal bar per group with the share of the group's rows it has."""
    width, step, left = 300, 8 * len(groups) + 8, 110
    shares = {group: [count / max(sum(counts), 1e-12) for count in counts] for group, counts in groups.items()}
    most = max((max(found, default=0) for found in shares.values()), default=0) or 1
    parts = []
    for row, name in enumerate(names):
        parts.append(
            _text(left - 6, row * step + step / 2 + 3, name if len(name) < 17 else f"{name[:15]}…", anchor="end")
        )
        for number, (found, colour) in enumerate(zip(shares.values(), _COLOURS, strict=False)):
            length = (width - left) * found[row] / most
            y = row * step + 4 + number * 8
            parts.append(f'<rect x="{left}" y="{y}" width="{length:.1f}" height="7" fill="{colour}"/>')
    bottom = len(names) * step
    parts += _legend(groups, bottom + 14)
    return Chart(title, _svg(width, bottom + 20, title, *parts))


def points(
    groups: Mapping[str, Sequence[tuple[float, float]]], title: str, across: str, up: str, stairs: Sequence[str] = ()
) -> Chart:
    """Returns the groups' points, each a pair of numbers, between the least and the most of both axes.

    Args:
        groups: At most three, by name.
        across: What the first number is.
        up: What the second is.
        stairs: Groups whose points a line of steps joins.
    """
    width, height, left = 420, 190, 70
    found = [point for group in groups.values() for point in group]
    low, high = ([pick(axis) for axis in zip(*found, strict=True)] for pick in (min, max))

    def place(point: tuple[float, float]) -> tuple[float, float]:
        x, y = ((value - low[n]) / ((high[n] - low[n]) or 1) for n, value in enumerate(point))
        return left + 8 + x * (width - left - 16), height - 8 - y * (height - 16)

    parts = [f'<path d="M{left} 0V{height}H{width}" fill="none" stroke="var(--line)"/>']
    for (name, group), colour in zip(groups.items(), _COLOURS, strict=False):
        spots = [place(point) for point in group]
        if name in stairs and spots:
            steps = "".join(f"H{x:.1f}V{y:.1f}" for x, y in spots[1:])
            start = f"M{spots[0][0]:.1f} {spots[0][1]:.1f}"
            parts.append(f'<path d="{start}{steps}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}" fill-opacity="0.8"/>' for x, y in spots]
    parts += [_text(left - 5, 12, f"{high[1]:.4g}", "end"), _text(left - 5, height - 2, f"{low[1]:.4g}", "end")]
    parts += [_text(left, height + 14, f"{low[0]:.4g}"), _text(width, height + 14, f"{high[0]:.4g}", "end")]
    parts += [_text((left + width) / 2, height + 14, across, "middle"), _text(left + 5, 12, up)]
    return Chart(title, _svg(width, height + 36, title, *parts, *_legend(groups, height + 31)))


def _path(counts: Sequence[float], most: float, width: int, height: int, colour: str, opacity: float = 1.0) -> str:
    if not most:
        return ""
    step = width / len(counts)
    drawn = []
    for number, count in enumerate(counts):
        if count:
            tall = max(count / most * (height - 1), 1)  # a single row must be seen, too
            drawn.append(f"M{number * step:.1f} {height}v{-tall:.1f}h{max(step - 1, 1):.1f}v{tall:.1f}z")
    return f'<path d="{"".join(drawn)}" fill="{colour}" fill-opacity="{opacity:g}"/>'


def _legend(names: Mapping[str, object], y: float) -> list[str]:
    parts, x = [], 0.0
    for name, colour in zip(names, _COLOURS, strict=False):
        shown = name if len(name) < 30 else f"{name[:28]}…"
        parts += [f'<rect x="{x:g}" y="{y - 8}" width="9" height="9" fill="{colour}"/>', _text(x + 13, y, shown)]
        x += 24 + 6.2 * len(shown)
    return parts


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:g}" y="{y:g}" font-size="11" fill="var(--soft)" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(width: int, height: float, label: str, *parts: str) -> str:
    return (
        f'<svg role="img" width="{width}" height="{height:g}" viewBox="0 0 {width} {height:g}">'
        f"<title>{escape(label)}</title>{''.join(parts)}</svg>"
    )


@dataclass(frozen=True)
class Line:
    """Values over time, one for each place; None where there is none.

    Attributes:
        marked: The places whose values stand out.
        joined: Whether a line joins them; else each is a dot.
    """

    values: Sequence[float | None]
    marked: Collection[int] = ()
    joined: bool = True


def timeline(
    groups: Mapping[str, Line], names: Sequence[str], title: str, events: Mapping[int, str], width: int = 1040
) -> Chart:
    """Returns lines over the same places in time, between the least and the most of their values.

    Args:
        groups: At most three, by name.
        names: Of the places; the first and the last are written.
        title: Of the chart.
        events: By place: what happened before it, written beside a vertical line.
        width: In pixels.
    """
    height, left, top = 170, 60, 16 if events else 4
    found = [value for line in groups.values() for value in line.values if value is not None]
    low, high = min(found, default=0.0), max(found, default=1.0)

    def place(number: int, value: float) -> tuple[float, float]:
        share = (value - low) / ((high - low) or 1)
        return _across(number, len(names), left, width), height - 6 - share * (height - top - 12)

    parts = [f'<path d="M{left} {top}V{height}H{width}" fill="none" stroke="var(--line)"/>']
    for number, told in events.items():
        x = _across(number, len(names), left, width) - (width - left) / max(len(names), 1) / 2
        parts += [f'<path d="M{x:.1f} {top}V{height}" stroke="var(--soft)" stroke-dasharray="3 3"/>']
        parts += [_text(round(x, 1), 11, told, "middle")]
    for line, colour in zip(groups.values(), _COLOURS, strict=False):
        spots = [(n, value, *place(n, value)) for n, value in enumerate(line.values) if value is not None]
        if line.joined and spots:
            path = "L".join(f"{x:.1f} {y:.1f}" for *_, x, y in spots)
            parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        for number, value, x, y in spots:
            shown, size = ("var(--bad)", 4.5) if number in line.marked else (colour, 2.5)
            about = f"<title>{escape(names[number])}: {value:.4g}</title>"
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size}" fill="{shown}">{about}</circle>')
    parts += [_text(left - 5, top + 10, f"{high:.4g}", "end"), _text(left - 5, height - 2, f"{low:.4g}", "end")]
    parts += _ends(names, left, width, height + 14)
    return Chart(title, _svg(width, height + 36, title, *parts, *_legend(groups, height + 31)))


def grid(rows: Mapping[str, Sequence[float | None]], names: Sequence[str], title: str, width: int = 1040) -> Chart:
    """Returns one square per row and place, the fuller the higher its value; from 1 on it is marked as bad.

    Args:
        rows: By name: a value for each place, None where there is none.
        names: Of the places; the first and the last are written.
        title: Of the chart.
        width: In pixels.
    """
    left, tall = 150, 14
    step = (width - left) / max(len(names), 1)
    parts = []
    for row, (name, values) in enumerate(rows.items()):
        parts.append(_text(left - 6, row * tall + 11, name if len(name) < 24 else f"{name[:22]}…", anchor="end"))
        for number, value in enumerate(values):
            if value is not None:
                told = f"{name}, {names[number]}: {value:.2f} of what is allowed"
                parts.append(_square(left + number * step, row * tall + 1, step - 1, tall - 2, value, told))
    bottom = len(rows) * tall
    return Chart(title, _svg(width, bottom + 20, title, *parts, *_ends(names, left, width, bottom + 13)))


def _square(x: float, y: float, width: float, height: float, value: float, told: str) -> str:
    if value < 1:
        return _rect(x, y, width, height, "var(--first)", 0.06 + 0.5 * value, "")
    return _rect(x, y, width, height, "var(--bad)", min(1, 0.4 + value / 5), f"<title>{escape(told)}</title>")


def _rect(x: float, y: float, width: float, height: float, fill: str, full: float, about: str) -> str:
    place = f'x="{x:.1f}" y="{y:g}" width="{max(width, 1):.1f}" height="{height:g}"'
    return f'<rect {place} fill="{fill}" fill-opacity="{full:.2f}">{about}</rect>'


def _across(number: int, places: int, left: int, width: int) -> float:
    return left + (number + 0.5) * (width - left) / max(places, 1)


def _ends(names: Sequence[str], left: int, width: int, y: float) -> list[str]:
    return [_text(left, y, names[0]), _text(width, y, names[-1], "end")] if names else []
