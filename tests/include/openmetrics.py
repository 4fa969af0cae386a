"""Reads the OpenMetrics text format as strictly as its specification (1.0) is written."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from dataclasses import dataclass, field

Labels = tuple[tuple[str, str], ...]

_SUFFIXES = {
    "counter": ("_total", "_created"),
    "gauge": ("",),
    "info": ("_info",),
    "histogram": ("_bucket", "_count", "_sum", "_created"),
}
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,(?=.)|$)')
_ESCAPED = {"\\n": "\n", '\\"': '"', "\\\\": "\\"}


@dataclass
class Family:
    kind: str
    help: str = ""
    samples: dict[tuple[str, Labels], float] = field(default_factory=dict)

    def values(self, suffix: str = "", **labels: str) -> list[float]:
        """Returns what samples with this ending hold that have these labels."""
        return [
            value
            for (name, given), value in self.samples.items()
            if name.endswith(suffix) and labels.items() <= dict(given).items()
        ]


def parse(text: str) -> dict[str, Family]:
    """Returns every family by its name; whatever the format does not allow fails the test."""
    assert text.endswith("# EOF\n") and text.count("# EOF") == 1
    families: dict[str, Family] = {}
    name = ""
    for line in text.splitlines()[:-1]:
        assert line and line == line.strip(), f"blank: {line!r}"
        if line.startswith("#"):
            _, what, described, told = line.split(" ", 3)
            assert _NAME.fullmatch(described) and what in ("TYPE", "HELP"), line
            if what == "TYPE":
                assert described not in families and told in _SUFFIXES, line
                name, families[described] = described, Family(told)
            else:
                assert described == name and not families[name].help and not families[name].samples, line
                families[name].help = told
            continue
        sample, labels, value = _sample(line)
        family = families[name]
        assert sample in {name + suffix for suffix in _SUFFIXES[family.kind]}, f"not of {name}: {line}"
        assert (sample, labels) not in family.samples, f"twice: {line}"
        family.samples[sample, labels] = value
    for name, family in families.items():
        assert family.help, name
        _require_sense(name, family)
    return families


def _sample(line: str) -> tuple[str, Labels, float]:
    found = _SAMPLE.fullmatch(line)
    assert found, line
    name, inside, value = found.groups()
    labels, end = [], 0
    while end < len(inside or ""):
        label = _LABEL.match(inside, end)
        assert label, line
        labels.append((label[1], re.sub(r"\\.", lambda one: _ESCAPED[one[0]], label[2])))
        end = label.end()
    assert len({label for label, _ in labels}) == len(labels), line
    return name, tuple(labels), float(value)


def _require_sense(name: str, family: Family) -> None:
    values = family.samples.values()
    if family.kind == "counter":
        assert all(value >= 0 and math.isfinite(value) for value in values), name
    if family.kind == "info":
        assert set(values) <= {1.0}, name
    if family.kind == "histogram":
        series: defaultdict[Labels, list[tuple[float, float]]] = defaultdict(list)
        for (sample, labels), value in family.samples.items():
            if sample == f"{name}_bucket":
                edge = dict(labels)["le"]
                assert "." in edge or edge == "+Inf", f"{name}: {edge} must be written as a float"
                series[tuple(one for one in labels if one[0] != "le")].append((float(edge), value))
        assert {labels for sample, labels in family.samples if sample != f"{name}_bucket"} == series.keys()
        for labels, buckets in series.items():
            assert buckets == sorted(buckets) and buckets[-1][0] == math.inf, (name, labels)
            counts = [count for _, count in buckets]
            assert counts == sorted(counts) and counts[-1] == family.samples[f"{name}_count", labels], (name, labels)
