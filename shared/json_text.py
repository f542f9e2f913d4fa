"""JSON as text: answers, ETags and rows are full of it. It takes a tenth of the standard library's time."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import orjson

# What the standard library refuses is refused here too.
STRICT = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS
SORTED = STRICT | orjson.OPT_SORT_KEYS


def write(value: Any, *, sort_keys: bool = False, default: Callable[[Any], Any] | None = None) -> str:
    """A value as JSON. What is no number (NaN) is null; what JSON doesn't know is what `default` makes of it."""
    try:
        return orjson.dumps(value, default, SORTED if sort_keys else STRICT).decode()
    except TypeError:  # half a surrogate pair, more than 64 bits, keys that are no text
        return json.dumps(value, sort_keys=sort_keys, default=default)


def read(text: str | bytes) -> Any:
    """What a row holds; one of former times may hold a NaN."""
    try:
        return orjson.loads(text)
    except ValueError:
        return json.loads(text)
