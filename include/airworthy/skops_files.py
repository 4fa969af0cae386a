"""Files of skops, written so that equal models are equal bytes."""

from __future__ import annotations

import io
import json
import re
import zipfile

_SCHEMA = "schema.json"
_NUMBER = re.compile(r'"__id__": (\d+)')


def canonical(content: bytes) -> bytes:
    """Returns the same model with objects numbered in order of appearance, and without dates.

    skops numbers them by their place in memory, and names the files of arrays by these numbers.
    """
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(packed, "w") as again:
        schema = archive.read(_SCHEMA).decode()
        order = {found: str(number) for number, found in enumerate(dict.fromkeys(_NUMBER.findall(schema)), 1)}

        def renamed(name: str) -> str:
            stem, dot, kind = name.partition(".")
            return f"{order.get(stem, stem)}{dot}{kind}"

        files = {name: renamed(name) for name in archive.namelist() if name != _SCHEMA}
        schema = _NUMBER.sub(lambda found: f'"__id__": {order[found[1]]}', schema)
        for name, new in files.items():
            schema = schema.replace(f'"{name}"', f'"{new}"')
        parts = {new: archive.read(name) for name, new in files.items()}
        for name, part in sorted({**parts, _SCHEMA: schema.encode()}.items()):
            again.writestr(zipfile.ZipInfo(name), part)
    return packed.getvalue()


def moved(content: bytes, then: str, now: str) -> bytes:
    """Returns the same model with the types of one module named as those of another one."""
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(packed, "w") as again:
        for name in archive.namelist():
            part = archive.read(name)
            if name == _SCHEMA:
                old, new = (f'"__module__": {json.dumps(module)}'.encode() for module in (then, now))
                part = part.replace(old, new)
            again.writestr(zipfile.ZipInfo(name), part)
    return packed.getvalue()
