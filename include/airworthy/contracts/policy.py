"""`contract: {on_change: block, null_tolerance: 0.1}`: what ingest does when raw data changes its shape."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class ContractPolicy(BaseModel):
    """What happens to a partition that differs from the schema contract `config/contracts/<name>.yaml`.

    `block` publishes nothing. `warn` leaves out columns that are new, reads columns that are gone as missing, and
    tells. `evolve` writes the change into the contract and lets the tables follow. Values that would be
    lost, and a missing key, time or label, block always.

    Attributes:
        null_tolerance: How far the share of missing values may lie outside what the contract says.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    on_change: Literal["block", "warn", "evolve"] = "block"
    null_tolerance: float = Field(default=0.1, ge=0, le=1)
