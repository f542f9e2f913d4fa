from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum
from typing import Any, get_args, get_type_hints

import pytest

from shared import records
from shared.catalog.kinds import KINDS
from shared.catalog.params import Plan, RoundPlan
from shared.records import field


class Colour(StrEnum):
    RED = "red"


@dataclass(frozen=True, kw_only=True, slots=True)
class Stripe:
    width: float = field(1.0, bounds=(0, 9), help="Millimetres.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Flag:
    colour: Colour
    stripes: list[Stripe] = field(factory=list)
    motto: str | None = None


def test_what_is_written_is_read_again() -> None:
    flag = Flag(colour=Colour.RED, stripes=[Stripe(width=2.5)])
    assert records.read(Flag, records.write(flag)) == flag
    assert records.write(flag) == {"colour": "red", "stripes": [{"width": 2.5}], "motto": None}


def test_a_row_of_an_older_version_has_the_defaults_of_today() -> None:
    assert records.read(Flag, {"colour": "red", "stripes": [{}]}) == Flag(colour=Colour.RED, stripes=[Stripe()])


def test_a_record_of_an_older_row_is_written_with_every_field() -> None:
    """So that a plan or a job which is stored again keeps its meaning when a default changes."""
    read = records.read(Flag, {"colour": "red", "stripes": [{}]})
    assert records.write(read) == {"colour": "red", "stripes": [{"width": 1.0}], "motto": None}
    assert set(records.write(records.read(RoundPlan, {"kind": "style"}))) == {each.name for each in fields(RoundPlan)}


def test_a_row_of_a_newer_version_is_read_without_what_is_unknown() -> None:
    assert records.read(Flag, {"colour": "red", "pole": 3}) == Flag(colour=Colour.RED)


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ({}, "missing required field `colour`"),
        ({"colour": "blue"}, "Invalid enum value 'blue'"),
        ({"colour": "red", "stripes": [{"width": "2"}]}, r"Expected `float`, got `str` - at `\$.stripes\[0\].width`"),
    ],
)
def test_a_value_of_the_wrong_type_is_named(written: dict[str, object], says: str) -> None:
    with pytest.raises(TypeError, match=f"Flag: .*{says}"):
        records.read(Flag, written)


def test_nothing_is_written_that_could_not_be_read() -> None:
    with pytest.raises(TypeError, match="Expected `float`, got `str`"):
        records.write(Stripe(width="2"))  # type: ignore[arg-type]


def test_null_in_a_body_means_left_out() -> None:
    assert records.given(Flag, {"colour": "red", "stripes": None}) == Flag(colour=Colour.RED)
    assert records.given(Flag, {"colour": "red", "stripes": [{"width": None}]}).stripes == [Stripe()]


def records_in(type_: Any) -> Iterator[type]:
    """A record, and those in its fields."""
    if is_dataclass(type_):
        yield type_  # type: ignore[misc]
        for hint in get_type_hints(type_).values():
            yield from records_in(hint)
    for inner in get_args(type_):
        yield from records_in(inner)


@pytest.mark.parametrize("record", [Plan, *(part for k in KINDS.values() for part in (k.params, k.inputs, k.result))])
def test_every_record_has_slots(record: type) -> None:
    assert [each.__name__ for each in records_in(record) if "__slots__" not in vars(each)] == []


@pytest.mark.parametrize("record", [Plan, RoundPlan, *(each.params for each in KINDS.values())])
def test_a_number_that_a_client_may_set_has_bounds(record: type) -> None:
    """Without them a body could ask for anything."""
    hints = get_type_hints(record)
    for each in fields(record):  # type: ignore[arg-type]
        if {hints[each.name]} & {int, float, int | None, float | None}:
            assert records.info(each).bounds is not None, each.name
