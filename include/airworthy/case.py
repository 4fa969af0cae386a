"""What a gate may look at while it gathers its evidence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airworthy.config import Pipeline
from airworthy.evidence import Evidence, Measured

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from airworthy.budget import Budget
    from airworthy.ledger import Entry
    from airworthy.model_files import LoadedModel
    from airworthy.profile import Profile
    from airworthy.registry import Challenger


@dataclass(frozen=True)
class Case:
    """A challenger, the champion it is judged against, and the rows both are scored on.

    What takes long is a function, which does its work when it is first called.

    Attributes:
        champion: The ledger's entry; None if there is no champion.
        own: The challenger's model; its files are in `own.folder`.
        theirs: The champion's model; None if there is none, or it could not be loaded.
        rows: The holdout as the features table has it: key, time, label and excluded columns included, shape (n, ...).
        evidence: Labels, blocks and both models' answers, in the order of `rows`.
        window: Returns the rows the challenger was trained on, with the same columns.
        refit: Returns the answers on the holdout of the same training with another seed, shaped as the challenger's.
        measured: Returns what a fresh process found on the challenger's saved files.
        measured_champion: Returns the same of the champion's; None if there is none, or it could not be loaded.
        budget: Where a comparison draws from the pipeline's error budget.
    """

    pipeline: Pipeline
    challenger: Challenger
    champion: Entry | None
    own: LoadedModel
    theirs: LoadedModel | None
    rows: pd.DataFrame
    evidence: Evidence
    profile: Profile
    window: Callable[[], pd.DataFrame]
    refit: Callable[[int], np.ndarray]
    measured: Callable[[], Measured]
    measured_champion: Callable[[], Measured | None]
    budget: Budget

    @property
    def imported(self) -> bool:
        """Whether the challenger was trained elsewhere, where the rows are that it learnt from."""
        return self.challenger.as_of != self.own.contract.as_of
