"""Schemas built from records, so that the API, the tables and the code can't disagree about a parameter.

We tried marshmallow-dataclass, but it shows enums by the names of their members, and unions without a type.
"""

from __future__ import annotations

import dataclasses
import types
from enum import StrEnum
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints

from marshmallow import fields

from api.schemas import choices
from api.schemas.fields import Answer, Dict, List, Schema, StrictBoolean, StrictFloat, StrictInteger, Tags, Text
from shared import records
from shared.records import FieldInfo


@cache
def schema_of(record: type, name: str = "") -> type[Schema]:
    """The schema of a request body that holds a record. `name` is its name in openapi.yaml, by default the record's.

    A field without a default is required. Any other may be left out or null: then it has its default.
    """
    built = {
        each.name: _field(hint, records.info(each), required=_is_required(each), allow_none=not _is_required(each))
        for each, hint in _fields(record)
    }
    return type(f"{name or record.__name__}Schema", (Schema,), {"__doc__": record.__doc__, **built})  # type: ignore[return-value]


def resolved_schema_of(record: type, name: str, **nested: type[Answer]) -> type[Answer]:
    """The schema of an answer that holds a record with every field filled in.

    Args:
        name: of the schema in openapi.yaml.
        nested: schemas of answers for fields with lists of records; other fields use `schema_of`.
    """
    built: dict[str, fields.Field[Any]] = {}
    for each, hint in _fields(record):
        about = dataclasses.replace(records.info(each), bounds=None, length=None)
        if each.name in nested:
            built[each.name] = fields.List(fields.Nested(nested[each.name]), required=True)
        else:
            built[each.name] = _field(hint, about, required=True, allow_none=_is_optional(hint))
    return type(f"{name}Schema", (Answer,), {"__doc__": record.__doc__, **built})  # type: ignore[return-value]


class RecordField(fields.Nested):
    """A record in an answer, as the table stores it. The schema is only for openapi.yaml."""

    def _serialize(self, nested_obj: Any, attr: str | None, obj: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        return records.shown(nested_obj)


def _field(hint: Any, about: FieldInfo, **options: Any) -> fields.Field[Any]:
    """The field for a type. Without bounds or length it checks nothing, as in answers."""
    if about.help:
        options["metadata"] = {"description": about.help}
    hint = _without_none(hint)
    if get_origin(hint) is list:
        return _list_field(get_args(hint)[0], about, options)
    if get_origin(hint) is dict:
        keys, values = _choice(about)(), _number(get_args(hint)[1], about, {})
        return Dict(keys, values, *about.length, **options) if about.length else fields.Dict(keys, values, **options)
    if dataclasses.is_dataclass(hint):
        return fields.Nested(schema_of(hint), **options)  # type: ignore[arg-type]
    if hint is bool:
        return StrictBoolean(**options)
    if hint in (int, float):
        return _number(hint, about, options)
    if about.one_of is not None or issubclass(hint, StrEnum):
        return _choice(about, hint)(**options)
    if about.length is None:
        return fields.String(**options)
    return Text(about.length[1], min_length=about.length[0], **options)


def _list_field(item: Any, about: FieldInfo, options: dict[str, Any]) -> fields.Field[Any]:
    element = _field(item, dataclasses.replace(about, help="", length=None))
    if about.length is None:
        return fields.List(element, **options)
    low, high = about.length
    if about.one_of is not None:
        return choices.Several(element, low, high, **options)
    if item is str:
        return Tags(high, min_length=low, **options)
    return List(element, low, high, **options)


def _number(hint: Any, about: FieldInfo, options: dict[str, Any]) -> fields.Field[Any]:
    if about.bounds is None:
        return fields.Float(**options) if hint is float else fields.Integer(**options)
    return StrictFloat(*about.bounds, **options) if hint is float else StrictInteger(*map(int, about.bounds), **options)


def _choice(about: FieldInfo, hint: Any = str) -> type[choices.Choice]:
    """The class of `choices` with these words."""
    words = list(map(str, about.one_of if about.one_of is not None else hint))
    return next(each for each in choices.Choice.__subclasses__() if list(map(str, each.words)) == words)


def _fields(record: type) -> list[tuple[dataclasses.Field[Any], Any]]:
    hints = get_type_hints(record)
    return [(each, hints[each.name]) for each in dataclasses.fields(record)]  # type: ignore[arg-type]


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _is_optional(hint: Any) -> bool:
    return get_origin(hint) in (Union, types.UnionType)


def _without_none(hint: Any) -> Any:
    return next(each for each in get_args(hint) if each is not type(None)) if _is_optional(hint) else hint
