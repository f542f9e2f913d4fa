"""Records: frozen dataclasses with slots that tables keep as JSON.

A record is the one place of what it holds. Each field carries its type, its default, its meaning and its bounds; the
schemas of the API are built from them (`api/schemas/records.py`), and rows are written and read through `write` and
`read`. Without slots, a record that was read would lack the fields that its row lacks, and be written without them.
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
    bounds: Bounds | None = None  # the lowest and the highest number, both allowed; of a dict, its values
    one_of: Collection[str] | None = None  # the words a client may choose among; of a list or dict, its items or keys
    length: tuple[int, int] | None = None  # the least and the most characters or items


def field(
    default: Any = dataclasses.MISSING,
    *,
    factory: Callable[[], Any] | None = None,
    help: str = "",
    bounds: Bounds | None = None,
    one_of: Collection[str] | None = None,
    length: tuple[int, int] | None = None,
) -> Any:
    """A field of a record. Without `default` and `factory` it must be given."""
    info = FieldInfo(help=help, bounds=bounds, one_of=one_of, length=length)
    metadata = {FieldInfo: info}
    if factory is not None:
        return dataclasses.field(default_factory=factory, metadata=metadata)
    if default is dataclasses.MISSING:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def info(field: dataclasses.Field[Any]) -> FieldInfo:
    """What a field of a record says of itself; nothing, if it was declared without `records.field`."""
    return field.metadata.get(FieldInfo, FieldInfo())


def write(record: Any) -> dict[str, Any]:
    """A record as JSON values.

    Raises:
        TypeError: a value is not of its field's type. So a row never holds what `read` would refuse.
    """
    written = shown(record)
    read(type(record), written)
    return written


def shown(record: Any) -> dict[str, Any]:
    """A record as JSON values, unchecked. `dataclasses.asdict` gives the same, many times slower."""
    plain: dict[str, Any] = msgspec.to_builtins(record)
    return plain


def read(type_: type[R], written: Any) -> R:
    """A record, or a list of them, from JSON values. Fields that are missing have their defaults; unknown ones are
    ignored. So rows of an older version can be read, and rows of a newer one while both are running.

    Raises:
        TypeError: a value has the wrong type, or one without a default is missing.
    """
    try:
        return msgspec.convert(written, type_)
    except msgspec.ValidationError as error:
        raise TypeError(f"{type_.__name__}: {error}") from error


def given(type_: type[R], body: dict[str, Any]) -> R:
    """A record from a body that its schema has checked. What is null is as good as left out."""
    return read(type_, _without_null(body))


def _without_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_null(each) for name, each in value.items() if each is not None}
    return [_without_null(each) for each in value] if isinstance(value, list) else value
