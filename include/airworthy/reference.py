"""What a model was trained on, as monitoring compares it with new rows: sketches, a page of JSON beside the model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from airworthy.concept import Calibration
from airworthy.concept import from_json as calibration_from_json
from airworthy.drift import PREDICTION
from airworthy.model_files import REFERENCE, SKETCHES, Contract
from airworthy.sketches import Kind, Sketches, from_json, sketch_frame, to_json

_LABEL = "label"


@dataclass
class Reference:
    """What a model was trained on.

    Attributes:
        columns: Of the training rows, a sketch of each feature, and of what the model says about a sample of them.
        label: Of the training rows, under `label`; empty of a model from before there were sketches.
        raw: Of the holdout's raw rows, the columns of text.
        calibration: Of the holdout; None of such a model.
    """

    columns: Sketches
    label: Sketches = field(default_factory=dict)
    raw: Sketches = field(default_factory=dict)
    calibration: Calibration | None = None

    @classmethod
    def of(
        cls,
        contract: Contract,
        features: pd.DataFrame,
        sample: pd.DataFrame,
        label: pd.Series[Any],
        raw: pd.DataFrame,
    ) -> Reference:
        """Returns the sketches of what a model was trained on.

        Args:
            contract: The model's; its inputs name no personal column.
            features: All training rows.
            sample: Some of them, with `prediction`.
            label: Of all of them.
            raw: Rows that requests look like.
        """
        kinds = kinds_of(contract)
        said = {PREDICTION: kinds.pop(PREDICTION)}
        written = [one.name for one in contract.inputs if one.type == "string" and one.name in raw.columns]
        label_kind: Kind = "number" if contract.task == "regression" else "category"
        return cls(
            columns=sketch_frame(features, kinds) | sketch_frame(sample, said),
            label=sketch_frame(label.to_frame(_LABEL), {_LABEL: label_kind}),
            raw=sketch_frame(raw, dict.fromkeys(written, "category")),
        )

    def to_json(self) -> str:
        """Returns it as a file holds it."""
        parts = {name: to_json(getattr(self, name)) for name in ("columns", "label", "raw")}
        calibration = None if self.calibration is None else self.calibration.to_json()
        return json.dumps({**parts, "calibration": calibration})


def load_reference(folder: Path, contract: Contract) -> Reference:
    """Returns what a model was trained on; of one without sketches, those of the sample in its `reference.parquet`."""
    if not contract.sketched:
        return Reference(columns=sketch_frame(pd.read_parquet(folder / REFERENCE), kinds_of(contract)))
    content = json.loads((folder / SKETCHES).read_text(encoding="utf-8"))
    calibration = content["calibration"]
    return Reference(
        **{name: from_json(content[name]) for name in ("columns", "label", "raw")},
        calibration=None if calibration is None else calibration_from_json(calibration),
    )


def kinds_of(contract: Contract) -> dict[str, Kind]:
    """Returns what each feature holds, and `prediction`."""
    kinds: Mapping[str, Kind] = {feature.name: feature.type for feature in contract.features}
    return {**kinds, PREDICTION: "category" if contract.task == "multiclass" else "number"}
