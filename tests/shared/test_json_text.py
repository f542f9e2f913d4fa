"""JSON by orjson, and by the standard library for values that orjson refuses."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from enum import StrEnum

import pytest

from shared import json_text


class Word(StrEnum):
    ONE = "one"


@pytest.mark.parametrize(
    "value",
    [
        {"b": [1, 2.5, None, True], "a": {"ü": "狐"}},
        {"half a pair": "\ud83d"},
        {"large": 2**70},
        {1: "a key that is no text"},
        {"word": Word.ONE, "pair": (1, 2)},
    ],
)
def test_what_is_written_is_read(value):
    assert json_text.read(json_text.write(value)) == json.loads(json.dumps(value))
    assert json_text.read(json_text.write(value, sort_keys=True)) == json.loads(json.dumps(value))


def test_one_thing_has_one_text():
    assert json_text.write({"b": 1, "a": 2}, sort_keys=True) == json_text.write({"a": 2, "b": 1}, sort_keys=True)


def test_what_is_no_number_is_null_and_was_once_nan():
    assert json_text.write([float("nan")]) == "[null]"
    assert json_text.read("[NaN]")[0] != 0


def test_a_time_is_no_json():
    with pytest.raises(TypeError):
        json_text.write(datetime.now(UTC))
