"""`size: {megabytes: 100, memory_megabytes: 500}`: the saved files and the memory to serve them fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from airworthy.evidence import Evidence
from airworthy.gates import Gate
from airworthy.verdict import Verdict

if TYPE_CHECKING:
    from airworthy.case import Case

_MEGABYTE = 1e6


class Size(Gate):
    """Passes a challenger whose files, and the process that answers with them, are not larger than allowed.

    Attributes:
        megabytes: All files of the model together, in 10^6 bytes.
        memory_megabytes: The most memory a fresh process held while it loaded the model and answered, in
            2^20 bytes; its libraries are part of it.
    """

    compares: ClassVar[bool] = False

    megabytes: float = Field(default=100, gt=0)
    memory_megabytes: float | None = Field(default=None, gt=0)

    def gather(self, case: Case) -> Mapping[str, Any]:
        return asdict(case.measured())

    def judge(self, evidence: Evidence) -> Verdict:
        found = evidence.of(self)
        if found["error"]:
            return self.verdict(False, f"a fresh process could not answer: {found['error']}")
        files, memory = found["bytes"] / _MEGABYTE, found["peak_megabytes"]
        over = []
        if not 0 < files <= self.megabytes:
            over.append(f"the files are {files:.3g} MB, allowed are {self.megabytes:g}")
        if self.memory_megabytes is not None and not 0 < memory <= self.memory_megabytes:
            over.append(f"the process took {memory:.0f} MB of memory, allowed are {self.memory_megabytes:g}")
        reason = "; ".join(over) or f"the files are {files:.3g} MB, the process took {memory:.0f} MB of memory"
        return self.verdict(not over, reason, megabytes=files, memory_megabytes=memory)
