"""Records: frozen dataclasses with slots, which tables store as JSON.

A record is the one place where its fields are declared. Each has its type, default, meaning and bounds. The schemas of
the API are built from them (`api/schemas/records.py`), and rows are written and read through `write` and `read`.
Without slots, a record would lack the fields that its row lacks, and would be written without them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from typing import Any, TypeVar

import msgspec

R = TypeVar("R")
Bounds = tuple[float, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FieldInfo:
    """The metadata of a field, besides its type and default."""

    help: str = ""  # one sentence or two, shown in openapi.yaml
    bounds: Bounds | None = None  # lowest and highest number, inclusive; for a dict, of its values
    one_of: Collection[str] | None = None  # the allowed words; for a list of its items, for a dict of its keys
    length: tuple[int, int] | None = None  # least and most characters or items


def field(
    default: Any = dataclasses.MISSING,
    *,
    factory: Callable[[], Any] | None = None,
    help: str = "",
    bounds: Bounds | None = None,
    one_of: Collection[str] | None = None,
    length: tuple[int, int] | None = None,
) -> Any:
    """A field of a record. Without `default` and `factory` it is required."""
    info = FieldInfo(help=help, bounds=bounds, one_of=one_of, length=length)
    metadata = {FieldInfo: info}
    if factory is not None:
        return dataclasses.field(default_factory=factory, metadata=metadata)
    if default is dataclasses.MISSING:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def info(field: dataclasses.Field[Any]) -> FieldInfo:
    """The metadata of a field. It is empty if the field was declared without `records.field`."""
    return field.metadata.get(FieldInfo, FieldInfo())


def write(record: Any) -> dict[str, Any]:
    """A record as JSON values.

    Raises:
        TypeError: a value does not have its field's type. So a row never holds a value that `read` refuses.
    """
    written = shown(record)
    read(type(record), written)
    return written


def shown(record: Any) -> dict[str, Any]:
    """A record as JSON values, unchecked. `dataclasses.asdict` gives the same, many times slower."""
    plain: dict[str, Any] = msgspec.to_builtins(record)
    return plain


def read(type_: type[R], written: Any) -> R:
    """A record, or a list of them, from JSON values.

    Missing fields get their defaults, and unknown ones are ignored. So rows of older versions can be read, and rows of
    newer ones while both versions run.

    Raises:
        TypeError: a value has the wrong type, or one without a default is missing.
    """
    try:
        return msgspec.convert(written, type_)
    except msgspec.ValidationError as error:
        raise TypeError(f"{type_.__name__}: {error}") from error


def given(type_: type[R], body: dict[str, Any]) -> R:
    """A record from a body that its schema has checked. Null means left out."""
    return read(type_, _without_null(body))


def _without_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_null(each) for name, each in value.items() if each is not None}
    return [_without_null(each) for each in value] if isinstance(value, list) else value
