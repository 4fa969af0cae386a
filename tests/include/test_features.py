from __future__ import annotations

import hashlib
from pathlib import Path

import pandas as pd
import pytest

from airworthy.errors import DataError, Problems
from airworthy.features import compute_features, features_digest
from parcels import World, parcels, world

__all__ = ["world"]


def test_without_a_function_all_columns_but_key_time_and_label_are_features(world: World) -> None:
    found = compute_features(world.pipeline(), parcels())
    assert list(found.columns) == ["weight", "service"]


def test_the_function_does_not_see_the_label(world: World) -> None:
    code = "def features(frame):\n    return frame[['weight']].assign(columns=' '.join(frame.columns))\n"
    found = compute_features(world.pipeline(code), parcels())
    assert set(found["columns"]) == {"id at weight service"}
    without = compute_features(world.pipeline(code), parcels().drop(columns="late"))
    pd.testing.assert_frame_equal(found, without)


def test_the_function_cannot_change_the_raw_rows(world: World) -> None:
    raw = parcels()
    compute_features(
        world.pipeline("def features(frame):\n    frame['weight'] = 0\n    return frame[['weight']]\n"), raw
    )
    pd.testing.assert_frame_equal(raw, parcels())


def test_categories_become_strings(world: World) -> None:
    code = "def features(frame):\n    return frame[['service']].astype('category')\n"
    found = compute_features(world.pipeline(code), parcels())
    assert found["service"].dtype == object and found["service"].tolist() == parcels()["service"].tolist()


def test_an_exception_names_function_file_line_and_cause(world: World) -> None:
    pipeline = world.pipeline("def features(frame):\n    double = frame['weight'] * 2\n    return frame[['colour']]\n")
    with pytest.raises(DataError) as raised:
        compute_features(pipeline, parcels())
    message = str(raised.value)
    assert message.startswith(f"{pipeline.features}: must not raise, but raised KeyError: ")
    assert "colour" in message
    module = pipeline.features.partition(":")[0]
    assert message.endswith(f" of {module}.py: return frame[['colour']].")
    line = (world.folder / f"{module}.py").read_text().splitlines().index("    return frame[['colour']]") + 1
    assert f"Line {line} of" in message


def test_a_problem_the_function_states_itself_is_passed_on(world: World) -> None:
    code = (
        "from airworthy.errors import DataError\n"
        "def features(frame):\n    raise DataError('weight', 'must be in kilograms')\n"
    )
    with pytest.raises(DataError, match=r"^weight: must be in kilograms\.$"):
        compute_features(world.pipeline(code), parcels())


def test_a_module_that_cannot_be_compiled_is_named_with_its_line(world: World) -> None:
    pipeline = world.pipeline("def features(frame):\n    return frame[\n")
    with pytest.raises(DataError, match=r"SyntaxError: .*Line \d+ of user_module_\d+\.py: return frame\["):
        compute_features(pipeline, parcels())


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("frame[['weight']].iloc[1:]", "must return one row per raw row, in the same order. Got 9."),
        ("frame[['weight']].iloc[::-1]", "must return one row per raw row, in the same order"),
        ("frame[[]]", "must return at least one column"),
        ("frame[['weight', 'weight']]", "must return each column once. Got ['weight']."),
        (
            "frame[['weight', 'id', 'at']]",
            "must not return a column that the tables have already. Got ['at', 'id'].",
        ),
        (
            "frame[['weight']].assign(late=1)",
            "must not return a column that the tables have already. Got ['late'].",
        ),
        ("frame[['weight']].assign(t=frame['at'])", ": t: must hold numbers, bools or strings. Got 'datetime64"),
        ("frame[['weight']].assign(m=[1, 'a'] * 5)", ": m: must hold numbers, bools or strings. Got 'mixed"),
        ("frame['weight']", "must return a pandas DataFrame. Got 'Series'."),
    ],
)
def test_what_cannot_be_features_is_refused(world: World, body: str, message: str) -> None:
    pipeline = world.pipeline(f"def features(frame):\n    return {body}\n")
    with pytest.raises((DataError, Problems)) as raised:
        compute_features(pipeline, parcels())
    assert message in str(raised.value) and str(pipeline.features) in str(raised.value)


def test_all_reasons_are_listed_at_once(world: World) -> None:
    code = "def features(frame):\n    return frame[['id', 'weight', 'weight']].iloc[1:]\n"
    with pytest.raises(Problems) as raised:
        compute_features(world.pipeline(code), parcels())
    assert len(raised.value.problems) == 3


def test_missing_values_are_allowed(world: World) -> None:
    code = "def features(frame):\n    return frame[['weight', 'service']].where(frame['weight'] > 1)\n"
    found = compute_features(world.pipeline(code), parcels())
    assert found.isna().any().all()


def test_the_digest_is_that_of_the_whole_module(world: World) -> None:
    code = "WIDTH = {}\ndef features(frame):\n    return frame[['weight']] * WIDTH\n"
    one, other = world.pipeline(code.format(1)), world.pipeline(code.format(2))
    file = Path(world.folder, f"{one.features.partition(':')[0]}.py")
    assert features_digest(one) == hashlib.sha256(file.read_bytes()).hexdigest()
    assert features_digest(one) != features_digest(other)
    assert features_digest(world.pipeline()) == ""
