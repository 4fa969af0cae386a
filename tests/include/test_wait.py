from __future__ import annotations

import pytest
from pydantic import ValidationError

from airworthy.config import Pipeline
from airworthy.wait import Wait
from parcels import World, world

__all__ = ["world"]


def test_a_pipeline_survives_being_written_and_read_with_its_wait(world: World) -> None:
    pipeline = world.pipeline(wait={"timeout": "6 hours"})
    assert pipeline.wait == Wait.model_validate({"timeout": "6 hours", "every": "5 minutes"})
    assert Pipeline.model_validate_json(pipeline.model_dump_json()) == pipeline


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"timeout": "0 days"}, "timeout"),
        ({"timeout": "1 month"}, "timeout"),
        ({"timeout": "1 hour", "every": "0 seconds"}, "every"),
        ({"every": "5 minutes"}, "timeout"),
        ({"timeout": "soon"}, "timeout"),
    ],
)
def test_a_wait_must_take_some_time(fields: dict[str, str], message: str) -> None:
    with pytest.raises(ValidationError) as raised:
        Wait.model_validate(fields)
    assert [error["loc"] for error in raised.value.errors()] == [(message,)]
