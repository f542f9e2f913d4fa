"""Schemas that are built from records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from marshmallow import ValidationError

from api.schemas.records import schema_of
from shared import catalog
from shared.records import field


@dataclass(frozen=True, kw_only=True)
class Brush:
    """What a stroke is made with."""

    size: int = field(bounds=(1, 9), help="Pixels.")
    opacity: float = field(1.0, bounds=(0, 1))
    soft: bool = field(False)
    label: str | None = field(None, length=(1, 5))
    sampler: str = field("ddim", one_of=catalog.SAMPLERS)
    views: list[str] = field(factory=list, one_of=catalog.VIEWS, length=(1, 2))
    tags: list[str] = field(factory=list, length=(0, 2))
    weights: dict[str, int] = field(factory=dict, one_of=catalog.FRAMINGS, bounds=(1, 9), length=(1, 3))


@dataclass(frozen=True, kw_only=True)
class Stroke:
    brush: Brush = field(Brush(size=1))
    points: list[Brush] = field(factory=list, length=(0, 2))


def test_a_loaded_body_has_no_defaults() -> None:
    assert schema_of(Brush)().load({"size": 2}) == {"size": 2}


def test_a_field_without_a_default_must_be_given_and_any_other_may_be_null() -> None:
    assert schema_of(Brush)().validate({}) == {"size": ["Missing data for required field."]}
    assert schema_of(Brush)().validate({"size": None}) == {"size": ["Field may not be null."]}
    assert schema_of(Brush)().validate({"size": 1, "opacity": None, "views": None, "weights": None}) == {}


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 10},
        {"size": "2"},
        {"size": 2.5},
        {"opacity": 1.1},
        {"opacity": "1"},
        {"soft": 1},
        {"label": "longer"},
        {"sampler": "magic"},
        {"views": []},
        {"views": ["nowhere"]},
        {"tags": ["a", "b", "c"]},
        {"tags": ["a, b"]},
        {"weights": {"full_body": 0}},
        {"weights": {"toe": 1}},
        {"colour": "red"},
    ],
)
def test_what_a_field_does_not_allow_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as refused:
        schema_of(Brush)().load({"size": 1, **wrong})
    assert list(refused.value.messages_dict) == list(wrong)


def test_each_word_of_a_list_is_taken_once() -> None:
    assert schema_of(Brush)().load({"size": 1, "views": ["side", "side"]})["views"] == ["side"]


def test_records_are_nested() -> None:
    stroke = {"brush": {"size": 2}, "points": [{"size": 3}]}
    assert schema_of(Stroke)().load(stroke) == stroke
    assert schema_of(Stroke)().validate({"points": [{"size": 0}]}) == {
        "points": {0: {"size": ["Must be greater than or equal to 1 and less than or equal to 9."]}}
    }


def test_a_schema_says_what_its_record_says() -> None:
    schema = schema_of(Brush)
    assert (schema.__name__, schema.__doc__) == ("BrushSchema", Brush.__doc__)
    assert schema().fields["size"].metadata["description"] == "Pixels."
