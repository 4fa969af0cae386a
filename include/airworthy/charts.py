"""Draws small pictures as SVG in the colours of `pages`, so that they fit light and dark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
