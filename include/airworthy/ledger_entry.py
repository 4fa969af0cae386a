"""An entry of the ledger, and what a row of them comes to: who stands, and what was taken back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from airworthy.canary import Step
from airworthy.config import Moment
from airworthy.errors import ConflictError

LATER = ("approved_by", "reason", "canary")  # not in the first tables, nor in what their entries hash to


class Entry(BaseModel):
    """One line of the ledger: the champion from `at` on, what it replaced, on whose word and what evidence.

    Or a step of a canary, which leaves the champion `expected` where it is: `canary` lets the challenger `version`
    answer a share of the requests, `widen` a larger one, `take_back` none. Any other entry ends the canary, too.

    Attributes:
        sequence: 1, 2, 3, ... within the pipeline.
        version: The version that is champion from here on; "" where a rollback leaves none.
        digest: SHA-256 of the model's files (`model_files.digest_of`).
        expected: The champion version this entry replaced; None for the first.
        evidence: SHA-256 of the verdicts the promotion rests on.
        hash: SHA-256 over every other field that says something, `previous_hash` included.
        approved_by: Who said yes to a promotion; None if nobody was asked.
        reason: Why somebody rolled back, or what a step of a canary rests on; None if they did not say.
        canary: The numbers of a canary's step as JSON (`canary.Step`); None if the entry is no such step.
    """

    model_config = ConfigDict(frozen=True)

    pipeline: str
    sequence: int
    at: Moment
    action: Literal["promote", "rollback", "canary", "widen", "take_back"]
    version: str
    model_id: str
    run_id: str
    digest: str
    as_of: Moment | None
    expected: str | None
    actor: str
    evidence: str
    previous_hash: str
    hash: str = ""
    approved_by: str | None = None
    reason: str | None = None
    canary: str | None = None

    @property
    def promotes(self) -> bool:
        return self.action == "promote"

    @property
    def crowns(self) -> bool:
        """Whether it says who is champion from here on; a step of a canary does not."""
        return self.action in ("promote", "rollback")

    @property
    def challenges(self) -> bool:
        """Whether its version answers beside the champion from here on, as long as no entry comes after it."""
        return self.action in ("canary", "widen")

    @property
    def began(self) -> int:
        """The sequence of the first entry of its canary."""
        return self.step.began or self.sequence

    @property
    def salt(self) -> str:
        """What a canary's keys are hashed with: not always the same ones meet a new version first."""
        return f"{self.pipeline}/{self.version}"

    @property
    def step(self) -> Step:
        """The numbers of a canary's step."""
        return Step.model_validate_json(self.canary or "{}")

    def sealed(self) -> Entry:
        """Returns the entry with its hash computed from its other fields."""
        silent = {name for name in LATER if getattr(self, name) is None}
        fields = self.model_dump(mode="json", exclude={"hash", *silent})
        content = json.dumps(fields, sort_keys=True, separators=(",", ":"))
        return self.model_copy(update={"hash": hashlib.sha256(content.encode()).hexdigest()})


def standing_of(entries: Sequence[Entry]) -> list[Entry]:
    return _replay(entries)[0]


def _replay(entries: Sequence[Entry]) -> tuple[list[Entry], dict[str, Entry]]:
    """Returns the standing promotions, and by model the last rollback that took it back."""
    standing: list[Entry] = []
    taken_back: dict[str, Entry] = {}
    for number, entry in enumerate(entries):
        if entry.promotes:
            standing.append(entry)
        if entry.action == "take_back":
            taken_back[entry.model_id] = entry
        if entry.action != "rollback":
            continue
        back = promotion_of(entry.version, standing, entries[:number])
        kept = [one for one in standing if back and one.sequence < back.sequence]
        taken_back |= {one.model_id: entry for one in standing[len(kept) :] if one.version != entry.version}
        standing = [*kept, back] if back else []
    return standing, taken_back


def promotion_of(version: str, standing: Sequence[Entry], entries: Sequence[Entry]) -> Entry | None:
    """Returns the last promotion of a version that stands, else the last one; None if it was never promoted."""
    promotions = (entry for entry in reversed([*entries, *standing]) if entry.promotes and entry.version == version)
    return next(promotions, None)


def require_judged_since(
    entries: Sequence[Entry], version: str, model_id: str, judged_at: int, approved_by: str | None
) -> None:
    """Raises a conflict if a model was taken back, and what speaks for it now does not outweigh that.

    A deployment takes its own promotion back when the target does not answer; judged again, it may try again. What
    anybody else took back, for a reason that no gate may see, comes back on a person's word only.
    """
    back = _replay(entries)[1].get(model_id)
    if back is None:
        return
    asked = ("promote", "canary")
    first = next(one for one in reversed(entries[: back.sequence]) if one.action in asked and one.model_id == model_id)
    if back.sequence > judged_at:
        needs = "must be judged again"
    elif back.actor != first.actor and not approved_by:
        needs = "must be brought back or approved by a person"
    else:
        return
    why = f", because: {back.reason}" if back.reason else ""
    did, hint = "rolled back from it", f"Bring it back by `airworthy rollback {back.pipeline} --to {version}`"
    if back.action == "take_back":
        did, hint = "took its canary back", "Train another one"
    where = f"ledger: {back.pipeline}[{back.sequence}]"
    raise ConflictError(where, f"version {version} {needs}, since {back.actor} {did}{why}", hint=hint)
