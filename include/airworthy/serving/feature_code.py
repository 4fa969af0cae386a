"""Gives each champion the feature code it was proven with, whatever happens to the file afterwards."""

from __future__ import annotations

from airworthy.config import Pipeline
from airworthy.user_code import copied


def with_own_feature_code(pipeline: Pipeline) -> Pipeline:
    """Returns the pipeline with `features` naming a copy of its module as the file is now."""
    if pipeline.features is None:
        return pipeline
    return pipeline.model_copy(update={"features": copied(pipeline.features)})
