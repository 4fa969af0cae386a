"""Reads YAML as people write it by hand, and refuses what YAML itself would silently swallow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from airworthy.errors import ConfigError, Problems


def read_mapping(where: str, file: Path) -> dict[str, Any]:
    """Returns the keys of a YAML file.

    Raises:
        FileNotFoundError: There is no such file.
        Problems: It is no YAML, holds no mapping, or a key is written twice.
    """
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError:
        raise
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise Problems(where, [ConfigError(where, "must be YAML", hint=" ".join(str(error).split()))]) from None
    if not isinstance(content, dict):
        raise Problems(where, [ConfigError(where, "must be a mapping of keys", content)])
    return content


_BOOLEAN, _TEXT = "tag:yaml.org,2002:bool", "tag:yaml.org,2002:str"


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # twice as fast
    """Refuses a key that is written twice, of which YAML would keep the last; takes the key `on` as it is written."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {key.value!r} is written twice", problem_mark=key.start_mark
                )
            seen.add(str(key.value))
            if key.tag == _BOOLEAN:
                key.tag = _TEXT  # in YAML 1.1 the key `on` is true
        found: dict[Any, Any] = super().construct_mapping(node, deep)
        return found
