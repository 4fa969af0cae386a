"""Gives each champion the feature code it was proven with, whatever happens to the file afterwards."""

from __future__ import annotations

import importlib.util
import sys

from airworthy.config import Pipeline
from airworthy.features import features_digest


def with_own_feature_code(pipeline: Pipeline) -> Pipeline:
    """Returns the pipeline with `features` naming a copy of its module as the file is now.

    A server outlives edits of `features()`. Python imports a module once, so the next champion would be served with
    old code; and reloading it would change the code under the champion that still answers.
    """
    if pipeline.features is None:
        return pipeline
    name, _, function = pipeline.features.partition(":")
    copy = f"{name}@{features_digest(pipeline)[:12]}"
    if copy not in sys.modules:
        found = importlib.util.find_spec(name)
        assert found is not None and found.origin is not None
        spec = importlib.util.spec_from_file_location(copy, found.origin)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        sys.modules[copy] = module
    return pipeline.model_copy(update={"features": f"{copy}:{function}"})
